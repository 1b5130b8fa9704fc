"""Step time and memory of training, on CUDA and on the CPU.

On CUDA, memory is counted by the caching allocator. On the CPU, it is computed from the allocations that
torch's profiler records during one step, never from the process's resident size.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

_FORWARD = "lfreeze.forward"


@dataclass(frozen=True)
class MemoryUse:
    """Bytes during one phase of training.

    The parts are measured at different moments, so they need not add up to the peak.

    Attributes:
        peak_allocated: the largest allocation at any moment, including the static model.
        peak_reserved: the most that the caching allocator reserved during the phase; None on the CPU.
        training: peak_allocated minus the static model.
        gradient: size of all gradients at the end of the backward pass.
        optimiser: size of the optimiser's state after its step.
        activation: allocated by the forward pass and not yet freed at its end.
    """

    peak_allocated: int
    peak_reserved: int | None
    training: int
    gradient: int
    optimiser: int
    activation: int


class Meter:
    """Measures one training run; each step runs inside ``with meter.step(...)``.

    Raises:
        RuntimeError: ``memory`` is called before the memory of any step was measured.
    """

    def __init__(self, model: nn.Module, device: torch.device):
        self._device = device
        self._cuda = device.type == "cuda"
        self.method = "cuda allocator" if self._cuda else "torch profiler (CPU)"
        self.static_bytes = tensor_bytes([*model.parameters(), *model.buffers()])
        if self._cuda:
            # Earlier products of matrices, such as an earlier trial's, leave workspaces behind.
            torch._C._cuda_clearCublasWorkspaces()
            self.static_bytes = torch.cuda.memory_allocated(device)
        self.step_seconds = 0.0
        self.begin_phase()

    def begin_phase(self) -> None:
        """Reset the peaks, and return what an earlier phase has left in the allocator's cache."""
        self._peak: int | None = None
        self._reserved = 0
        self._gradient = self._optimiser = self._activation = 0
        if self._cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self._device)

    @contextlib.contextmanager
    def step(self, optimizer: torch.optim.Optimizer, *, memory: bool) -> Iterator[None]:
        """Time one optimiser step; with ``memory``, also count its bytes (slower on the CPU)."""
        profiler = None
        if memory and not self._cuda:
            held = self.static_bytes + optimiser_bytes(optimizer)
            profiler = torch.profiler.profile(
                activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
            )
        self.synchronize()
        with profiler or contextlib.nullcontext():
            start = time.perf_counter()
            yield
            self.synchronize()
            self.step_seconds = time.perf_counter() - start
        if memory:
            self._optimiser = max(self._optimiser, optimiser_bytes(optimizer))
        if profiler is not None:
            peak, activation = _profiled(profiler)
            self._peak = max(self._peak or 0, held + peak)
            self._activation = max(self._activation, activation)

    @contextlib.contextmanager
    def forward(self) -> Iterator[None]:
        """Mark the forward pass, including the loss."""
        before = torch.cuda.memory_allocated(self._device) if self._cuda else 0
        with torch.profiler.record_function(_FORWARD):
            yield
        if self._cuda:
            self._activation = max(self._activation, torch.cuda.memory_allocated(self._device) - before)

    @contextlib.contextmanager
    def apart(self) -> Iterator[None]:
        """Leave the memory of what runs inside out of the peaks; on CUDA, the next step allocates anew."""
        self._note_peaks()
        yield
        if self._cuda:
            torch.cuda.synchronize(self._device)
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self._device)

    def after_backward(self, parameters: Iterable[nn.Parameter]) -> None:
        """Measure the gradients; call it between the backward pass and the optimiser's step."""
        self._gradient = max(self._gradient, tensor_bytes(p.grad for p in parameters if p.grad is not None))

    def memory(self) -> MemoryUse:
        """Memory used since ``begin_phase``."""
        self._note_peaks()
        if self._peak is None:
            raise RuntimeError("the memory of no step was measured")
        return MemoryUse(
            peak_allocated=self._peak,
            peak_reserved=self._reserved if self._cuda else None,
            training=self._peak - self.static_bytes,
            gradient=self._gradient,
            optimiser=self._optimiser,
            activation=self._activation,
        )

    def _note_peaks(self) -> None:
        if self._cuda:
            self._peak = max(self._peak or 0, torch.cuda.max_memory_allocated(self._device))
            self._reserved = max(self._reserved, torch.cuda.max_memory_reserved(self._device))

    def synchronize(self) -> None:
        if self._cuda:
            torch.cuda.synchronize(self._device)


def tensor_bytes(tensors: Iterable[torch.Tensor]) -> int:
    """Bytes of the distinct storages of some tensors."""
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())


def optimiser_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Bytes of an optimiser's state."""
    states = [v for state in optimizer.state.values() for v in state.values()]
    return tensor_bytes(v for v in states if isinstance(v, torch.Tensor))


def _profiled(profiler: torch.profiler.profile) -> tuple[int, int]:
    """Of one profiled step: peak bytes above its start, and the most bytes that a forward pass left allocated."""
    # Only the profiler's raw events contain every allocation with its time.
    events: Any = profiler.profiler.kineto_results.events()  # type: ignore[union-attr]
    forwards = [(e.start_ns(), e.start_ns() + e.duration_ns()) for e in events if e.name() == _FORWARD]
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    held = peak = 0
    # By forward pass: bytes held at its start and at its end.
    ends = [[0, 0] for _ in forwards]
    for moment, change in changes:
        held += change
        peak = max(peak, held)
        for (start, end), own in zip(forwards, ends, strict=True):
            own[0] = held if moment < start else own[0]
            own[1] = held if moment <= end else own[1]
    return peak, max((end - start for start, end in ends), default=0)
