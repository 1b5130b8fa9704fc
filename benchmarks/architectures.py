"""Every architecture of the transformers library that builds at small size: is its plan right?

    python benchmarks/architectures.py [--only PREFIX] [--json FILE]

For each class of the library's auto mappings: what ``freeze`` says of it and, where it accepts it, what one
real backward pass shows under BOT50, TOP25 and INT50: which layers it crossed, and which tensors got a gradient.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers.models.auto import modeling_auto
from transformers.utils import logging

from lfreeze import freeze
from lfreeze.blocks import model_parts
from lfreeze.dry_run import tensors_in
from lfreeze.errors import StrategyError, first_line
from lfreeze.made_up_inputs import model_inputs
from lfreeze.stacks import layer_stacks

MAPPINGS = (
    "MODEL_MAPPING", "MODEL_FOR_CAUSAL_LM_MAPPING", "MODEL_FOR_MASKED_LM_MAPPING", "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING",
    "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING", "MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING", "MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING",
    "MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING", "MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING", "MODEL_FOR_VIDEO_CLASSIFICATION_MAPPING",
    "MODEL_FOR_CTC_MAPPING", "MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING", "MODEL_FOR_QUESTION_ANSWERING_MAPPING",
)  # fmt: skip
STRATEGIES = ("BOT50", "TOP25", "INT50")
SIZES: dict[str, Any] = {
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "embed_dim", "emb_dim", "dim", "hidden_dim", "encoder_hidden_size"), 32),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "encoder_ffn_dim", "decoder_ffn_dim", "d_ff", "d_inner", "n_inner",
                     "moe_intermediate_size", "shared_expert_intermediate_size", "encoder_intermediate_size"), 48),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers", "decoder_layers", "num_encoder_layers",
                     "num_decoder_layers", "depth", "encoder_num_hidden_layers"), 4),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads", "decoder_attention_heads",
                     "encoder_num_attention_heads"), 4),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads"), 2),
    **dict.fromkeys(("num_local_experts", "num_experts", "n_routed_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "n_group", "topk_group"), 1),
    "head_dim": 8, "vocab_size": 128, "max_position_embeddings": 128, "n_positions": 128, "image_size": 64, "patch_size": 4,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "max_source_positions": 32, "embedding_size": 16, "decoder_start_token_id": 1,
}  # fmt: skip
SIZES |= {"rotary_dim": 4, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 8, "q_lora_rank": 16, "kv_lora_rank": 16,
          "attn_layer_period": 2, "attn_layer_offset": 1, "use_cache": False}  # fmt: skip
LARGEST = 30_000_000
SECONDS = 30


def classes() -> Iterator[tuple[str, type[nn.Module], Any]]:
    """Each model class once, with its configuration's class."""
    seen = set()
    for name in MAPPINGS:
        mapping = getattr(modeling_auto, name, None)
        for config_class in mapping or ():
            try:
                entry = mapping[config_class]
            except Exception:
                continue  # It needs a package that is not installed.
            for model_class in entry if isinstance(entry, tuple) else (entry,):
                if model_class is not None and model_class not in seen:
                    seen.add(model_class)
                    yield model_class.__name__, model_class, config_class


def small(config_class: Any, example: Any = None) -> dict[str, Any]:
    """Arguments that make a small configuration."""
    example = example if example is not None else config_class()
    values = {name: size for name, size in SIZES.items() if type(getattr(example, name, None)) is type(size)}
    for name in getattr(config_class, "sub_configs", {}):
        part = getattr(example, name, None)
        if part is not None:
            kind = {"model_type": part.model_type} if getattr(part, "model_type", "") else {}
            values[name] = {**small(type(part), part), **kind}
    return values


def build(model_class: Any, config_class: Any) -> nn.Module:
    """A small model, or the first error in the way."""
    config = config_class(**small(config_class))
    with torch.device("meta"):
        count = sum(p.numel() for p in model_class(config).parameters())
    if count > LARGEST:
        raise ValueError(f"{count:,} parameters at small size")
    torch.manual_seed(0)
    return model_class(config)


def measure(model: nn.Module, strategy: str, stack: str | None) -> tuple[str, bool]:
    """A line on a strategy's plan and one backward pass, and whether they agree."""
    plan = freeze(model, strategy, stack=stack)
    layers, crossed = model_parts(model, stack).layers, set()
    arguments = next(a for a in model_inputs(model) if _reaches(layers[0], model, a))

    def watch(index: int) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            for tensor in tensors_in(output):
                if tensor.requires_grad:
                    tensor.register_hook(lambda grad: crossed.add(index))

        return hook

    handles = [layer.register_forward_hook(watch(i)) for i, layer in enumerate(layers)]
    output = model(*arguments.get("", ()), **{k: v for k, v in arguments.items() if k})
    # A loss is computed from the logits, where there are any.
    logits = output.get("logits") if isinstance(output, dict) else None
    used = tensors_in(output if logits is None else logits)
    values = [t.float().pow(2).mean() for t in used if t.requires_grad]
    torch.stack(values).sum().backward()
    for handle in handles:
        handle.remove()
    wrong = [n for n, p in model.named_parameters() if p.grad is not None and not p.requires_grad]
    trained = [i for i, layer in enumerate(layers) if any(p.grad is not None for p in layer.parameters())]
    expected = [i for i in range(len(layers)) if i not in plan.frozen_layers]
    model.zero_grad()
    right = len(crossed) == plan.backward_depth and not wrong and trained == expected
    text = f"depth {plan.backward_depth}/{len(crossed)} of {plan.n_layers}"
    return text + (f", trains {trained}" if trained != expected else ""), right


def _reaches(layer: nn.Module, model: nn.Module, arguments: dict[str, Any]) -> bool:
    """Whether the model runs on these arguments, the layer included."""
    calls: list[nn.Module] = []
    handle = layer.register_forward_hook(lambda module, *_: calls.append(module))
    try:
        with torch.no_grad():
            model(*arguments.get("", ()), **{k: v for k, v in arguments.items() if k})
    except Exception:
        return False
    finally:
        handle.remove()
    return bool(calls)


def examine(model_class: Any, config_class: Any) -> tuple[str, str]:
    """A class's outcome and its details."""
    try:
        model = build(model_class, config_class).eval()
    except Exception as error:
        return "does not build", first_line(error, with_type=True)[:160]
    stacks = list(layer_stacks(model))
    if len(stacks) < 2:
        return examine_stack(model, None)
    try:
        freeze(model, "BOT50")
    except StrategyError:
        outcomes = {path: examine_stack(model, path) for path in stacks}
        wrong = any(outcome == "WRONG" for outcome, _ in outcomes.values())
        listed = "; ".join(f"{path}: {outcome} ({text})" for path, (outcome, text) in outcomes.items())
        return "WRONG" if wrong else "several stacks", listed
    return "WRONG", "accepted in spite of several stacks"


def examine_stack(model: nn.Module, stack: str | None) -> tuple[str, str]:
    lines, right = [], True
    for strategy in STRATEGIES:
        try:
            line, agrees = measure(model, strategy, stack)
        except StrategyError as error:
            line, agrees = str(error), True
            if strategy == STRATEGIES[0]:
                return "refused", line
        except StopIteration:
            return "does not run", "not on the inputs that are made up here"
        except Exception as error:
            return "no backward pass", f"{strategy}: {first_line(error, with_type=True)[:160]}"
        lines.append(f"{strategy} {line}")
        right = right and agrees
    return "right" if right else "WRONG", ", ".join(lines)


class TooSlow(BaseException):
    """Not an Exception, so that nothing in between handles it."""


def too_slow(*_: Any) -> None:
    raise TooSlow


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="class names that start with this")
    parser.add_argument("--json", type=Path, help="write the table to this file")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.set_verbosity_error()
    torch.set_num_threads(1)
    signal.signal(signal.SIGALRM, too_slow)
    table = {}
    for name, model_class, config_class in classes():
        if not name.startswith(options.only):
            continue
        signal.alarm(SECONDS)
        try:
            table[name] = examine(model_class, config_class)
        except TooSlow:
            table[name] = ("does not build", f"takes more than {SECONDS} s")
        signal.alarm(0)
        print(f"{name:48} {table[name][0]:16} {table[name][1][:240]}", flush=True)
    print(dict(Counter(outcome for outcome, _ in table.values())))
    if options.json:
        options.json.write_text(json.dumps(table, indent=1))
    return int(any(outcome == "WRONG" for outcome, _ in table.values()))


if __name__ == "__main__":
    sys.exit(main())
