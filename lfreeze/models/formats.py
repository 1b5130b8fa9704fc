"""Forms of a checkpoint that cannot be trained as a whole: adapters without their model, quantised weights.

Nothing here imports torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lfreeze.json_text import JsonError, parse_json
from lfreeze.models.files import ModelError
from lfreeze.plain_files import read_plain

_ADAPTER_CONFIG = "adapter_config.json"
_ADAPTER_FILES = (
    _ADAPTER_CONFIG,
    "adapter_model.safetensors",
    "adapter_model.bin",
    "adapters.safetensors",
    "pytorch_lora_weights.safetensors",
)
# Sections of a config.json, and files beside it, in which tools for quantisation write what they did.
_SECTIONS = ("quantization_config", "compression_config", "quantization")
_SECTION_FILES = ("quantize_config.json", "quant_config.json", "hf_quant_config.json")
# Small integers as safetensors names them. Position indices are I64, and old attention masks no matrices.
_PACKED = {"I8", "U8", "I16", "U16", "I32", "U32"}
# Parts of the names of tensors that adapters and quantised layers have beside or in place of the weight.
_ADAPTER_TENSORS = (".lora_", "base_model.model.", "modules_to_save.")
_PACKED_TENSORS = (
    ".qweight",
    ".qzeros",
    ".SCB",
    ".absmax",
    ".quant_map",
    ".weight_packed",
    ".weight_scale",
    ".weight_scale_inv",
)
_MAX_HEADER_BYTES = 100_000_000


def refuse_adapter(name: str, files: Sequence[str], base: object = None) -> None:
    """Refuse files with an adapter, for which the transformers library would look for its base model.

    Args:
        files: names in a folder or repository.
        base: the base model, where it is known.

    Raises:
        ModelError: there is an adapter among them.
    """
    adapter = [file for file in _ADAPTER_FILES if file in files]
    if adapter:
        of = f" of the model {base}" if isinstance(base, str) and base else ""
        raise ModelError(
            f"model {name}: it is an adapter{of} ({', '.join(adapter)}), not a complete model: "
            "merge it into its base model and save that without the adapter's files"
        )


def require_whole_model(name: str, folder: Path) -> None:
    """Refuse a folder with an adapter, with weights only in a quantised format, or with a pipe or device.

    Raises:
        ModelError: the folder holds one of them.
    """
    paths = sorted(folder.iterdir())
    for path in paths:
        if path.exists() and not path.is_file() and not path.is_dir():
            raise ModelError(f"model {name}: {path} is a pipe or a device, not a file")
    files = [path.name for path in paths]
    refuse_adapter(name, files, _values(folder / _ADAPTER_CONFIG).get("base_model_name_or_path"))
    quantised = [file for file in files if file.endswith(".gguf")]
    if quantised and not any(file.endswith((".safetensors", ".bin")) for file in files):
        raise _quantised(name, f"GGUF, {quantised[0]}")


def require_full_precision(
    name: str, config: Mapping[str, object], folder: Path | None = None, weights: Sequence[Path] = ()
) -> None:
    """Refuse a quantised checkpoint, of which only parts could be trained.

    Args:
        config: the content of ``config.json``.
        folder: the folder in which tools may have left a configuration of their own.
        weights: the files with the weights.

    Raises:
        ModelError: the configuration or a tensor shows that the checkpoint is quantised.
    """
    for section in _sections(config):
        raise _quantised(name, _method(section))
    for file in _SECTION_FILES if folder is not None else ():
        assert folder is not None
        if values := _values(folder / file):
            raise _quantised(name, f"{_method(values)}, {file}")
    for path in weights:
        for tensor, dtype, shape in _tensors(path):
            if dtype in _PACKED and len(shape) == 2 and math.prod(shape) > 1:
                raise _quantised(name, f"the tensor {tensor} holds integers, {dtype}")


def refuse_partial_tensors(name: str, unexpected: Iterable[str]) -> None:
    """Refuse tensors that the model does not have and that adapters or quantised layers would.

    Raises:
        ModelError: there is one among them; the message names the first.
    """
    for tensor in sorted(unexpected):
        if any(part in tensor for part in _ADAPTER_TENSORS):
            raise ModelError(
                f"model {name}: its checkpoint has an adapter that is not merged (the tensor {tensor}): "
                "merge it into its base model first"
            )
        if tensor.endswith(_PACKED_TENSORS):
            raise _quantised(name, f"the tensor {tensor}")


def _quantised(name: str, how: str) -> ModelError:
    return ModelError(
        f"model {name}: its checkpoint is quantised ({how}), so that its weights cannot be trained: "
        "choose a checkpoint with weights in float32, bfloat16 or float16"
    )


def _sections(values: Mapping[str, object]) -> Iterator[Mapping[str, object]]:
    """Quantisation sections, also those of a part such as ``text_config``."""
    for key, value in values.items():
        if isinstance(value, dict):
            if key in _SECTIONS and value:
                yield value
            elif key.endswith("_config"):
                yield from _sections(value)


def _method(section: Mapping[str, Any]) -> str:
    method = section.get("quant_method") or section.get("quant_type")
    bits = section.get("bits") or section.get("w_bit") or section.get("weight_bits")
    for n in (4, 8):
        if section.get(f"load_in_{n}bit"):
            method, bits = method or "bitsandbytes", n
    named = str(method)[:40] if method else "by a method that is not named"
    return f"{named}, {bits} bits" if isinstance(bits, int) else named


def _values(path: Path) -> dict[str, object]:
    """The content of a JSON file; empty if there is none that can be read."""
    try:
        values = parse_json(read_plain(path, _MAX_HEADER_BYTES).decode())
    except (OSError, UnicodeDecodeError, JsonError):
        return {}
    return values if isinstance(values, dict) else {}


def _tensors(path: Path) -> Iterator[tuple[str, str, list[int]]]:
    """Name, type and shape of each tensor of a safetensors file; damaged ones are refused by their reader."""
    if path.suffix != ".safetensors":
        return
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = file.read(size) if size <= _MAX_HEADER_BYTES else b""
    try:
        entries = parse_json(header.decode())
        for name, entry in entries.items():
            if name != "__metadata__":
                yield name, entry["dtype"], entry["shape"]
    except (AttributeError, JsonError, KeyError, TypeError, UnicodeDecodeError):
        return
