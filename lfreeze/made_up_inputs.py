"""Made-up arguments for a model's forward method: two tokens, an image, a film, or a sound."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

# Texts of the second length fill the blocks of models that process several tokens at once.
_LENGTHS = (2, 64)
_AUDIO_SAMPLES = 4000
# Names of a spectrogram's number of frequencies in configurations.
_FREQUENCIES = (
    "num_mel_bins",
    "input_feat_per_channel",
    "feature_projection_input_dim",
    "feature_size",
    "input_dim",
)


def model_inputs(model: nn.Module) -> Iterator[dict[str, Any]]:
    """Made-up arguments of a model's forward method, to try in turn; those under "" are positional."""
    config = getattr(model, "config", None)
    names = list(inspect.signature(model.forward).parameters)
    parameter = next(model.parameters())
    config_of_text = _text_config(config)
    for length in _LENGTHS:
        ids = torch.tensor([_tokens(model, config, length)], device=parameter.device)
        text: dict[str, Any] = {name: ids for name in ("input_ids", "decoder_input_ids") if name in names}
        if "bbox" in names:
            text["bbox"] = ids.new_zeros(1, length, 4)
        if "input_ids" in text:
            yield dict(text)
            if "pixel_values" in names:
                for image in _images(config):
                    yield text | {"pixel_values": image.to(parameter)}
        elif names and config is None:
            yield {"": (ids,)}
        extra = {k: v for k, v in text.items() if k != "input_ids"}
        if "pixel_values" in names and length == _LENGTHS[0]:
            for image in _images(config):
                yield extra | {"pixel_values": image.to(parameter)}
        for name in ("input_values", "input_features"):
            if name in names and length == _LENGTHS[0]:
                for sound in _sounds(config_of_text):
                    yield extra | {name: sound.to(parameter)}


def _tokens(model: nn.Module, config: Any, length: int) -> list[int]:
    """Token ids without special tokens, except for one at the end of the text where the model has it."""
    embeddings = next((m for m in model.modules() if isinstance(m, nn.Embedding)), None)
    with contextlib.suppress(Exception):
        embeddings = model.get_input_embeddings() or embeddings  # type: ignore[operator]
    size = getattr(embeddings, "num_embeddings", 2)
    special = set(_token_ids(config.to_dict() if hasattr(config, "to_dict") else {}))
    plain = next((i for i in range(size) if i not in special), 0)
    end = getattr(_text_config(config), "eos_token_id", None)
    end = end[0] if isinstance(end, list) and end else end
    return [plain] * (length - 1) + [end if isinstance(end, int) and 0 <= end < size else plain]


def _token_ids(values: Mapping[Any, Any]) -> Iterator[int]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _token_ids(value)
        elif isinstance(name, str) and name.endswith(("token_id", "token_index")):
            yield from value if isinstance(value, list) else [value]


def _text_config(config: Any) -> Any:
    if not hasattr(config, "get_text_config"):
        return config
    with contextlib.suppress(Exception):
        return config.get_text_config()
    return config


def _images(config: Any) -> Iterator[torch.Tensor]:
    """An image, and the frames of a film."""
    config = getattr(config, "vision_config", None) or getattr(config, "encoder", None) or config
    size = getattr(config, "image_size", None)
    sizes = size if isinstance(size, list | tuple) and size else (size,)
    height, width = (side if isinstance(side, int) else 224 for side in (sizes[0], sizes[-1]))
    channels = getattr(config, "num_channels", 3)
    channels = channels if isinstance(channels, int) else 3
    yield torch.zeros(1, channels, height, width)
    frames = getattr(config, "num_frames", 2)
    yield torch.zeros(1, frames if isinstance(frames, int) else 2, channels, height, width)


def _sounds(config: Any) -> Iterator[torch.Tensor]:
    """A waveform, and spectrograms with the frequencies first or last."""
    yield torch.zeros(1, _AUDIO_SAMPLES)
    positions, length = getattr(config, "max_source_positions", None), getattr(config, "max_length", None)
    frames = 2 * positions if isinstance(positions, int) else 64
    for name in _FREQUENCIES:
        if isinstance(getattr(config, name, None), int):
            yield torch.zeros(1, getattr(config, name), frames)
            yield torch.zeros(1, length if isinstance(length, int) else frames, getattr(config, name))
