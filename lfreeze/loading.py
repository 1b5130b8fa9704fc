"""Models as sequence classifiers: loaded once, then given back their first weights for each trial."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from lfreeze.blocks import model_parts
from lfreeze.minicpm import GraniteForSequenceClassification, granite_config, is_minicpm
from lfreeze.models import Checkpoint, ModelError, weight_files
from lfreeze.proof import fingerprint
from lfreeze.recipe import Recipe
from lfreeze.strategy import Kind
from lfreeze.training import stream_seed

ATTENTION = "sdpa"


def load_tokenizer(checkpoint: Checkpoint) -> Any:
    """The tokenizer of a checkpoint, from its local files.

    Raises:
        ModelError: it has no pad token.
    """
    from transformers import AutoTokenizer

    with _quiet():
        tokenizer = AutoTokenizer.from_pretrained(checkpoint.folder, local_files_only=True)
    if tokenizer.pad_token_id is None:
        raise ModelError(f"model {checkpoint.name}: its tokenizer has no pad token")
    return tokenizer


class BaseModel:
    """A checkpoint as a classifier, and the means to make it as new.

    The checkpoint's files are memory-mapped, so that workers on one machine share their pages;
    nothing keeps a second copy of the weights.

    Args:
        n_labels: width of the linear head, which the checkpoint does not hold.

    Raises:
        ModelError: the checkpoint's tensors do not fit its configuration.
    """

    def __init__(self, checkpoint: Checkpoint, n_labels: int, recipe: Recipe, device: torch.device):
        self.checkpoint, self.n_labels = checkpoint, n_labels
        self.dtype = torch.bfloat16 if recipe.precision == "bf16" else torch.float32
        self.model, fresh = _load(checkpoint, n_labels, self.dtype)
        self.model.to(device)
        head = {id(p) for p in model_parts(self.model).head}
        strangers = [n for n, p in self.model.named_parameters() if n in fresh and id(p) not in head]
        if strangers:
            raise ModelError(f"model {checkpoint.name}: its checkpoint lacks the tensor {strangers[0]}")
        self._fresh = frozenset(fresh)
        self._source = _WeightSource(checkpoint.folder, self.model, self._fresh)
        self._fingerprints = {n: fingerprint(p) for n, p in self._base()}

    def reset(self, seed: int) -> nn.Module:
        """The model with the checkpoint's weights and a head drawn from ``seed``, all of it trainable.

        Only tensors that changed are read again; all are then compared with what was loaded.

        Raises:
            RuntimeError: a restored tensor differs from what was loaded.
        """
        self.model.zero_grad(set_to_none=True)
        for name, parameter in self._base():
            parameter.requires_grad_(True)
            if parameter.dtype != self.dtype or fingerprint(parameter) != self._fingerprints[name]:
                self._source.restore(name, parameter, self.dtype)
                if fingerprint(parameter) != self._fingerprints[name]:
                    raise RuntimeError(f"{name} could not be restored to the checkpoint's values")
        self._draw_head(seed)
        return self.model.train()

    def release(self, kind: Kind) -> None:
        """Undo what a strategy did to the model's structure; call it after every trial."""
        kind.undo(self.model)
        self.model.zero_grad(set_to_none=True)

    def _base(self) -> list[tuple[str, nn.Parameter]]:
        return [(n, p) for n, p in self.model.named_parameters() if n not in self._fresh]

    @torch.no_grad()
    def _draw_head(self, seed: int) -> None:
        """Normal with the configuration's deviation, zero biases: the transformers library's own start."""
        deviation = getattr(self.model.config, "initializer_range", 0.02)
        generator = torch.Generator().manual_seed(stream_seed(seed, "head"))
        for name, parameter in self.model.named_parameters():
            if name in self._fresh:
                parameter.requires_grad_(True)
                values = torch.zeros(parameter.shape)
                if parameter.dim() > 1:
                    values.normal_(0.0, deviation, generator=generator)
                parameter.copy_(values)


class _WeightSource:
    """Tensors of a checkpoint by the model's own names; those under other names are kept in memory."""

    def __init__(self, folder: Path, model: nn.Module, fresh: frozenset[str]):
        self._files = {}
        for path in weight_files(folder):
            file = safe_open(path, framework="pt")
            self._files.update(dict.fromkeys(file.keys(), file))
        self._kept = {
            name: parameter.detach().to("cpu", copy=True)
            for name, parameter in model.named_parameters()
            if name not in fresh and name not in self._files
        }

    @torch.no_grad()
    def restore(self, name: str, parameter: nn.Parameter, dtype: torch.dtype) -> None:
        value = self._kept[name] if name in self._kept else self._files[name].get_tensor(name)
        if parameter.dtype != dtype:
            parameter.data = torch.empty_like(parameter.data, dtype=dtype)
        parameter.copy_(value)


def _load(checkpoint: Checkpoint, n_labels: int, dtype: torch.dtype) -> tuple[nn.Module, set[str]]:
    """The classifier, and the names of the tensors that the checkpoint does not hold."""
    from transformers import AutoConfig, AutoModelForSequenceClassification

    folder = checkpoint.folder
    loader: Any = AutoModelForSequenceClassification
    if is_minicpm(folder):
        config: Any = granite_config(json.loads((folder / "config.json").read_text("utf-8")))
        loader = GraniteForSequenceClassification
    else:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
    config.num_labels = n_labels
    try:
        with _quiet():
            model, info = loader.from_pretrained(
                folder,
                config=config,
                dtype=dtype,
                attn_implementation=ATTENTION,
                local_files_only=True,
                output_loading_info=True,
            )
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        raise ModelError(
            f"model {checkpoint.name}: {folder} does not load: {error}".splitlines()[0]
        ) from error
    if model.config.pad_token_id is None:
        raise ModelError(f"model {checkpoint.name}: its configuration has no pad_token_id")
    return model, set(info["missing_keys"])


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the library's progress bars and remarks: what is wrong with a checkpoint is an error here."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
