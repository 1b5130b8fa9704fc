"""The ``lfreeze`` command, also ``python -m lfreeze``.

``lfreeze estimate MODEL`` predicts memory and FLOPs before training.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from typing import NoReturn

from lfreeze.errors import InputError
from lfreeze.estimates import DEFAULT_STRATEGIES, DEVICES, Estimate, estimate
from lfreeze.recipe import CHOICES

_EXAMPLE = (
    "example: lfreeze estimate Qwen/Qwen3-0.6B --strategies ALL,LoRA,BOT25,BOT50 --batch-size 8 "
    "--max-length 2048 --causal-lm"
)
_MIB, _GIB = 2**20, 2**30


class _Parser(argparse.ArgumentParser):
    """Answers bad input in one sentence."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}\n")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; exit status 2 and one sentence on bad input."""
    options = vars(_parser().parse_args(arguments))
    as_json, strategies = options.pop("json"), options.pop("strategies").split(",")
    try:
        found = estimate(options.pop("model"), strategies, **options)
    except InputError as error:
        sys.exit(_fail(str(error)))
    print(json.dumps(dataclasses.asdict(found), indent=2) if as_json else table(found))


def table(found: Estimate) -> str:
    """An estimate as text: a line for each strategy, memory and FLOPs with what they save."""
    kind = "causal language model" if found.causal_lm else "sequence classifier"
    unit, size = ("GiB", _GIB) if max(s.peak_bytes for s in found.strategies) >= _GIB else ("MiB", _MIB)
    flops = max(s.step_flops for s in found.strategies)
    prefix, scale = ("T", 1e12) if flops >= 1e11 else ("G", 1e9)
    header = [
        "strategy", "trains", f"static {unit}", f"training {unit}", "saved", f"peak {unit}", "saved",
        f"{prefix}FLOP a step", "saved",
    ]  # fmt: skip
    rows = [
        [
            s.strategy,
            f"{s.trainable_parameters:,}",
            *(f"{n / size:.2f}" for n in (s.static_bytes, s.training_bytes)),
            _percent(s.training_saved),
            f"{s.peak_bytes / size:.2f}",
            _percent(s.peak_saved),
            f"{s.step_flops / scale:.2f}",
            _percent(s.flops_saved),
        ]
        for s in found.strategies
    ]
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        for row in (header, *rows)
    ]
    return "\n".join(
        [
            f"{found.model}: {found.model_type}, {kind}, {found.n_layers} layers, {found.total_parameters:,} parameters",
            f"steps of {found.batch_size} texts of {found.max_length} tokens, {found.precision}, AdamW, on {found.device}",
            "",
            *lines,
        ]
    )


def _percent(saved: float) -> str:
    return f"{saved:.1f} %"


def _parser() -> argparse.ArgumentParser:
    program = _Parser(
        prog="lfreeze", description="Selective layer freezing: what it would save on your model."
    )
    commands = program.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)
    command = commands.add_parser(
        "estimate",
        help="predict memory and FLOPs of training, from a model's configuration alone",
        description="Predict memory and FLOPs of a training step for each strategy, and what is saved against full "
        "fine-tuning. Reads the model's config.json alone, no weights.",
        epilog=_EXAMPLE,
        argument_default=argparse.SUPPRESS,
    )
    command.add_argument("model", metavar="MODEL", help="a hub identifier, a folder, or a config.json file")
    command.add_argument(
        "--strategies", default=",".join(DEFAULT_STRATEGIES), metavar="A,B", help="default %(default)s"
    )
    command.add_argument("--batch-size", type=int, required=True, metavar="N", help="texts in a step")
    command.add_argument("--max-length", type=int, required=True, metavar="N", help="tokens of each text")
    command.add_argument(
        "--causal-lm", action="store_true", help="a causal language model instead of a classifier"
    )
    command.add_argument("--labels", dest="n_labels", type=int, metavar="N", help="of a classifier (2)")
    command.add_argument("--device", metavar="|".join(DEVICES), help="that trains (cuda)")
    for name, default in (
        ("precision", "bf16-mixed"),
        ("frozen_dtype", "same"),
        ("freeze_embeddings", "auto"),
    ):
        option, choices = f"--{name.replace('_', '-')}", "|".join(CHOICES[name])
        command.add_argument(option, metavar=choices, help=f"default {default}")
    command.add_argument("--lora-rank", type=int, metavar="N", help="default 8")
    command.add_argument("--lora-targets", metavar="A,B", help="names of linear maps")
    command.add_argument("--json", action="store_true", default=False, help="print JSON, in bytes and FLOP")
    return program


def _fail(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    main()
