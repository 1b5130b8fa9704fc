"""A trial is a function of its specification, and a failure is a row."""

from __future__ import annotations

import subprocess
import sys
import weakref
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from lfreeze.models.loading import BaseModel
from lfreeze.strategy import paper_strategies
from lfreeze.training import loop
from reproduce.plan.inputs import SpaceInputs, find_inputs, trial_specs
from reproduce.plan.search_space import SearchSpace, load_space
from reproduce.plan.spec import TrialSpec
from reproduce.run.worker import TrialWorker
from reproduce.store.parquet import TRIAL_SCHEMA, TrialResult, trial_frame

# What may differ between two runs of one trial: times, and its position in its worker.
INCIDENTAL = {
    name
    for name in TRIAL_SCHEMA
    if name.endswith(("_at", "_seconds", "_index", "_reasons", "_checksum"))
    or name.startswith(("step_seconds", "seconds_per", "probe_step"))
    or name in ("attempt", "exclusive")
}


SMALL = {"steps": "8", "batch_size": "4", "max_train_examples": "40", "max_validation_examples": "40"}


def numbers(result: TrialResult) -> dict[str, Any]:
    """Everything that a trial computed."""
    row = {k: v for k, v in trial_frame(result.row).to_dicts()[0].items() if k not in INCIDENTAL}
    steps = {k: v for k, v in result.steps.items() if k != "seconds"}
    return {"row": row, "steps": steps, "predictions": dict(result.predictions)}


def small_space(strategies: str, seeds: str = "42", **recipe: str) -> tuple[SearchSpace, SpaceInputs]:
    narrow = {"tasks": ["tiny-cb"], "strategies": strategies.split(","), "seeds": seeds.split(",")}
    space = load_space("embedded", narrow, SMALL | {"probe_steps": "3"} | recipe)
    return space, find_inputs(space)


def run(worker: TrialWorker, spec: TrialSpec, inputs: SpaceInputs) -> TrialResult:
    checkpoint = inputs.checkpoints[spec.factors.model]
    return worker.run(spec, lambda: checkpoint, inputs.data[spec.factors.task][spec.factors.data_key])


def test_the_hundredth_trial_of_a_worker_equals_the_first_of_another() -> None:
    """Every strategy, LoRA's injected modules included, leaves nothing behind."""
    space, inputs = small_space(
        ",".join(paper_strategies()),
        seeds="1,2,3,4,5,6",
        steps="4",
        probe_steps="2",
    )
    specs = trial_specs(space, inputs)
    veteran = TrialWorker()
    late = [run(veteran, spec, inputs) for spec in specs]
    assert len(late) == 102
    assert late[99].row.worker_trial_index == 99
    for index in (*range(0, 102, 20), 98, 99, 100, 101):
        assert numbers(run(TrialWorker(), specs[index], inputs)) == numbers(late[index]), specs[index].factors
    for result in late:
        row = result.row
        assert row.status == "ok"
        assert row.frozen_unchanged
        assert row.every_trainable_got_gradient
        assert row.optimiser_holds_trainable
        assert row.deterministic_algorithms
        assert row.backward_depth == row.planned_backward_depth


def test_a_change_of_task_and_model_leaves_nothing_behind() -> None:
    space = load_space(
        "embedded-full",
        {"tasks": ["tiny-cb", "tiny-rte"], "strategies": ["BOT50"], "seeds": ["42"]},
        SMALL,
    )
    inputs = find_inputs(space)
    specs = trial_specs(space, inputs)
    assert len(specs) == 6
    worker = TrialWorker()
    first = [numbers(run(worker, spec, inputs)) for spec in specs]
    again = [numbers(run(worker, spec, inputs)) for spec in reversed(specs)]
    assert first == again[::-1]
    assert {r["row"]["n_layers"] for r in first} == {8}
    # The three architectures need no other algorithms.
    assert {r["row"]["deterministic_algorithms"] for r in first} == {True}


@pytest.mark.filterwarnings("ignore:.*does not have a deterministic implementation")
@pytest.mark.parametrize("strategy", ["ALL", "LoRA", "ADT-L50"])
def test_an_operation_without_a_deterministic_algorithm_costs_the_promise_not_the_trial(
    strategy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that changes no number, from the third step on: the weights have moved by then."""
    space, inputs = small_space(strategy)
    (spec,) = trial_specs(space, inputs)
    expected = numbers(run(TrialWorker(), spec, inputs))
    compute, strict = loop.classification_loss, []

    def with_unpooling(*arguments: Any) -> torch.Tensor:
        strict.append(not torch.is_deterministic_algorithms_warn_only_enabled())
        if len(strict) > 2:
            F.max_unpool2d(torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 1, 1, dtype=torch.long), 2)
        return compute(*arguments)

    worker = TrialWorker()
    with monkeypatch.context() as patch:
        patch.setattr(loop, "classification_loss", with_unpooling)
        other = numbers(run(worker, spec, inputs))
    assert strict == [True] * 3 + [False] * 8
    assert other["row"]["deterministic_algorithms"] is False
    other["row"]["deterministic_algorithms"] = True
    assert other == expected
    assert numbers(run(worker, spec, inputs)) == expected


def test_no_trial_uses_cudnns_attention() -> None:
    TrialWorker()
    assert not torch.backends.cuda.cudnn_sdp_enabled()


def test_an_earlier_model_is_gone_before_the_next_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device need not hold two."""
    space = load_space(
        "embedded-full",
        {
            "tasks": ["tiny-cb"],
            "models": ["tiny-gemma", "tiny-phi"],
            "strategies": ["BOT50"],
            "seeds": ["42"],
        },
        SMALL,
    )
    inputs = find_inputs(space)
    worker, loaded = TrialWorker(), []

    class Loaded(BaseModel):
        def __init__(self, *arguments: Any):
            assert all(earlier() is None for earlier in loaded)
            super().__init__(*arguments)
            loaded.append(weakref.ref(self))

    monkeypatch.setattr("reproduce.run.worker.BaseModel", Loaded)
    for spec in trial_specs(space, inputs):
        assert run(worker, spec, inputs).row.status == "ok"
    assert len(loaded) == 2


def test_every_null_has_a_reason() -> None:
    space, inputs = small_space("ALL,ADT-H50")
    for spec in trial_specs(space, inputs):
        row = trial_frame(run(TrialWorker(), spec, inputs).row).to_dicts()[0]
        reasons = {entry["column"]: entry["reason"] for entry in row["null_reasons"]}
        assert set(reasons) == {name for name, value in row.items() if value is None}
        assert all(reasons.values())
        assert (row["layer_changes"] is not None) == (spec.factors.strategy == "ADT-H50")
    assert row["frozen_layers"] == sorted(row["frozen_layers"])
    assert len(row["frozen_layers"]) == 4


def test_a_loss_that_is_not_finite_is_a_row_and_the_worker_continues() -> None:
    space, inputs = small_space("ALL", learning_rate="1e30")
    (spec,) = trial_specs(space, inputs)
    worker = TrialWorker()
    failed = run(worker, spec, inputs)
    row = trial_frame(failed.row).to_dicts()[0]
    assert (row["status"], row["error_type"]) == ("error", "TrainingError")
    assert "is nan at step 2" in row["error_message"]
    assert row["validation_accuracy"] is None
    healthy, inputs = small_space("ALL")
    (spec,) = trial_specs(healthy, inputs)
    assert numbers(run(worker, spec, inputs)) == numbers(run(TrialWorker(), spec, inputs))


def test_running_out_of_memory_is_a_row_with_its_own_status() -> None:
    """The process's own limit makes the allocator fail for real."""
    code = """
import resource
from tests.reproduce.run.test_worker import *
worker = TrialWorker()
small, inputs = small_space("ALL")
assert run(worker, *trial_specs(small, inputs), inputs).row.status == "ok"
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 200 * 2**20, resource.RLIM_INFINITY))
large, inputs = small_space("ALL", batch_size="4096", padding="max_length")
row = run(worker, *trial_specs(large, inputs), inputs).row
print(row.status, row.error_type)
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(run(worker, *trial_specs(small, inputs), inputs).row.status)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.split()[:1] == ["oom"], done.stdout + done.stderr
    assert done.stdout.split()[-1] == "ok"


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({}, True),
        ({"space": "other"}, True),
        ({"seed": 43}, False),
        ({"strategy": "BOT25"}, False),
        ({"learning_rate": 2e-3}, False),
        ({"weights_hash": "0"}, False),
        ({"dataset_fingerprint": "0"}, False),
    ],
)
def test_the_run_id_changes_with_what_can_change_the_numbers(change: dict[str, Any], same: bool) -> None:
    import dataclasses

    space, inputs = small_space("ALL")
    (spec,) = trial_specs(space, inputs)
    parts = {"factors": spec.factors, "recipe": spec.recipe, "inputs": spec.inputs}
    changed = dict(parts, space=change.get("space", spec.space))
    for part, value in parts.items():
        mine = {k: v for k, v in change.items() if k in {f.name for f in dataclasses.fields(value)}}
        changed[part] = dataclasses.replace(value, **mine)
    assert (TrialSpec(**changed).run_id == spec.run_id) is same
