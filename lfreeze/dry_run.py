"""One forward pass over a tiny input, to observe in which order a model's parts act on each other.

Its graph tells which parameters each layer's input and output depend on. Nothing of the model changes:
it runs in evaluation mode, random numbers are restored, and no gradient is computed.
"""

from __future__ import annotations

import contextlib
import inspect
import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from lfreeze.errors import first_line

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


@dataclass(frozen=True)
class Observation:
    """What a forward pass showed.

    Attributes:
        before: by parameter id, the first layer whose input depends on it, counted in order of execution.
        inside: the same for parameters that a layer does not own but reads itself.
        after: ids of the other parameters that the model's output depends on.
        calls: the layers' indices in the order in which they ran.
        arguments: what the model ran on; positional arguments are under "".
        autocast: whether it ran in bfloat16.
        error: why the model did not run, if it did not; the rest is empty then.
    """

    before: Mapping[int, int]
    inside: Mapping[int, int]
    after: Collection[int]
    calls: tuple[int, ...]
    arguments: Mapping[str, Any]
    autocast: bool = False
    error: str | None = None


def observe(
    model: nn.Module, layers: Sequence[nn.Module], example: Mapping[str, Any] | None = None
) -> Observation:
    """Run a model once and observe on which parameters its layers depend.

    A model on the meta device computes nothing.

    Args:
        example: the arguments of its forward method, in place of made-up ones.
    """
    error = None
    on_cuda = next(model.parameters()).device.type == "cuda"
    # Some attention kernels accept no float32. Autocast comes second: it copies every weight.
    types = (False, True) if on_cuda else (False,)
    inputs = list(model_inputs(model)) if example is None else [dict(example)]
    for arguments, autocast in itertools.product(inputs, types):
        recorder = _Recorder(layers)
        try:
            with _undisturbed(model), _all_trainable(model), recorder.hooks():
                after = recorder.reached(_run(model, arguments, autocast))
        except Exception as failure:
            # Any input may be wrong for a model that was never seen before; the caller decides.
            error = error or first_line(failure, with_type=True)
            continue
        ran = len(set(recorder.calls))
        if ran == len(layers):
            calls = tuple(recorder.calls)
            return Observation(recorder.before, recorder.inside, after, calls, arguments, autocast)
        error = error or f"{ran} of its {len(layers)} layers ran"
    return Observation({}, {}, (), (), {}, error=error or "its arguments are not known")


def crossed_layers(model: nn.Module, layers: Sequence[nn.Module], observation: Observation) -> int:
    """Layers whose output requires a gradient under the present ``requires_grad`` flags."""
    crossed: set[int] = set()

    def watch(index: int) -> Any:
        def note(module: nn.Module, args: Any, output: Any) -> None:
            if any(tensor.requires_grad for tensor in tensors_in(output)):
                crossed.add(index)

        return note

    handles = [layer.register_forward_hook(watch(index)) for index, layer in enumerate(layers)]
    try:
        with _undisturbed(model):
            _run(model, observation.arguments, observation.autocast)
    finally:
        for handle in handles:
            handle.remove()
    return len(crossed)


def _run(model: nn.Module, arguments: Mapping[str, Any], autocast: bool) -> Any:
    # Weights of several types, such as frozen ones stored in bfloat16, multiply under autocast only.
    types = {p.dtype for p in model.parameters() if p.is_floating_point()}
    device = "cuda" if next(model.parameters()).device.type == "cuda" else "cpu"
    with torch.autocast(device, torch.bfloat16, enabled=autocast or len(types) > 1):
        return model(*arguments.get("", ()), **{k: v for k, v in arguments.items() if k})


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """The tensors in a module's arguments or output, however nested."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors_in(item)


class _Recorder:
    def __init__(self, layers: Sequence[nn.Module]):
        self._layers = layers
        self.before: dict[int, int] = {}
        self.inside: dict[int, int] = {}
        self.calls: list[int] = []
        self._visited: set[Any] = set()
        self._own = {id(p) for layer in layers for p in layer.parameters()}

    @contextlib.contextmanager
    def hooks(self) -> Iterator[None]:
        handles = []
        for index, layer in enumerate(self._layers):
            handles.append(layer.register_forward_pre_hook(self._enter(index), with_kwargs=True))
            handles.append(layer.register_forward_hook(self._leave))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def reached(self, value: Any) -> set[int]:
        """Ids of the parameters that a value depends on and that nothing before depended on."""
        return {id(p) for p in self._new_leaves(tensors_in(value))} - self._own

    def _enter(self, index: int) -> Any:
        def enter(module: nn.Module, args: Any, kwargs: Any) -> None:
            self._note(self.before, (args, kwargs))
            self.calls.append(index)

        return enter

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        self._note(self.inside, output, offset=-1)

    def _note(self, where: dict[int, int], value: Any, offset: int = 0) -> None:
        where.update(dict.fromkeys(self.reached(value), len(self.calls) + offset))

    def _new_leaves(self, tensors: Iterable[torch.Tensor]) -> Iterator[torch.Tensor]:
        """The parameters in the graph of these tensors that no earlier call has reached."""
        pending: list[Any] = []
        for tensor in tensors:
            if tensor.grad_fn is not None:
                pending.append(tensor.grad_fn)
            elif tensor.requires_grad and id(tensor) not in self._visited:
                self._visited.add(id(tensor))
                yield tensor
        while pending:
            node = pending.pop()
            if node is None or node in self._visited:
                continue
            self._visited.add(node)
            if hasattr(node, "variable"):
                yield node.variable
            pending += [following for following, _ in node.next_functions]


@contextlib.contextmanager
def _undisturbed(model: nn.Module) -> Iterator[None]:
    """Evaluation mode with gradients; modes and random numbers are restored afterwards."""
    training = {module: module.training for module in model.modules()}
    devices = {p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"}
    try:
        model.eval()
        with (
            torch.random.fork_rng(sorted(devices)),
            torch.enable_grad(),
            torch.compiler.set_stance("force_eager"),
        ):
            yield
    finally:
        for module, mode in training.items():
            module.training = mode


@contextlib.contextmanager
def _all_trainable(model: nn.Module) -> Iterator[None]:
    """Every parameter in the graph."""
    flags = [(p, p.requires_grad) for p in model.parameters() if p.is_floating_point()]
    try:
        for parameter, _ in flags:
            parameter.requires_grad_(True)
        yield
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


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
    config = getattr(config, "vision_config", None) or config
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
