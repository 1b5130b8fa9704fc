"""Check that a checkpoint has exactly the tensors that the classifier needs, in the right shapes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import transformers
from transformers.core_model_loading import revert_weight_conversion

from lfreeze.blocks import Parts, model_parts
from lfreeze.errors import InputError
from lfreeze.hf_logging import silence_transformers
from lfreeze.models.catalog import Checkpoint
from lfreeze.models.files import ModelError, weight_files
from lfreeze.models.formats import refuse_partial_tensors
from lfreeze.models.weights import tensor_readers

# Heads of other tasks, for checkpoints that do not name the architecture they were saved from.
_HEADS = {"lm_head", "score", "classifier"}
_REAL = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
# Constants that old versions of the transformers library saved among the weights.
_CONSTANTS = ("inv_freq", "masked_bias", "position_ids", ".attn.bias", ".attention.bias")


def parts_of(name: str, model: Any) -> Parts:
    """The roles of a model's parts.

    Raises:
        ModelError: it has no stack of layers, or more than one.
    """
    try:
        return model_parts(model)
    except InputError as error:
        raise ModelError(f"model {name}: {error}") from None


def check_tensors(name: str, model: Any, info: Mapping[str, Any]) -> None:
    """Refuse a checkpoint that does not fit; a classification head may be missing or have another width.

    Args:
        info: the loading information of ``from_pretrained``.

    Raises:
        ModelError: a tensor does not fit; the message names the first one.
    """
    refuse_partial_tensors(name, info["unexpected_keys"])
    head = {id(p) for p in parts_of(name, model).head}
    inside = {n for n, p in model.named_parameters() if id(p) not in head}
    for tensor in sorted(set(info["missing_keys"]) & inside):
        raise ModelError(f"model {name}: its checkpoint lacks the tensor {tensor}")
    for tensor, actual, expected in sorted(info["mismatched_keys"]):
        if tensor in inside:
            raise ModelError(
                f"model {name}: the tensor {tensor} has the shape {tuple(actual)}, "
                f"its configuration requires {tuple(expected)}"
            )
    allowed = _HEADS | _own_heads(model)
    for tensor in sorted(info["unexpected_keys"]):
        if tensor.split(".")[0] not in allowed and not tensor.endswith(_CONSTANTS):
            raise ModelError(
                f"model {name}: its checkpoint has the tensor {tensor}, which the model does not have"
            )


def require_finite(checkpoint: Checkpoint) -> None:
    """Refuse weights that hold no numbers, such as those of a damaged download; it reads all of them.

    Raises:
        ModelError: a tensor holds NaN or an infinite value; the message names the first one.
    """
    assert checkpoint.folder is not None
    for path in weight_files(checkpoint.name, checkpoint.folder):
        for tensor, read in tensor_readers(path).items():
            if tensor.endswith(_CONSTANTS):
                continue
            values = read()
            if values.dtype in _REAL and not values.isfinite().all():
                raise ModelError(
                    f"model {checkpoint.name}: the tensor {tensor} in {path} holds values that are not finite numbers"
                )


def _own_heads(model: Any) -> set[str]:
    """Top-level names in the files, outside the base model, of the architecture that the checkpoint was saved from."""
    declared = (getattr(model.config, "architectures", None) or [""])[0]
    cls: Any = getattr(transformers, str(declared), None)
    base = {model.base_model_prefix, *(n for n, _ in model.base_model.named_children())}
    if not isinstance(cls, type) or not issubclass(cls, transformers.PreTrainedModel):
        return set()
    if getattr(cls, "config_class", None) is not type(model.config):
        return set()
    with silence_transformers(), torch.device("meta"):
        built = cls(model.config)
        # Files may hold older names than the class has.
        saved = revert_weight_conversion(built, built.state_dict())
    return {name.split(".")[0] for name in saved} - base
