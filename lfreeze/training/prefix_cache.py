"""Frozen layers at the bottom of a model computed once for each example, and skipped in every later pass.

The layers below the first one that trains give the same output for an example in every epoch and every
evaluation, if nothing before them trains and nothing in them is random. ``PrefixCache`` keeps that output
without padding, and lets those layers pass their input through while it is in use. Embeddings, masks and
positions are computed as before, so that no architecture is a special case.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Hashable, Iterator, Mapping, MutableMapping, Sequence
from typing import Any

import torch
from torch import nn

from lfreeze.blocks import backward_depth, model_parts
from lfreeze.dry_run import tensors_in, undisturbed
from lfreeze.errors import StrategyError
from lfreeze.training.prefix_layout import Layout

# The largest relative change of a model's output that is rounding: computed in float32, and in shorter types.
_ROUNDING, _SHORT_ROUNDING = 1e-3, 5e-2

States = MutableMapping[Hashable, torch.Tensor]


class PrefixCache:
    """The outputs of the frozen layers below the first that trains, by example.

    ```python
    freeze(model, "BOT50")
    prefix = PrefixCache(model)
    for keys, batch in batches:  # a key for each example, such as its index
        with prefix.reuse(keys, batch):
            loss = model(**batch).loss
        loss.backward()
    ```

    Create a new one when what trains changes, and for passes in another precision. States are computed again when
    frozen weights have changed, unless through ``.data``, which leaves no trace. They are kept in main memory; those
    of one batch at a time are copied to the device. What a model returns at padding and as ``hidden_states`` of the
    skipped layers is not what it returns otherwise.

    Args:
        stack: the path of the layers, as in ``FreezeOptions``.
        dtype: the type in which states are kept; None keeps the type that the layers compute.
        states: where states are kept, by (key, padding in front); a new mapping unless given.

    Attributes:
        depth: how many layers are skipped; 0 if the embeddings or the first layer train.

    Raises:
        StrategyError: the model has no stack of layers, or several of which none is chosen, or the chosen one is
            the decoder's of an encoder-decoder, which has tokens of its own.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        stack: str | None = None,
        dtype: torch.dtype | None = None,
        states: States | None = None,
    ):
        layers = model_parts(model, stack).layers
        self.depth = len(layers) - backward_depth(model, stack)
        self._model, self._dtype = model, dtype
        self._layers = layers[: self.depth]
        self._states: States = {} if states is None else states
        if self.depth and _decodes(model, layers[0]):
            raise StrategyError(
                f"the layers at {stack} of {type(model).__name__} are a decoder's, whose tokens are not those of "
                "attention_mask: PrefixCache skips an encoder's or a decoder-only model's"
            )
        self._last_layer = layers[-1]
        self._trained, self._versions = self._flags_and_versions()
        # Known once the layers have run: whether they are random while the model trains, and how many values
        # the last of them returns (0 for a tensor alone).
        self._is_random = False
        self._arity: int | None = None

    @property
    def applies(self) -> bool:
        """Whether layers can be skipped in the model's present mode: not in training if they are random there."""
        return self.depth > 0 and not (self._model.training and self._is_random)

    @contextlib.contextmanager
    def reuse(self, keys: Sequence[Hashable], inputs: Mapping[str, Any]) -> Iterator[None]:
        """Skip the frozen layers in the model's forward passes on ``inputs``, inside ``with``.

        What was not computed before is computed first. Nothing is skipped if there are no such layers, or while
        the model trains with dropout in them.

        Args:
            keys: one for each example.
            inputs: the arguments of the forward pass, with ``attention_mask`` of shape (examples, length)
                if there is padding; it may be on either side.

        Raises:
            StrategyError: as ``fill``.
        """
        if self._arity is None or self.applies:
            self.fill(keys, inputs)
        if not self.applies:
            yield
            return
        with self.skip(self._padded(Layout.of(keys, inputs))):
            yield

    def fill(self, keys: Sequence[Hashable], inputs: Mapping[str, Any]) -> None:
        """Compute and keep the states of the examples that have none; arguments as in ``reuse``.

        Raises:
            StrategyError: the model's output without the skipped layers differs by more than rounding, so that
                something else reads their output; a parameter trains that did not; a key was that of an example
                of another length; or the inputs or keys are not as in ``reuse``.
        """
        if not self.depth:
            return
        trained, versions = self._flags_and_versions()
        if not trained <= self._trained:
            raise StrategyError(
                "a parameter that was frozen or not there when PrefixCache was created trains now: create a new one"
            )
        if self._versions != versions:
            self._states.clear()
            self._versions = versions
        layout = Layout.of(keys, inputs)
        rows = [row for row, name in enumerate(layout.names) if name not in self._states]
        if rows:
            part = {name: _rows(value, rows, len(layout.names)) for name, value in inputs.items()}
            states = next(tensors_in(self._last_output(part))).to("cpu", self._dtype)
            for row, state in zip(rows, states, strict=True):
                # A copy, since a view would keep the padding.
                self._states[layout.names[row]] = state[layout.places(row)].clone()
        for name, length in zip(layout.names, layout.lengths, strict=True):
            if len(self._states[name]) != length:
                raise StrategyError(
                    f"the key {name[0]!r} is that of an example with {len(self._states[name])} tokens, and now of one "
                    f"with {length}: give each example its own key, and attention_mask where there is padding"
                )
        if self._arity is None:
            output, trained = self._last_output(inputs), self._last_output(inputs, training=True)
            self._arity = len(output) if isinstance(output, tuple) else 0
            self._is_random = not torch.equal(next(tensors_in(output)), next(tensors_in(trained)))
            self._check(layout, inputs)

    def kept(self, keys: Sequence[Hashable]) -> list[torch.Tensor]:
        """The states (tokens, width) of examples without padding in front, in main memory."""
        return [self._states[key, 0] for key in keys]

    @contextlib.contextmanager
    def skip(self, states: torch.Tensor) -> Iterator[None]:
        """Let the frozen layers pass their input through, and the last of them return ``states``.

        Args:
            states: of shape (rows, length, width), as the model's input is laid out.
        """
        arity = self._arity or 0

        def passing(replacement: torch.Tensor | None) -> Callable[..., Any]:
            def forward(*args: Any, **kwargs: Any) -> Any:
                own = next(tensors_in((args, kwargs)))
                output = own if replacement is None else replacement.to(own.device, own.dtype)
                return (output, *[None] * (arity - 1)) if arity else output

            return forward

        with contextlib.ExitStack() as stack:
            for layer in self._layers:
                last = layer is self._layers[-1]
                stack.enter_context(_replaced_forward(layer, passing(states if last else None)))
            yield

    def _padded(self, layout: Layout) -> torch.Tensor:
        """The examples' states of shape (examples, length, width), zero where there is padding."""
        states = [self._states[name] for name in layout.names]
        on_cuda = next(self._model.parameters()).is_cuda
        padded = torch.zeros(
            len(states), layout.width, states[0].shape[1], dtype=states[0].dtype, pin_memory=on_cuda
        )
        for row, state in enumerate(states):
            padded[row, layout.places(row)] = state
        return padded.to(next(self._model.parameters()).device, non_blocking=True)

    def _output(self, inputs: Mapping[str, Any], *, training: bool = False) -> Any:
        device = next(self._model.parameters()).device
        moved = {name: v.to(device) if isinstance(v, torch.Tensor) else v for name, v in inputs.items()}
        # Autocast must not keep the copies of weights that it makes without gradients.
        kind, enabled = device.type, torch.is_autocast_enabled(device.type)
        plain = torch.autocast(kind, torch.get_autocast_dtype(kind), enabled=enabled, cache_enabled=False)
        with undisturbed(self._model, training=training), torch.no_grad(), plain:
            return self._model(**moved)

    def _last_output(self, inputs: Mapping[str, Any], *, training: bool = False) -> Any:
        """What the last of the frozen layers returns; no later layer runs."""

        def stop(module: nn.Module, args: Any, output: Any) -> None:
            raise _Reached(output)

        handle = self._layers[-1].register_forward_hook(stop)
        try:
            self._output(inputs, training=training)
        except _Reached as reached:
            return reached.output
        finally:
            handle.remove()
        raise StrategyError(f"the frozen layers of {type(self._model).__name__} did not run on this input")

    def _check(self, layout: Layout, inputs: Mapping[str, Any]) -> None:
        """Compare the output with skipped layers to the plain one, apart from padding."""
        plain = self._compared(layout, inputs)
        with self.skip(self._padded(layout)):
            skipped = self._compared(layout, inputs)
        differences = [
            float((b - a).norm() / a.norm()) for a, b in zip(plain, skipped, strict=True) if a.any()
        ]
        difference = max(differences, key=lambda value: (math.isnan(value), value), default=0.0)
        device = next(self._model.parameters()).device.type
        types = {next(self._model.parameters()).dtype, *(state.dtype for state in self._states.values())}
        short = torch.is_autocast_enabled(device) or types != {torch.float32}
        if not difference <= (_SHORT_ROUNDING if short else _ROUNDING):
            raise StrategyError(
                f"the output of {type(self._model).__name__} changes by {difference:.1%} when its {self.depth} frozen "
                "layers are replaced by their kept output: something else reads what they compute, or the states "
                "are of other weights"
            )

    def _compared(self, layout: Layout, inputs: Mapping[str, Any]) -> list[torch.Tensor]:
        """The model's output and, since a head may start with zeros, its last layer's, both without padding."""
        found: list[torch.Tensor] = []
        handle = self._last_layer.register_forward_hook(
            lambda _, __, out: found.append(next(tensors_in(out)))
        )
        try:
            found.append(_main_tensor(self._output(inputs)))
        finally:
            handle.remove()
        return [
            torch.cat([rows[layout.places(row)] for row, rows in enumerate(output)]).float()
            if output.dim() > 2 and output.shape[1] == layout.width
            else output.float()
            for output in found
        ]

    def _flags_and_versions(self) -> tuple[set[str], dict[str, tuple[int, int]]]:
        """The names of the parameters that train, and what changes when one of the others is written or replaced."""
        parameters = list(self._model.named_parameters())
        frozen = {name: (p.data_ptr(), p._version) for name, p in parameters if not p.requires_grad}
        return {name for name, _ in parameters} - frozen.keys(), frozen


class _Reached(Exception):
    """The output of the last frozen layer, on its way out of the forward pass."""

    def __init__(self, output: Any):
        super().__init__()
        self.output = output


def _decodes(model: nn.Module, layer: nn.Module) -> bool:
    """Whether a layer is outside the encoder of an encoder-decoder model."""
    if not getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        return False
    encoder: Any = model.get_encoder()  # type: ignore[operator]
    return layer not in set(encoder.modules())


def _main_tensor(output: Any) -> torch.Tensor:
    logits = output.get("logits") if isinstance(output, Mapping) else None
    tensors = tensors_in(output if logits is None else logits)
    return next(tensor for tensor in tensors if tensor.is_floating_point() and tensor.dim() > 0)


def _rows(value: Any, rows: Sequence[int], examples: int) -> Any:
    if isinstance(value, torch.Tensor) and value.dim() and value.shape[0] == examples:
        return value[list(rows)]
    return value


@contextlib.contextmanager
def _replaced_forward(layer: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    # Other libraries put a forward method of their own on an instance.
    own = vars(layer).get("forward")
    layer.forward = forward
    try:
        yield
    finally:
        del layer.forward
        if own is not None:
            layer.forward = own
