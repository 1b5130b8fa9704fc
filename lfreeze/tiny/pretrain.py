"""Make the tiny models' tokenizer and weights: ``python -m lfreeze.tiny.pretrain``.

Everything is determined by the seed; on one machine the same command produces the same bytes. The README in
this folder describes how the settings were chosen.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save as serialize
from torch import nn
from torch.nn import functional as F

from lfreeze.tiny.architectures import MAX_POSITIONS, TINY_MODELS, causal_lm, stored_config
from lfreeze.tiny.corpus import Document, description, dialogue
from lfreeze.tiny.draws import Draws
from lfreeze.tiny.tokenizer import BOS_ID, EOS_ID, PAD_ID, SEP_ID, train_tokenizer

WEIGHTS = Path(__file__).parent / "weights"
_IGNORED = -100
_TOKENIZER_DOCUMENTS = 4_000
_HELD_OUT_DOCUMENTS = 512
# One in this many steps reads descriptions, the others dialogues.
_DESCRIPTION_EVERY = 6


@dataclass(frozen=True)
class Settings:
    """How a model is pre-trained; documents are truncated to ``sequence_length`` tokens."""

    seed: int = 1
    steps: int = 1_000
    batch_size: int = 96
    sequence_length: int = 96
    learning_rate: float = 2e-3
    warmup_steps: int = 100
    adam_beta2: float = 0.99
    max_grad_norm: float = 1.0


def make_tokenizer(settings: Settings) -> Any:
    """The tokenizer, trained on the first documents of the pre-training text."""
    draws = Draws("tokenizer", settings.seed)
    documents = (
        (description if number % _DESCRIPTION_EVERY == 0 else dialogue)(draws)
        for number in range(_TOKENIZER_DOCUMENTS)
    )
    return train_tokenizer((line for document in documents for line in document), MAX_POSITIONS)


def encoder(tokenizer: Any) -> Callable[[Document], list[int]]:
    """A function from documents to token ids: ``<bos> line <sep> line ... <eos>``."""
    known: dict[str, list[int]] = {}

    def encode(document: Document) -> list[int]:
        ids = [BOS_ID]
        for line in document:
            if line not in known:
                known[line] = tokenizer(line, add_special_tokens=False)["input_ids"]
            ids += [*known[line], SEP_ID]
        ids[-1] = EOS_ID
        return ids

    return encode


def padded(documents: Sequence[list[int]], length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs and targets of shape (documents, tokens - 1), truncated to ``length`` tokens."""
    width = min(length, max(map(len, documents)))
    rows = torch.tensor([[*ids[:width], *[PAD_ID] * (width - len(ids))] for ids in documents])
    targets = rows[:, 1:].clone()
    targets[targets == PAD_ID] = _IGNORED
    return rows[:, :-1], targets


def language_loss(model: nn.Module, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    # Padding is on the right and attention is causal: no token attends to padding, so no mask is needed.
    logits = model(input_ids=inputs, use_cache=False).logits
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=_IGNORED)


def pretrain(name: str, tokenizer: Any, settings: Settings) -> tuple[nn.Module, dict[str, Any]]:
    """Train a model from random weights; return it with the numbers to record."""
    torch.manual_seed(settings.seed)
    model = causal_lm(stored_config(name, len(tokenizer))).train()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=settings.learning_rate, betas=(0.9, settings.adam_beta2), weight_decay=0.0
    )
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _schedule(step, settings))
    encode, draws, losses = encoder(tokenizer), Draws("pretraining", settings.seed), list[float]()
    started = time.perf_counter()
    for step in range(settings.steps):
        kind = description if step % _DESCRIPTION_EVERY == _DESCRIPTION_EVERY - 1 else dialogue
        # Long documents get smaller batches, so that steps of both kinds cost about the same.
        size = settings.batch_size // (4 if kind is description else 1) or 1
        batch = padded([encode(kind(draws)) for _ in range(size)], settings.sequence_length)
        loss = language_loss(model, *batch)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), settings.max_grad_norm)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
        if step % 100 == 99:
            mean = sum(losses[-100:]) / 100
            print(
                f"{name}: step {step + 1}, loss {mean:.3f}, {time.perf_counter() - started:.0f} s", flush=True
            )
    seconds = time.perf_counter() - started
    tail = losses[-50:]
    return model, {
        "first_loss": losses[0],
        "final_loss": sum(tail) / len(tail),
        **held_out_numbers(model, encode, settings),
        "seconds": round(seconds, 1),
    }


def _schedule(step: int, settings: Settings) -> float:
    """Linear warm-up, then a cosine to a tenth."""
    warm = min(1.0, (step + 1) / settings.warmup_steps)
    return warm * (0.55 + 0.45 * math.cos(math.pi * min(1.0, step / settings.steps)))


@torch.no_grad()
def held_out_numbers(
    model: nn.Module, encode: Callable[[Document], list[int]], settings: Settings
) -> dict[str, float]:
    """On dialogues about held-out pairs: the loss per token, and how often the correct answer is the likeliest."""
    model.eval()
    draws = Draws("held out", settings.seed)
    documents = [encode(dialogue(draws, of_held_out=True)) for _ in range(_HELD_OUT_DOCUMENTS)]
    inputs, targets = padded(documents, settings.sequence_length)
    loss = language_loss(model, inputs, targets).item()
    logits = model(input_ids=inputs, use_cache=False).logits
    # <bos> ... <sep> answer <eos>: the answer is predicted three positions before the end.
    correct = [logits[row, len(ids) - 3].argmax().item() == ids[-2] for row, ids in enumerate(documents)]
    model.train()
    return {"held_out_loss": loss, "held_out_answer_accuracy": sum(correct) / len(correct)}


def save(
    name: str, model: nn.Module, tokenizer: Any, numbers: dict[str, Any], settings: Settings, out: Path
) -> None:
    """Write a model's folder: configuration, weights without a head, tokenizer, and a record of the training."""
    folder = out / name
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    config = stored_config(name, len(tokenizer))
    _write_json(folder / "config.json", config)
    tensors = {k: v.contiguous() for k, v in model.state_dict().items() if not k.startswith("lm_head.")}
    weights = folder / "model.safetensors"
    weights.write_bytes(serialize(tensors, metadata={"format": "pt"}))
    record = {
        "model": name,
        **asdict(settings),
        "parameters": sum(tensor.numel() for tensor in tensors.values()),
        **numbers,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
    }
    _write_json(folder / "pretraining.json", record)


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", "utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m lfreeze.tiny.pretrain", description=__doc__)
    parser.add_argument(
        "--models", default=",".join(TINY_MODELS), help="comma-separated (default: all three)"
    )
    parser.add_argument(
        "--out", type=Path, default=WEIGHTS, help="folder to write to (default: the package's)"
    )
    parser.add_argument("--steps", type=int, default=Settings.steps)
    parser.add_argument("--seed", type=int, default=Settings.seed)
    chosen = parser.parse_args(arguments)
    names = chosen.models.split(",")
    for name in names:
        if name not in TINY_MODELS:
            parser.error(f"unknown tiny model {name!r}; known are {', '.join(TINY_MODELS)}")
    # Sums depend on the number of threads.
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    settings = Settings(seed=chosen.seed, steps=chosen.steps)
    tokenizer = make_tokenizer(settings)
    for name in names:
        model, numbers = pretrain(name, tokenizer, settings)
        save(name, model, tokenizer, numbers, settings, chosen.out)


if __name__ == "__main__":
    main()
