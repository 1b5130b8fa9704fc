"""Models as sequence classifiers: loaded once, and restored to their initial weights for each trial."""

from __future__ import annotations

import json
import pickle
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from lfreeze.blocks import model_parts
from lfreeze.errors import first_line
from lfreeze.freeze_proof import fingerprint
from lfreeze.hf_logging import silence_transformers
from lfreeze.models.catalog import EOS, Checkpoint
from lfreeze.models.checkpoint_check import check_tensors
from lfreeze.models.files import ModelError, weight_files
from lfreeze.models.initialization import deviation, draw_as_architecture
from lfreeze.models.minicpm import GraniteForSequenceClassification, granite_config
from lfreeze.models.weights import FileWeights, RandomWeights, Weights
from lfreeze.recipe import Recipe
from lfreeze.seeding import stream_seed
from lfreeze.strategy import Kind


class BaseModel:
    """A checkpoint as a classifier that can be reset; no second copy is kept in memory.

    Args:
        n_labels: width of the linear head, which is not part of the checkpoint.

    Raises:
        ModelError: the checkpoint does not load.
    """

    def __init__(self, checkpoint: Checkpoint, n_labels: int, recipe: Recipe, device: torch.device):
        self.checkpoint, self.n_labels = checkpoint, n_labels
        self.dtype = torch.bfloat16 if recipe.precision == "bf16" else torch.float32
        self.model: Any
        self._weights: Weights
        self._fresh: frozenset[str]
        if checkpoint.folder is None:
            self.model = empty_model(checkpoint, n_labels, self.dtype, device)
            self._fresh = self._head_names()
            self._weights = RandomWeights(self.model, deviation(self.model))
            for name, parameter in self._base():
                self._weights.restore(name, parameter)
        else:
            self.model, info = load(checkpoint, n_labels, self.dtype)
            self.model.to(device)
            missing = {*info["missing_keys"], *(entry[0] for entry in info["mismatched_keys"])}
            # A checkpoint's own head of this width would let tasks of other widths start elsewhere.
            self._fresh = self._head_names(n_labels) | missing
            files = weight_files(checkpoint.name, checkpoint.folder)
            self._weights = FileWeights(files, self.model, self._fresh)
        self.model.config.pad_token_id = load_tokenizer(checkpoint).pad_token_id
        self._fingerprints = {n: fingerprint(p) for n, p in self._base()}

    def reset(self, seed: int) -> nn.Module:
        """Reset the model to its initial weights and a head drawn from ``seed``, all of it trainable.

        Only tensors that changed are read again; all are compared with what was loaded.

        Raises:
            RuntimeError: a restored tensor differs from what was loaded.
        """
        self.model.zero_grad(set_to_none=True)
        for name, parameter in self._base():
            parameter.requires_grad_(True)
            if parameter.dtype != self.dtype or fingerprint(parameter) != self._fingerprints[name]:
                if parameter.dtype != self.dtype:
                    parameter.data = torch.empty_like(parameter.data, dtype=self.dtype)
                self._weights.restore(name, parameter)
                if fingerprint(parameter) != self._fingerprints[name]:
                    raise RuntimeError(f"{name} could not be restored to the checkpoint's values")
        self._draw_head(seed)
        self.model.train()
        model: nn.Module = self.model
        return model

    def set_labels(self, n_labels: int) -> bool:
        """Change the width of the head, whose values ``reset`` draws; whether only the head depends on it."""
        now = dict(self.model.named_parameters())
        wanted = empty_model(self.checkpoint, n_labels, self.dtype, torch.device("meta"))
        changed = {name: p.shape for name, p in wanted.named_parameters() if p.shape != now[name].shape}
        if not changed.keys() <= self._fresh:
            return False
        for name, shape in changed.items():
            path, _, attribute = name.rpartition(".")
            module = self.model.get_submodule(path)
            setattr(module, attribute, nn.Parameter(now[name].new_empty(shape)))
            if isinstance(module, nn.Linear):
                module.out_features = n_labels
        self.model.config.num_labels = self.model.num_labels = self.n_labels = n_labels
        return True

    @property
    def attention(self) -> str:
        """The attention implementation, by transformers' name."""
        return str(self.model.config._attn_implementation)

    def release(self, kind: Kind) -> None:
        """Undo a strategy's changes to the model's structure; call it after every trial."""
        kind.undo(self.model)
        self.model.zero_grad(set_to_none=True)

    def _base(self) -> list[tuple[str, nn.Parameter]]:
        return [(n, p) for n, p in self.model.named_parameters() if n not in self._fresh]

    def _head_names(self, width: int | None = None) -> frozenset[str]:
        """The names of the head's parameters; with ``width``, of those outside the base model with so many rows."""
        head = {id(p) for p in model_parts(self.model).head}
        if width is not None:
            head -= {id(p) for p in self.model.base_model.parameters()}
        return frozenset(
            n for n, p in self.model.named_parameters() if id(p) in head and width in (None, p.shape[0])
        )

    def _draw_head(self, seed: int) -> None:
        parameters = [p for n, p in self.model.named_parameters() if n in self._fresh]
        for parameter in parameters:
            parameter.requires_grad_(True)
        draw_as_architecture(self.model, parameters, stream_seed(seed, "head"))


def load_tokenizer(checkpoint: Checkpoint) -> Any:
    """The tokenizer of a checkpoint, from its local files, with a pad token.

    Raises:
        ModelError: it does not load, or has no pad token.
    """
    from transformers import AutoTokenizer, LlamaConfig, PreTrainedTokenizerFast

    folder, name = checkpoint.tokenizer_folder, checkpoint.name
    loader: Any = AutoTokenizer
    options: dict[str, Any] = {"config": model_config(checkpoint)}
    if is_minicpm(checkpoint):
        options = {"config": LlamaConfig()}
    declared = folder / "tokenizer_config.json"
    if declared.is_file() and "auto_map" in json.loads(declared.read_text("utf-8")):
        # The checkpoint's own tokenizer class is code; the file tokenizer.json works without it.
        if not (folder / "tokenizer.json").is_file():
            raise ModelError(
                f"model {name}: its tokenizer is custom code, which is never run, and it has no tokenizer.json"
            )
        loader, options = PreTrainedTokenizerFast, {}
    try:
        with silence_transformers():
            tokenizer = loader.from_pretrained(folder, local_files_only=True, **options)
    # Damaged files raise many types of errors.
    except Exception as error:
        raise ModelError(f"model {name}: its tokenizer does not load: {first_line(error)}") from error
    if tokenizer.pad_token_id is None:
        pad_token = tokenizer.eos_token if checkpoint.pad_token == EOS else checkpoint.pad_token
        if pad_token is None:
            raise ModelError(
                f"model {name}: its tokenizer has no pad token; choose one of its tokens with "
                f"--pad-token {name}=TOKEN, or its end-of-text token with --pad-token {name}={EOS}"
            )
        if pad_token not in tokenizer.get_vocab():
            raise ModelError(
                f"model {name}: the pad token {pad_token!r} is not in its tokenizer's vocabulary"
            )
        tokenizer.pad_token = pad_token
    return tokenizer


def is_minicpm(checkpoint: Checkpoint) -> bool:
    """Whether a checkpoint's configuration declares MiniCPM."""
    return checkpoint.config.get("model_type") == "minicpm"


def model_config(checkpoint: Checkpoint) -> Any:
    """The transformers configuration of a checkpoint; only data is read from its file, never code.

    Raises:
        ModelError: the transformers library does not have the architecture, or refuses a value.
    """
    from transformers import CONFIG_MAPPING

    values = checkpoint.config
    kind = values.get("model_type")
    try:
        if is_minicpm(checkpoint):
            return granite_config(values)
        if kind in CONFIG_MAPPING:
            return CONFIG_MAPPING[kind].from_dict(values)
    # Missing, mistyped and impossible sizes raise different errors in each architecture.
    except Exception as error:
        raise ModelError(
            f"model {checkpoint.name}: its config.json is not valid: {first_line(error)}"
        ) from error
    raise ModelError(
        f"model {checkpoint.name}: the transformers library has no architecture {kind!r}, "
        "and code from a checkpoint is never run"
    )


def load(
    checkpoint: Checkpoint, n_labels: int, dtype: torch.dtype, device: str | None = None
) -> tuple[nn.Module, dict[str, Any]]:
    """The classifier with a checkpoint's weights, and transformers' loading information.

    Args:
        device: ``"meta"`` reads only names and shapes.

    Raises:
        ModelError: the files do not load, or their tensors do not fit.
    """
    config = model_config(checkpoint)
    config.num_labels = n_labels
    try:
        with silence_transformers():
            model, info = model_class(checkpoint, config).from_pretrained(
                checkpoint.folder,
                config=config,
                dtype=dtype,
                attn_implementation=attention(checkpoint, config),
                local_files_only=True,
                weights_only=True,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                device_map=device,
            )
    except (OSError, RuntimeError, ValueError, SafetensorError, pickle.UnpicklingError) as error:
        raise ModelError(
            f"model {checkpoint.name}: {checkpoint.folder} does not load: {first_line(error)}"
        ) from error
    check_tensors(checkpoint.name, model, info)
    return model, info


def empty_model(
    checkpoint: Checkpoint, n_labels: int | None, dtype: torch.dtype, device: torch.device
) -> nn.Module:
    """A model on the device with initialised vectors and buffers, and uninitialised matrices.

    Args:
        n_labels: of a sequence classifier; None for a causal language model.

    Raises:
        ModelError: the transformers library does not have the architecture.
    """
    config = model_config(checkpoint)
    causal_lm = n_labels is None
    if not causal_lm:
        config.num_labels = n_labels
    with silence_transformers(), torch.device("meta"):
        built = model_class(checkpoint, config, causal_lm=causal_lm)._from_config(
            config,
            dtype=dtype,
            attn_implementation=attention(checkpoint, config, causal_lm=causal_lm),
        )
    built.to_empty(device=device)
    for parameter in built.parameters():
        # transformers does not initialise parameters with this mark; the matrices get their values later.
        parameter._is_hf_initialized = parameter.dim() > 1
    built.initialize_weights()
    model: nn.Module = built
    return model


def classifies_last_position(checkpoint: Checkpoint) -> bool:
    """Whether the classifier reads the last position, padding or not, as XLNet's does."""
    return getattr(model_config(checkpoint), "summary_type", None) == "last"


def attention(checkpoint: Checkpoint, config: Any, *, causal_lm: bool = False) -> str:
    """The attention implementation: torch's, or transformers' own for architectures that do not support it."""
    return "sdpa" if model_class(checkpoint, config, causal_lm=causal_lm)._supports_sdpa else "eager"


def model_class(checkpoint: Checkpoint, config: Any, *, causal_lm: bool = False) -> Any:
    """The class of the sequence classifier, or the causal language model, of a configuration.

    Raises:
        ModelError: the transformers library has none.
    """
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    if is_minicpm(checkpoint) and not causal_lm:
        return GraniteForSequenceClassification
    auto = AutoModelForCausalLM if causal_lm else AutoModelForSequenceClassification
    if type(config) not in auto._model_mapping:
        kind = "causal language model" if causal_lm else "sequence classifier"
        raise ModelError(
            f"model {checkpoint.name}: the transformers library has no {kind} of the architecture "
            f"{config.model_type!r}"
        )
    return auto._model_mapping[type(config)]
