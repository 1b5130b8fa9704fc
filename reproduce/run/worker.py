"""Runs one trial after another in one process; used by ``reproduce trial`` and by Ray's workers."""

from __future__ import annotations

import gc
import os
import time
import traceback
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

import torch

from lfreeze.data.encoding import EncodedTask
from lfreeze.data.encoding_cache import encoded
from lfreeze.data.tasks import TaskData
from lfreeze.errors import InputError
from lfreeze.models.catalog import Checkpoint
from lfreeze.models.loading import BaseModel
from lfreeze.strategy import Strategy
from lfreeze.training.loop import train
from lfreeze.training.prefix_store import PrefixStore
from lfreeze.training.record import Step, TrainingRecord
from reproduce.plan.spec import TrialSpec
from reproduce.store.parquet import TrialResult
from reproduce.store.provenance import hardware
from reproduce.store.row_values import failed_row, started_row, trained_row
from reproduce.store.schema import EVALUATION_SCHEMA
from reproduce.store.trial_row import TrialRow

_KEPT_ENCODINGS = 5
# In the message of every operation that strict mode refuses, cuBLAS's included.
_REFUSED = "torch.use_deterministic_algorithms(True)"


@dataclass(frozen=True)
class Placement:
    """How a trial shares its device: its share of a GPU (None on the CPU), and whether it runs there alone."""

    gpu_share: float | None = None
    exclusive: bool = True


class TrialWorker:
    """Runs trials one after another; a trial's numbers do not depend on those before it.

    The base model and the encoded tasks are kept between trials; everything else is created for each trial.
    Only deterministic algorithms are used, so that a trial gives the same bits again. A trial that has an
    operation without one starts anew with others allowed, and its row says so.

    Args:
        cpu: use the CPU, even where there is a GPU.

    Attributes:
        broken: the GPU no longer responds to this process, which must run no further trial.
    """

    def __init__(self, *, cpu: bool = False) -> None:
        self.device = torch.device("cuda" if not cpu and torch.cuda.is_available() else "cpu")
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        # cuDNN's attention is not deterministic, and where other algorithms are allowed, torch prefers it
        # on recent GPUs without a warning.
        torch.backends.cuda.enable_cudnn_sdp(False)
        self.broken = False
        self._base: BaseModel | None = None
        self._base_key: tuple[Any, ...] = ()
        self._encoded: OrderedDict[tuple[Any, ...], EncodedTask] = OrderedDict()
        self._prefixes, self._prefixes_of = PrefixStore(), ""
        self._count = 0
        self._last_end: float | None = None

    def run(
        self,
        spec: TrialSpec,
        find_checkpoint: Callable[[], Checkpoint],
        data: TaskData,
        *,
        attempt: int = 1,
        placement: Placement | None = None,
        on_step: Callable[[Step], None] | None = None,
    ) -> TrialResult:
        """Run one trial; any error in it becomes a row with its status and message.

        Args:
            find_checkpoint: finds the model's files; its errors are errors of the trial.
            attempt: the number of this attempt, from 1.
            placement: how the trial shares its device; alone on it by default.
            on_step: called after each optimiser step.
        """
        placement = placement or Placement()
        started, start = datetime.now(UTC), time.perf_counter()
        row = replace(
            started_row(spec, attempt),
            started_at=started,
            worker_trial_index=self._count,
            gap_seconds=start - self._last_end if self._last_end is not None else None,
        )
        record: TrainingRecord | None = None
        try:
            self._prepare_process(spec, placement)
            row = replace(
                row,
                gpu_share=placement.gpu_share,
                exclusive=placement.exclusive,
                **hardware(self.device.type),
            )
            checkpoint = find_checkpoint()
            _require_inputs(spec, checkpoint, data)
            base = self._base_model(spec, checkpoint, len(data.task.labels))
            row = replace(row, attention_implementation=base.attention)
            texts = self._encode(spec, checkpoint, data)
            prefixes = self._prefix_store(spec)
            record = _strictly(partial(self._train, spec, base, texts, prefixes, on_step))
            if record is None:
                # Nothing of the interrupted step may stay: neither in the model nor in memory.
                del base
                self._base = None
                base = self._base_model(spec, checkpoint, len(data.task.labels))
                torch.use_deterministic_algorithms(True, warn_only=True)
                row = replace(row, deterministic_algorithms=False)
                record = self._train(spec, base, texts, prefixes, on_step)
            row = trained_row(row, spec, record, checkpoint, data)
        except Exception as error:
            status = "oom" if _is_out_of_memory(error) else "error"
            row = failed_row(row, status, type(error).__name__, _describe(error))
            # A failed trial may have left the model in any state, so it is not reused.
            self._base, record = None, None
        try:
            self._clean()
        except Exception as error:
            self.broken, record = True, None
            row = failed_row(row, "error", type(error).__name__, _describe(error))
        total = time.perf_counter() - start
        row = replace(row, finished_at=datetime.now(UTC), total_seconds=total)
        if record is not None:
            row = replace(row, setup_seconds=total - record.train_seconds - record.eval_seconds)
        self._count += 1
        self._last_end = time.perf_counter()
        return _result(row, record, data)

    def _train(
        self,
        spec: TrialSpec,
        base: BaseModel,
        data: EncodedTask,
        prefixes: PrefixStore,
        on_step: Callable[[Step], None] | None,
    ) -> TrainingRecord:
        strategy, seed = Strategy.parse(spec.factors.strategy), spec.factors.seed
        model = base.reset(seed)
        try:
            return train(
                model, data, spec.recipe, strategy, seed, self.device, prefixes=prefixes, on_step=on_step
            )
        finally:
            base.release(strategy.implementation)

    def _base_model(self, spec: TrialSpec, checkpoint: Checkpoint, n_labels: int) -> BaseModel:
        base = self._base
        key = (checkpoint, spec.recipe.precision)
        if base is not None and self._base_key == key and base.n_labels != n_labels:
            # Tasks differ in their number of labels, which concerns the head alone.
            base = base if base.set_labels(n_labels) else None
        if base is None or self._base_key != key:
            if self._base_key:
                # No reference to the model may be left, or the device would hold two.
                base = self._base = None
                gc.unfreeze()
                self._clean()
            base = BaseModel(checkpoint, n_labels, spec.recipe, self.device)
            # Objects that stay for many trials need not be scanned by the garbage collector after each.
            gc.freeze()
            self._base, self._base_key = base, key
        return base

    def _encode(self, spec: TrialSpec, checkpoint: Checkpoint, data: TaskData) -> EncodedTask:
        recipe = spec.recipe
        key = (checkpoint, data.fingerprint, recipe.max_length, recipe.pair_separator)
        if key not in self._encoded:
            self._encoded[key] = encoded(data, checkpoint, recipe.max_length, recipe.pair_separator)
            while len(self._encoded) > _KEPT_ENCODINGS:
                self._encoded.popitem(last=False)
        return self._encoded[key]

    def _prefix_store(self, spec: TrialSpec) -> PrefixStore:
        """What earlier trials on the same weights and texts have left of frozen prefixes."""
        identity = f"{spec.inputs.identity()} {spec.recipe.max_length}"
        if identity != self._prefixes_of:
            self._prefixes, self._prefixes_of = PrefixStore(identity), identity
        return self._prefixes

    def _prepare_process(self, spec: TrialSpec, placement: Placement) -> None:
        torch.use_deterministic_algorithms(True)
        if self.device.type == "cpu":
            # The number of threads changes the order of sums, and with it the last digits.
            torch.set_num_threads(spec.recipe.cpu_threads)
        elif placement.gpu_share is not None:
            torch.cuda.set_per_process_memory_fraction(min(1.0, placement.gpu_share))

    def _clean(self) -> None:
        gc.collect()
        if self.device.type == "cuda":
            # Errors of asynchronous GPU work can surface only here.
            torch.cuda.synchronize()
            # Otherwise they hold memory that the next trial's reserved peak would contain.
            torch._C._cuda_clearCublasWorkspaces()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()


def _strictly(train: Callable[[], TrainingRecord]) -> TrainingRecord | None:
    """Train with deterministic algorithms only; None if an operation has none."""
    try:
        return train()
    except RuntimeError as error:
        if _REFUSED not in str(error):
            raise
        return None


def _require_inputs(spec: TrialSpec, checkpoint: Checkpoint, data: TaskData) -> None:
    """Refuse files that differ from those that the trial specifies, such as a node's own copy."""
    for what, specified, actual in (
        ("weights", spec.inputs.weights_hash, checkpoint.weights_hash),
        ("tokenizer", spec.inputs.tokenizer_hash, checkpoint.tokenizer_hash),
        ("data", spec.inputs.dataset_fingerprint, data.fingerprint),
    ):
        if specified != actual:
            raise InputError(
                f"the {what} here have the hash {actual:.12}, but the trial needs {specified:.12}"
            )


def _result(row: TrialRow, record: TrainingRecord | None, data: TaskData) -> TrialResult:
    if record is None:
        return TrialResult(row)
    names = ("step", "phase", "loss", "learning_rate", "grad_norm", "seconds", "tokens", "timed")
    steps = {name: [getattr(step, name) for step in record.steps] for name in names}
    predictions: dict[str, list[Any]] = {
        "example_id": [example.example_id for example in data.validation],
        "label": record.predictions.labels,
        "prediction": record.predictions.predictions,
        "logits": record.predictions.logits,
    }
    columns = EVALUATION_SCHEMA.keys() - {"run_id"}
    evaluations = {name: [getattr(entry, name) for entry in record.evaluations] for name in columns}
    return TrialResult(row, steps, predictions, evaluations)


def _is_out_of_memory(error: Exception) -> bool:
    # On CUDA torch raises a type of its own; the CPU allocator raises a RuntimeError with this text.
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _describe(error: Exception) -> str:
    """The message and where it was raised, with file names without folders."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{error} ({os.path.basename(last.filename)}, line {last.lineno}, in {last.name})"
