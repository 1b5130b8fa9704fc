"""Every sequence classifier of the transformers library that builds at small size: do the strategies run?

    python benchmarks/classifiers.py [--only PREFIX] [--json FILE]

Each is saved as a checkpoint with the tokenizer of the tiny models, checked as ``reproduce run`` checks a model, and
trained for 8 steps on tiny-cb with each strategy. "Runs" means that the freeze proof holds and the planned backward depth is
the measured one.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import sys
import tempfile
import warnings
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from architectures import TooSlow, small, too_slow
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging

from lfreeze.data.encoding_cache import encoded
from lfreeze.data.loading import load_task
from lfreeze.errors import InputError, first_line
from lfreeze.models.catalog import MODELS, find_checkpoint, get_model
from lfreeze.models.loading import BaseModel
from lfreeze.models.preflight import inspect_model
from lfreeze.recipe import Recipe
from lfreeze.strategy import Strategy
from lfreeze.training.loop import train

STRATEGIES = tuple(map(Strategy.parse, ("ALL", "BOT50", "TOP25", "LoRA", "ADT-L50")))
RECIPE = Recipe(
    batch_size=4, max_length=64, steps=8, learning_rate=1e-3, schedule="cosine", lora_rank=4, lora_alpha=8,
    lora_dropout=0.0, max_train_examples=40, probe_steps=3, precision="fp32", timing_warmup_steps=1,
)  # fmt: skip
CPU = torch.device("cpu")
SECONDS = 60
VOCABULARY = 512


def examine(config_class: Any, folder: Path) -> tuple[str, str]:
    """A classifier's outcome and its details."""
    try:
        values = small(config_class) | {"vocab_size": VOCABULARY, "num_labels": 3}
        torch.manual_seed(0)
        AutoModelForSequenceClassification.from_config(config_class(**values)).save_pretrained(folder)
    except Exception as error:
        return "does not build", first_line(error, with_type=True)[:160]
    AutoTokenizer.from_pretrained(MODELS["tiny-gemma"].config_file.parent).save_pretrained(folder)
    data = load_task("tiny-cb", RECIPE.max_train_examples, 0, max_validation_examples=8)
    try:
        checkpoint = find_checkpoint(get_model(str(folder)))
        recipe = choose_targets(checkpoint)
        base, task = (
            BaseModel(checkpoint, 3, recipe, CPU),
            encoded(data, checkpoint, RECIPE.max_length, "auto"),
        )
    except InputError as error:
        return "refused", str(error)
    failures = []
    for strategy in STRATEGIES:
        try:
            record = train(base.reset(1), task, recipe, strategy, 1, CPU)
            depths = record.plan.backward_depth, record.proof.backward_depth
            if not record.proof.holds or depths[0] != depths[1]:
                failures.append(f"{strategy}: {record.proof}, planned depth {depths[0]}")
        except Exception as error:
            failures.append(f"{strategy}: {first_line(error, with_type=True)[:160]}")
        finally:
            base.release(strategy.implementation)
    return ("runs", base.attention) if not failures else ("fails", "; ".join(failures))


def choose_targets(checkpoint: Any) -> Recipe:
    """The recipe with LoRA targets that the model has.

    Raises:
        InputError: the model cannot be used.
    """
    try:
        inspect_model(checkpoint, 3, STRATEGIES, RECIPE)
        return RECIPE
    except InputError as error:
        # The message ends with the linear maps of the layers.
        maps = re.search(r"LoRA's target .*; it has (.*): choose", str(error))
        if maps is None:
            raise
    recipe = replace(RECIPE, lora_targets=(maps[1].split(", ")[0],))
    inspect_model(checkpoint, 3, STRATEGIES, recipe)
    return recipe


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="model types that start with this")
    parser.add_argument("--json", type=Path, help="write the table to this file")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.set_verbosity_error()
    torch.set_num_threads(1)
    signal.signal(signal.SIGALRM, too_slow)
    table = {}
    for config_class in AutoModelForSequenceClassification._model_mapping:
        name = config_class.model_type
        if not name.startswith(options.only):
            continue
        signal.alarm(SECONDS)
        try:
            with tempfile.TemporaryDirectory() as folder:
                (Path(folder) / "model").mkdir()
                table[name] = examine(config_class, Path(folder) / "model")
        except TooSlow:
            table[name] = ("fails", f"takes more than {SECONDS} s")
        signal.alarm(0)
        print(f"{name:32} {table[name][0]:16} {table[name][1][:240]}", flush=True)
    print(dict(Counter(outcome for outcome, _ in table.values())))
    if options.json:
        options.json.write_text(json.dumps(table, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
