"""Models by name: the paper's three (§4.1), a few small ones, the tiny ones, and any other of the hub.

Nothing here imports torch; ``lfreeze.models.loading`` reads the weights.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lfreeze import hub
from lfreeze.errors import shown
from lfreeze.models.files import (
    ModelError,
    has_weights,
    hash_files,
    is_complete,
    needed_files,
    read_config,
    read_model_config,
    tokenizer_files,
    tokenizer_hash,
    weight_files,
)
from lfreeze.models.formats import refuse_adapter, require_full_precision, require_whole_model
from lfreeze.plain_files import local_folder

_PACKAGE = Path(__file__).parents[1]
_HUB_ID = re.compile(r"(?P<id>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")
# The tokenizer of random models: byte-level, so that it encodes any text.
_RANDOM_TOKENIZER = _PACKAGE / "tiny" / "weights" / "tiny-gemma"


EOS = "eos"


@dataclass(frozen=True)
class ModelCard:
    """Where a model comes from.

    Attributes:
        model_id: its identifier on the hub; ``local/<name>`` for a folder's.
        revision: a commit or branch of the hub's repository.
        packaged: its folder, or only its configuration file, inside this package.
        folder: a local copy to use instead of the hub.
        pad_token: for a tokenizer without a pad token: a token of its vocabulary, or ``EOS`` for its
            end-of-text token.
        random: real sizes with random values, to measure speed and memory without the weights.
    """

    name: str
    model_id: str
    revision: str = "main"
    packaged: str = ""
    folder: Path | None = None
    pad_token: str | None = None
    random: bool = False

    @property
    def tiny(self) -> bool:
        return self.packaged.startswith("tiny/")

    @property
    def known(self) -> bool:
        """Whether tokenizer and configuration are in this package, or are those of a commit that it names."""
        return bool(self.packaged) and (self.tiny or self.random or self.revision != "main")

    @property
    def config_file(self) -> Path:
        """The model's ``config.json``: local, in the package, or downloaded from the hub.

        Raises:
            HubError: the hub has none, or does not answer.
        """
        if self.folder is not None:
            return self.folder / "config.json"
        if self.packaged:
            path = _PACKAGE / self.packaged
            return path / "config.json" if path.is_dir() else path
        return hub.config_file(self.model_id, self.revision, _chooser(self.name, config_only=True))

    @property
    def config(self) -> dict[str, object]:
        """The content of ``config.json``.

        Raises:
            ModelError: it is missing, not a JSON object, or that of a checkpoint that cannot be trained.
        """
        if self.folder is not None and self.folder.is_dir():
            require_whole_model(self.name, self.folder)
        config = read_model_config(self.name, self.config_file)
        if not self.random:
            require_full_precision(self.name, config, self.folder)
        return config


@dataclass(frozen=True)
class Checkpoint:
    """A model's files and the hashes that identify their content.

    Attributes:
        folder: contains the weights; None for random ones.
        revision: the commit of the files, if they come from the hub.
    """

    name: str
    model_id: str
    config_file: Path
    folder: Path | None
    tokenizer_folder: Path
    weights_hash: str
    tokenizer_hash: str
    revision: str | None = None
    pad_token: str | None = None

    @property
    def config(self) -> dict[str, object]:
        return read_model_config(self.name, self.config_file)

    @property
    def files(self) -> tuple[Path, ...]:
        """All files that are read."""
        weights = weight_files(self.name, self.folder) if self.folder else ()
        return (self.config_file, *weights, *tokenizer_files(self.tokenizer_folder))


def _packaged(name: str, model_id: str, revision: str = "main", pad_token: str | None = None) -> ModelCard:
    return ModelCard(name, model_id, revision, packaged=f"configs/{name}.json", pad_token=pad_token)


MODELS: dict[str, ModelCard] = {
    card.name: card
    for card in (
        _packaged("gemma-2b", "google/gemma-2b", "9cf48e52b224239de00d483ec8eb84fb8d0f3a3a"),
        _packaged("phi-2", "microsoft/phi-2", "ef382358ec9e382308935a992d908de099b64c23", pad_token=EOS),
        _packaged("minicpm-2b-128k", "openbmb/MiniCPM-2B-128k", pad_token=EOS),
        _packaged(
            "smollm2-135m",
            "HuggingFaceTB/SmolLM2-135M",
            "93efa2f097d58c2a74874c7e644dbc9b0cee75a2",
            pad_token=EOS,
        ),
        _packaged("opt-125m", "facebook/opt-125m", "27dcfa74d334bc871f3234de431e71c6eeba5dd6"),
        *(
            ModelCard(name, f"lfreeze.tiny/{name}", packaged=f"tiny/weights/{name}")
            for name in ("tiny-gemma", "tiny-phi", "tiny-minicpm")
        ),
    )
}


def get_model(text: str) -> ModelCard:
    """The model with a name, a hub identifier (``org/name``, ``org/name@revision``) or a folder's path.

    Raises:
        ModelError: it is none of them.
    """
    text = text.strip()
    if text.lower() in MODELS:
        return MODELS[text.lower()]
    if "/" in text and (folder := local_folder(text)):
        return ModelCard(folder.name, f"local/{folder.name}", folder=folder)
    if text.startswith((".", "/", "~")):
        raise ModelError(f"model {shown(text)}: the folder does not exist")
    if match := _HUB_ID.fullmatch(text):
        known = next((c for c in MODELS.values() if c.model_id.lower() == match["id"].lower()), None)
        if known and not match["revision"]:
            return known
        card = known or ModelCard(text, match["id"])
        return replace(card, name=text, revision=match["revision"] or "main")
    raise ModelError(
        f"unknown model {shown(text)}; known are {', '.join(MODELS)}, "
        "any Hugging Face identifier (org/name or org/name@revision), or the path of a folder"
    )


def with_folder(card: ModelCard, folder: Path) -> ModelCard:
    """The same model, read from a local copy."""
    return replace(card, folder=folder, packaged="")


def find_checkpoint(card: ModelCard) -> Checkpoint:
    """Find a model's files in its folder, in the package or in the hub's cache, or download them.

    Raises:
        ModelError: the folder does not exist, lacks a file or has a damaged one, or holds an adapter or
            quantised weights.
        HubError: the model is not available from the hub.
    """
    if card.random:
        return _random_checkpoint(card)
    folder, revision = card.folder, None
    if folder is None and card.tiny:
        folder = card.config_file.parent
    if folder is None:
        snapshot = hub.snapshot(
            card.model_id,
            card.revision,
            _chooser(card.name),
            is_complete,
            reader=f"model {card.name}",
        )
        folder, revision = snapshot.folder, snapshot.revision
    if not folder.is_dir():
        raise ModelError(f"model {card.name}: the folder {folder} does not exist")
    require_whole_model(card.name, folder)
    for name, present in (
        ("config.json", (folder / "config.json").is_file()),
        ("model.safetensors or pytorch_model.bin", weight_files(card.name, folder)),
        ("tokenizer.json", tokenizer_files(folder)),
    ):
        if not present:
            raise ModelError(f"model {card.name}: {folder} lacks the file {name}")
    if (folder / "tokenizer_config.json").exists():
        read_config(card.name, folder / "tokenizer_config.json")
    config = read_model_config(card.name, folder / "config.json")
    require_full_precision(card.name, config, folder, weight_files(card.name, folder))
    return Checkpoint(
        name=card.name,
        model_id=card.model_id,
        config_file=folder / "config.json",
        folder=folder,
        tokenizer_folder=folder,
        weights_hash=hash_files((folder / "config.json", *weight_files(card.name, folder))),
        tokenizer_hash=tokenizer_hash(folder, card.pad_token),
        revision=revision,
        pad_token=card.pad_token,
    )


def model_availability(card: ModelCard, *, ask_hub: bool = True) -> hub.Availability:
    """Whether ``find_checkpoint`` would succeed; models that are not on the hub count as cached.

    Args:
        ask_hub: False looks only into the cache.
    """
    if card.random or card.tiny or card.folder is not None:
        return hub.Availability(cached=True)
    return hub.check_availability(
        card.model_id, card.revision, _chooser(card.name), is_complete, ask_hub=ask_hub
    )


def _chooser(name: str, *, config_only: bool = False) -> Callable[[Sequence[str]], list[str]]:
    """A function that selects the files to download, and refuses a repository with an adapter alone."""

    def choose(names: Sequence[str]) -> list[str]:
        if not has_weights(names):
            refuse_adapter(name, names)
        return [file for file in names if file == "config.json"] if config_only else needed_files(names)

    return choose


def _random_checkpoint(card: ModelCard) -> Checkpoint:
    config_file = card.config_file
    read_model_config(card.name, config_file)
    values = hashlib.sha256(b"random weights, version 1" + config_file.read_bytes())
    return Checkpoint(
        name=card.name,
        model_id=card.model_id,
        config_file=config_file,
        folder=None,
        tokenizer_folder=_RANDOM_TOKENIZER,
        weights_hash=values.hexdigest(),
        tokenizer_hash=tokenizer_hash(_RANDOM_TOKENIZER, None),
    )
