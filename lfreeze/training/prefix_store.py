"""Where the states of frozen prefixes are kept between trials: in memory, and in a folder if one is named."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import uuid
import warnings
from collections.abc import Hashable, MutableMapping
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from lfreeze.data.encoding import EncodedTask
from lfreeze.errors import InputError, first_line

# Names the folder; without it, states are kept in memory only.
FOLDER_VARIABLE = "LFREEZE_PREFIX_FOLDER"


class PrefixStore:
    """The states of one depth of one model and its texts at a time: those of the trials that follow each other.

    Args:
        identity: what tells the weights and the texts from all others; a folder is used only with one.
    """

    def __init__(self, identity: str = ""):
        self._identity, self._settings = identity, ""
        self._states: MutableMapping[Hashable, torch.Tensor] = {}
        self._filed: set[str] = set()

    def states(self, settings: str) -> MutableMapping[Hashable, torch.Tensor]:
        """The states under the given settings, such as the depth; those under others are dropped.

        Keys are ((split, index), 0); values are of shape (tokens, width).
        """
        if settings != self._settings:
            self._settings, self._states, self._filed = settings, {}, set()
        return self._states

    def load(self, split: str) -> None:
        """Map the file of a split into memory, if there is one.

        Raises:
            InputError: the file is damaged, or holds the states of other weights or texts.
        """
        path = self._path(split)
        if path is None or split in self._filed or not path.is_file():
            return
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                states, lengths = file.get_tensor("states"), file.get_tensor("lengths").tolist()
        except (OSError, SafetensorError, KeyError, RuntimeError) as error:
            raise InputError(
                f"{FOLDER_VARIABLE}: {path.name} cannot be read ({first_line(error)}): remove it"
            ) from None
        if metadata.get("identity") != self._full_identity(split) or sum(lengths) != len(states):
            raise InputError(
                f"{FOLDER_VARIABLE}: {path.name} holds the states of other weights, texts or settings: remove it"
            )
        for index, (length, end) in enumerate(zip(lengths, accumulate(lengths), strict=True)):
            self._states[(split, index), 0] = states[end - length : end]
        self._filed.add(split)

    def save(self, split: str, examples: int) -> None:
        """Write the file of a split once the states of all its examples are known.

        A folder that is full or cannot be written costs a warning, not the trial, which has the states in memory.
        """
        path = self._path(split)
        keys = [((split, index), 0) for index in range(examples)]
        if path is None or split in self._filed or not all(key in self._states for key in keys):
            return
        states = [self._states[key] for key in keys]
        tensors = {"states": torch.cat(states), "lengths": torch.tensor([len(s) for s in states])}
        # Nodes may share the folder.
        beside = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
        try:
            save_file(tensors, beside, {"identity": self._full_identity(split)})
            beside.replace(path)
        except (OSError, SafetensorError) as error:
            with contextlib.suppress(OSError):
                beside.unlink(missing_ok=True)
            warnings.warn(
                f"{FOLDER_VARIABLE}: the states of {examples} examples are kept in memory only, since they cannot be "
                f"written: {first_line(error)}",
                stacklevel=2,
            )
        self._filed.add(split)

    def _full_identity(self, split: str) -> str:
        return f"{self._identity} {self._settings} {split}"

    def _path(self, split: str) -> Path | None:
        folder = os.environ.get(FOLDER_VARIABLE)
        if not folder or not self._identity:
            return None
        digest = hashlib.sha256(self._full_identity(split).encode()).hexdigest()[:32]
        return Path(folder) / f"{digest}.safetensors"


def require_prefix_folder(model: Any, data: EncodedTask) -> None:
    """Check that the folder that ``LFREEZE_PREFIX_FOLDER`` names, if it does, has room for a task's states.

    Args:
        model: a model of transformers; it may be on the meta device.

    Raises:
        InputError: it is no folder that can be written, or has too little space.
    """
    folder = os.environ.get(FOLDER_VARIABLE)
    if not folder:
        return
    if not os.path.isdir(folder) or not os.access(folder, os.W_OK):
        raise InputError(f"{FOLDER_VARIABLE} = {folder!r} is not a folder that can be written")
    tokens = sum(len(ids) for split in (data.train, data.validation) for ids in split.input_ids)
    needed_bytes = 4 * tokens * model.config.get_text_config().hidden_size
    free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        raise InputError(
            f"{FOLDER_VARIABLE} = {folder!r} has {free / 1e9:.1f} GB free, but the states of {model.config.model_type} "
            f"on one task need {needed_bytes / 1e9:.1f}"
        )
