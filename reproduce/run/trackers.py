"""Experiment trackers that receive the trials of a sweep, through the integrations of transformers.

The driver logs each successful trial as a run of its own, once it has ended, with either engine.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import json
import os
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from lfreeze.errors import InputError
from reproduce.plan.spec import TrialSpec
from reproduce.store.parquet import TrialResult

# By tracker, the callback of transformers and the modules of which it needs one.
TRACKERS = {
    "tensorboard": ("TensorBoardCallback", ("tensorboard", "tensorboardX")),
    "mlflow": ("MLflowCallback", ("mlflow",)),
    "wandb": ("WandbCallback", ("wandb",)),
    "trackio": ("TrackioCallback", ("trackio",)),
}
_STEP_VALUES = ("loss", "learning_rate", "grad_norm", "seconds")
_RESULTS = {
    "eval_accuracy": "validation_accuracy",
    "eval_macro_f1": "macro_f1",
    "eval_matthews_correlation": "matthews_correlation",
    "train_runtime": "train_seconds",
    "median_step_seconds": "step_seconds_median",
    "peak_allocated_bytes": "peak_allocated_bytes",
}


def require_trackers(names: Iterable[str]) -> None:
    """Check that trackers are installed, before anything is trained.

    Raises:
        InputError: one is not, or Weights & Biases has no account to log to.
    """
    for name in names:
        if not any(importlib.util.find_spec(module) for module in TRACKERS[name][1]):
            raise InputError(f"--log-to {name} needs its package: pip install 'lfreeze[{name}]'")
        if name == "wandb":
            _require_account()


def _require_account() -> None:
    # Otherwise it prints twenty lines for each trial.
    os.environ.setdefault("WANDB_SILENT", "true")
    wandb = importlib.import_module("wandb")
    settings = wandb.setup().settings
    if settings.mode not in ("offline", "disabled") and not wandb.api.api_key:
        raise InputError(
            "--log-to wandb has no account to log to: run `wandb login`, or set WANDB_MODE=offline"
        )


class TrialRuns:
    """Logs each trial as a run of one tracker; the tracker's own environment variables apply.

    A run has the trial's factors, recipe and run id as parameters, the values of every step, and the accuracy.
    """

    def __init__(self, tracker: str):
        self._tracker = tracker

    def __call__(self, spec: TrialSpec, result: TrialResult) -> None:
        from transformers import TrainerControl, TrainerState, integrations

        values = {**dataclasses.asdict(spec.factors), "run_id": spec.run_id, "space": spec.space}
        values |= {f"recipe_{name}": value for name, value in dataclasses.asdict(spec.recipe).items()}
        # What the callbacks read of TrainingArguments, whose own values would be no values of the trial.
        arguments = SimpleNamespace(
            run_name=f"{spec.factors}-{spec.run_id}",
            output_dir=spec.space,
            project=spec.space,
            to_dict=lambda: values,
            to_json_string=lambda: json.dumps(values, indent=1),
            hub_private_repo=None,
            trackio_space_id=None,
            trackio_bucket_id=None,
            trackio_static_space_id=False,
        )
        options = {"tb_writer": _writer(arguments)} if self._tracker == "tensorboard" else {}
        callback = getattr(integrations, TRACKERS[self._tracker][0])(**options)
        state, control = TrainerState(), TrainerControl()
        callback.on_train_begin(arguments, state, control)
        for position, step in enumerate(result.steps["step"]):
            state.global_step = step
            logs = {name: result.steps[name][position] for name in _STEP_VALUES}
            callback.on_log(arguments, state, control, logs=_numbers(logs))
        logs = {name: getattr(result.row, column) for name, column in _RESULTS.items()}
        callback.on_log(arguments, state, control, logs=_numbers(logs))
        callback.on_train_end(arguments, state, control)
        if self._tracker == "wandb":
            # The callback leaves its run open for what follows a training.
            importlib.import_module("wandb").finish()


def _writer(arguments: SimpleNamespace) -> Any:
    """A writer whose folder is the trial's; the callback's own default has the machine's name."""
    installed = importlib.util.find_spec("tensorboard") is not None
    module = importlib.import_module("torch.utils.tensorboard" if installed else "tensorboardX")
    root = Path(os.environ.get("TENSORBOARD_LOGGING_DIR", "runs")).expanduser()
    return module.SummaryWriter(str(root / arguments.project / arguments.run_name))


def _numbers(values: dict[str, Any]) -> dict[str, float]:
    return {name: value for name, value in values.items() if value is not None}
