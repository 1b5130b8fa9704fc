"""The paper's three models (§4.1) and their tiny counterparts: where they are and what identifies them.

Nothing here imports torch; ``lfreeze.loading`` reads the weights.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lfreeze.errors import InputError

_PACKAGE = Path(__file__).parent


class ModelError(InputError):
    """A model that cannot be used; the message names it and what is accepted."""


@dataclass(frozen=True)
class ModelCard:
    """A known model: its identifier, and its configuration, which holds the architecture's sizes."""

    name: str
    model_id: str
    config_file: Path
    tiny: bool = False

    @property
    def config(self) -> dict[str, object]:
        loaded: dict[str, object] = json.loads(self.config_file.read_text("utf-8"))
        return loaded


@dataclass(frozen=True)
class Checkpoint:
    """A model's files in one folder, and the hashes that identify what they hold."""

    name: str
    model_id: str
    folder: Path
    weights_hash: str
    tokenizer_hash: str


def _paper(name: str, model_id: str) -> ModelCard:
    return ModelCard(name, model_id, _PACKAGE / "configs" / f"{name}.json")


def _tiny(name: str) -> ModelCard:
    folder = _PACKAGE / "tiny" / "weights" / name
    return ModelCard(name, f"lfreeze.tiny/{name}", folder / "config.json", tiny=True)


MODELS: dict[str, ModelCard] = {
    card.name: card
    for card in (
        _paper("gemma-2b", "google/gemma-2b"),
        _paper("phi-2", "microsoft/phi-2"),
        _paper("minicpm-2b-128k", "openbmb/MiniCPM-2B-128k"),
        _tiny("tiny-gemma"),
        _tiny("tiny-phi"),
        _tiny("tiny-minicpm"),
    )
}


def get_model(name: str) -> ModelCard:
    """The model called ``name``.

    Raises:
        ModelError: there is none.
    """
    try:
        return MODELS[name.strip().lower()]
    except KeyError:
        raise ModelError(f"unknown model {name!r}; known are {', '.join(MODELS)}") from None


def find_checkpoint(name: str, model_paths: Mapping[str, Path]) -> Checkpoint:
    """The files of a model: the folder given for it, or the package's own for a tiny one.

    Raises:
        ModelError: no folder is known, or it lacks a file.
    """
    card = get_model(name)
    folder = model_paths.get(card.name, card.config_file.parent if card.tiny else None)
    if folder is None:
        raise ModelError(
            f"model {card.name} needs a local copy: name its folder with --model-path {card.name}=DIR"
        )
    if not folder.is_dir():
        raise ModelError(f"model {card.name}: the folder {folder} does not exist")
    tokenizer_files = sorted(
        p for p in folder.iterdir() if "token" in p.name or p.name in ("vocab.json", "merges.txt")
    )
    for found, what in (
        ((folder / "config.json").is_file(), "config.json"),
        (weight_files(folder), "*.safetensors"),
        (tokenizer_files, "tokenizer.json"),
    ):
        if not found:
            raise ModelError(f"model {card.name}: {folder} lacks the file {what}")
    weights = _hash_files((folder / "config.json", *weight_files(folder)))
    return Checkpoint(card.name, card.model_id, folder, weights, _hash_files(tuple(tokenizer_files)))


def weight_files(folder: Path) -> tuple[Path, ...]:
    return tuple(sorted(folder.glob("*.safetensors")))


@functools.cache
def _hash_files(files: tuple[Path, ...]) -> str:
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
