"""The frozen prefix of one trial: its recipe's ``prefix_cache``, and what a process keeps for the next trials."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Iterator

import torch
from torch import nn

from lfreeze.data.encoding import Batch, EncodedSplit, EncodedTask, collate
from lfreeze.plan import FreezePlan
from lfreeze.recipe import Recipe
from lfreeze.training.batches import of_similar_length
from lfreeze.training.forward import computed_in, model_inputs
from lfreeze.training.prefix_cache import PrefixCache
from lfreeze.training.prefix_store import PrefixStore

# Examples whose states are computed at once. Always the same ones, so that a trial's numbers do not depend on
# which trials have run before it.
_CHUNK = 32


def trial_prefix(
    model: nn.Module,
    plan: FreezePlan,
    data: EncodedTask,
    recipe: Recipe,
    device: torch.device,
    store: PrefixStore,
) -> Prefix | None:
    """The prefix that a trial may reuse now; None if its recipe asks for none, or the first layer trains.

    Classifiers of the last position are padded in front, where a text's own states depend on the padding.
    """
    depth = plan.n_layers - plan.backward_depth
    if recipe.prefix_cache == "off" or data.train.pad_left or not depth:
        return None
    return Prefix(model, depth, data, recipe, device, store)


class Prefix:
    """Reuses the output of the layers below the first that trains, in a trial's training and evaluation.

    Args:
        depth: how many layers are below the first that trains.
        store: what earlier trials on the same weights and texts have left.

    Attributes:
        seconds: the time in which states were computed.

    Raises:
        InputError: a file of states is damaged, or holds those of other weights or texts.
    """

    def __init__(
        self,
        model: nn.Module,
        depth: int,
        data: EncodedTask,
        recipe: Recipe,
        device: torch.device,
        store: PrefixStore,
    ):
        self._model, self._recipe, self._device = model, recipe, device
        self._splits = {"train": data.train, "validation": data.validation}
        self._pad_token_id, self._store = data.pad_token_id, store
        self.seconds = 0.0
        dtype = torch.bfloat16 if recipe.precision.startswith("bf16") else None
        settings = f"{depth} {recipe.precision} {recipe.frozen_dtype} {torch.__version__} {device}"
        self._cache = PrefixCache(model, dtype=dtype, states=self._store.states(settings))
        # Here, so that a file that cannot be used is refused before training.
        for name in ("train", "validation") if recipe.prefix_cache == "all" else ("validation",):
            self._store.load(name)

    @property
    def depth(self) -> int:
        """How many layers are skipped in the model's present mode."""
        return self._cache.depth if self._cache.applies else 0

    def fill(self, name: str, indices: Collection[int] | None = None) -> None:
        """Compute the states of a split that are not kept yet.

        Args:
            name: ``"train"`` or ``"validation"``.
            indices: the examples that are needed; None for all.

        Raises:
            StrategyError: the output of the model changes when its frozen layers are skipped.
        """
        started = time.perf_counter()
        split = self._splits[name]
        needed = range(len(split)) if indices is None else set(indices)
        for chunk in of_similar_length(split, _CHUNK):
            if self._cache.applies and any(index in needed for index in chunk):
                self._fill_chunk(name, split, chunk)
        self._store.save(name, len(split))
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        self.seconds += time.perf_counter() - started

    def _fill_chunk(self, name: str, split: EncodedSplit, chunk: list[int]) -> None:
        batch = collate(split, chunk, self._pad_token_id)
        with computed_in(self._recipe, self._device):
            self._cache.fill([(name, index) for index in chunk], model_inputs(self._model, batch))

    @contextlib.contextmanager
    def reused(self, name: str, batch: Batch) -> Iterator[None]:
        """Skip the frozen layers in the forward pass on a batch whose states ``fill`` has computed.

        Args:
            batch: in main memory.
        """
        keys = [(name, index) for index in batch.indices]
        if not self._cache.applies:
            yield
        elif batch.lengths is not None:
            states = torch.cat(self._cache.kept(keys))[None]
            with self._cache.skip(states.to(self._device, non_blocking=True)):
                yield
        else:
            with self._cache.reuse(keys, model_inputs(self._model, batch)):
                yield
