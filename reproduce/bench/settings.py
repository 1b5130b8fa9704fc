"""How the benchmarks run: their sizes, in full and with ``--quick``."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Gemma's architecture at sizes that two CPU cores train; its vocabulary bounds that of the tokenizer.
_FULL = {
    "hidden_size": 256,
    "num_hidden_layers": 12,
    "intermediate_size": 1024,
    "head_dim": 64,
    "vocab_size": 32_000,
}
_QUICK = {
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "intermediate_size": 256,
    "head_dim": 16,
    "vocab_size": 2_000,
}
_COMMON = {
    "model_type": "gemma", "num_attention_heads": 4, "num_key_value_heads": 1, "hidden_act": "gelu_pytorch_tanh",
    "max_position_embeddings": 512, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """The settings of one run of ``reproduce bench``.

    Attributes:
        quick: tiny sizes and few repetitions, to see that every benchmark works; the ratios mean little.
        device: ``cpu`` or ``cuda``.
        data_dir: the folder with the benchmarks' own files; without it texts are generated.
        cpu_threads: threads of each process that trains on the CPU. One, so that a core is left for the system.
        pairs: how often both parts of a ratio are measured.
        steps: optimiser steps of each measured training run.
    """

    quick: bool
    device: str
    data_dir: Path | None = None
    cpu_threads: int = 1
    pairs: int = 5
    steps: int = 12
    batch_size: int = 32
    max_length: int = 128

    @classmethod
    def chosen(cls, *, quick: bool, device: str, data_dir: Path | None, pairs: int | None = None) -> Settings:
        """The settings of a full or a quick run; ``pairs`` replaces their number of pairs."""
        sizes: dict[str, int] = {"pairs": 2, "steps": 8, "batch_size": 8} if quick else {}
        return cls(quick, device, data_dir, **sizes | ({"pairs": pairs} if pairs else {}))

    @property
    def model_config(self) -> dict[str, Any] | None:
        """The reference model's configuration; None for the packaged one of Gemma-2b."""
        if self.device == "cuda" and not self.quick:
            return None
        return _COMMON | (_QUICK if self.quick else _FULL)

    def recorded(self) -> dict[str, Any]:
        """The settings as plain values; of the data folder only whether there is one."""
        values = dataclasses.asdict(self)
        texts = "the benchmark's own files" if values.pop("data_dir") else "generated, with drawn lengths"
        return values | {"texts": texts, "model": self.model_config or "gemma-2b"}
