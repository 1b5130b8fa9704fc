"""Golden tests: the numbers that the further figures draw, against values worked out by hand."""

from __future__ import annotations

import itertools
import random
import statistics
from typing import Any

import pytest

from reproduce.report.analysis.effects import ALL_MODELS, effects_data, sensitivity_data
from reproduce.report.analysis.estimands import ContrastEstimator
from reproduce.report.analysis.selection import decisiveness, random_overlap, selection_data
from reproduce.report.analysis.tradeoffs import pareto_data, pareto_front, ratio_data, savings_data
from reproduce.report.figures import appendix
from reproduce.report.figures.loss import loss_data
from reproduce.report.strategy_order import experiments
from tests.reproduce.report.analysis.test_aggregates import frame
from tests.reproduce.report.figures.test_registry import report_data
from tests.reproduce.report.synthetic import grid, trial_row


def cell(strategy: str, task: str, seed: int = 42, **values: Any) -> dict[str, Any]:
    return trial_row(strategy, "m", task, seed, **values)


def test_appendix_by_hand() -> None:
    rows = [
        cell("ALL", "tiny-cb", seed, validation_accuracy=accuracy, seconds_per_10_steps=seconds)
        for seed, accuracy, seconds in ((42, 0.5, 4.0), (43, 0.7, 2.0), (44, 0.6, 3.0))
    ]
    rows += [cell("BOT25", "tiny-cb", validation_accuracy=0.4, seconds_per_10_steps=1.5)]
    rows += [cell("TOP25", "tiny-cb", status="oom")]
    data = {row["strategy"]: row for row in appendix.panel_data(frame(*rows)).to_dicts()}
    whole = data["ALL"]
    assert (whole["mean"], whole["std"], whole["n"]) == pytest.approx((0.6, 0.1, 3))
    assert (whole["seconds"], whole["fastest"], whole["slowest"]) == (3.0, 2.0, 4.0)
    assert (data["BOT25"]["time_ratio"], data["BOT25"]["baseline_mean"]) == pytest.approx((0.5, 0.6))
    assert (data["TOP25"]["n"], data["TOP25"]["seconds"]) == (0, None)


def test_the_appendix_has_the_papers_numbers() -> None:
    models = ("gemma-2b", "phi-2", "minicpm-2b-128k", "tiny-gemma", "org/other")
    tasks = ("rte", "cb", "qnli", "wnli", "mnli", "tiny-cb", "reviews")
    data = report_data([trial_row("ALL", model, task) for model in models for task in tasks])
    shown = {spec.name: set(experiments(spec.compute(data))) for spec in appendix.FIGURES}
    gemma = ("gemma-2b", "tiny-gemma")
    four = ("rte", "cb", "wnli", "mnli", "tiny-cb")
    expected = {
        "figure_7": {(m, t) for m in gemma for t in ("rte", "cb", "qnli", "wnli", "tiny-cb")},
        "figure_9": {(m, t) for m in gemma for t in four},
        "figure_10": {("phi-2", t) for t in four},
        "figure_11": {("minicpm-2b-128k", t) for t in four},
    }
    assert {name: shown[name] for name in expected} == expected
    assert shown["figure_8"] == shown["figure_7"]
    rest = {(m, t) for m in models for t in tasks} - set.union(*(shown[f"figure_{n}"] for n in range(7, 12)))
    assert shown["experiments"] == rest
    titles = {spec.name: spec.title for spec in appendix.FIGURES}
    assert (titles["figure_7"], titles["figure_8"]) == ("Gemma: accuracy", "Gemma: speed")


def test_the_pareto_front_is_that_of_all_comparisons() -> None:
    source = random.Random(1)
    for _ in range(50):
        points = [(source.randrange(5), source.randrange(5)) for _ in range(8)]
        front = pareto_front([cost for cost, _ in points], [value for _, value in points])
        for point, best in zip(points, front, strict=True):
            beaten = [p for p in points if p[0] <= point[0] and p[1] >= point[1] and p != point]
            assert best is (not beaten)
    assert pareto_front([None, 1.0], [0.9, 0.1]) == [None, True]


def test_pareto_means_are_over_the_same_tasks() -> None:
    rows = [
        cell(strategy, task, validation_accuracy=accuracy, training_bytes=size, seconds_per_10_steps=seconds)
        for strategy, task, accuracy, size, seconds in (
            ("ALL", "t", 0.8, 1000, 4.0),
            ("ALL", "u", 0.6, 2000, 8.0),
            ("BOT50", "t", 0.9, 500, 3.0),
            ("BOT50", "u", 0.7, 1500, 4.0),
            ("LoRA", "t", 1.0, 100, 0.1),  # not on the other task
        )
    ]
    rows += [
        cell("ADT-L50", t, validation_accuracy=0.65, training_bytes=400, probe_training_bytes=3000)
        for t in "tu"
    ]
    data = {row["strategy"]: row for row in pareto_data(frame(*rows)).to_dicts()}
    assert set(data) == {"ALL", "BOT50", "ADT-L50"}
    bottom = data["BOT50"]
    assert bottom["mean"] == pytest.approx(0.8)
    assert bottom["memory_ratio"] == pytest.approx((0.5 + 0.75) / 2)
    assert bottom["time_ratio"] == pytest.approx((0.75 + 0.5) / 2)
    assert bottom["on_time_front"]
    assert not data["ALL"]["on_memory_front"]
    # The probe trains every layer, and must fit too.
    assert data["ADT-L50"]["memory_ratio"] == pytest.approx((3.0 + 1.5) / 2)


def test_ratios_and_savings_by_hand() -> None:
    rows = [
        cell(
            strategy, task, validation_accuracy=accuracy, training_bytes=size, predicted_training_bytes=size + 100,
            seconds_per_10_steps=seconds, predicted_step_flops=flops,
        )
        for strategy, task, accuracy, size, seconds, flops in (
            ("ALL", "t", 0.8, 900, 4.0, 300),
            ("ALL", "u", 0.6, 1900, 8.0, 600),
            ("BOT50", "t", 0.7, 400, 3.0, 200),
            ("BOT50", "u", 0.3, 900, 4.0, 400),
        )
    ]  # fmt: skip
    (row,) = ratio_data(frame(*rows)).to_dicts()
    assert (row["family"], row["percent"], row["n"], row["n_tasks"]) == ("BOT", 50.0, 2, 2)
    assert (row["difference"], row["std"]) == pytest.approx((-0.2, statistics.stdev([-0.1, -0.3])))
    (row,) = savings_data(frame(*rows)).to_dicts()
    assert row["measured_memory"] == pytest.approx(1 - (4 / 9 + 9 / 19) / 2)
    assert row["ideal_memory"] == pytest.approx(0.5)
    assert row["measured_time"] == pytest.approx(1 - (0.75 + 0.5) / 2)
    assert row["ideal_time"] == pytest.approx(1 / 3)


def test_effects_are_the_differences_over_all_models_and_for_each() -> None:
    trials = frame(*grid(("a", "b"), strategies=("ALL", "BOT25")))
    data = effects_data(trials)
    assert data["model"].to_list() == [ALL_MODELS, "a", "b"]
    whole = ContrastEstimator(trials).estimate("accuracy", {"BOT25": 1, "ALL": -1})
    assert whole is not None
    assert data.filter(model=ALL_MODELS)["low"].item() == whole.low
    assert effects_data(frame(*grid(("a",), strategies=("ALL", "BOT25"))))["model"].to_list() == ["a"]


def test_sensitivity_pairs_differ_in_one_setting_alone() -> None:
    usual = [cell("ALL", "t", seed, validation_accuracy=0.6, training_bytes=1000) for seed in (42, 43, 44)]
    padded = [
        {**row, "run_id": f"{row['run_id']}p", "recipe_padding": "max_length", "validation_accuracy": value}
        for row, value in zip(usual, (0.7, 0.9), strict=False)
    ]
    both = {**usual[2], "run_id": "both", "recipe_padding": "max_length", "recipe_steps": 50}
    (row,) = sensitivity_data(frame(*usual, *padded, both)).to_dicts()
    assert (row["setting"], row["n"]) == ("padding: longest → max_length", 2)
    assert (row["accuracy"], row["accuracy_std"]) == pytest.approx((0.2, statistics.stdev([0.1, 0.3])))
    assert row["memory"] == pytest.approx(0.0)
    frozen = cell("BOT50", "t", training_bytes=400, seconds_per_10_steps=2.0, weights="random")
    trained = cell("BOT-E50", "t", training_bytes=600, seconds_per_10_steps=3.0, weights="random")
    (row,) = sensitivity_data(frame(frozen, trained)).to_dicts()
    assert row["setting"] == "BOT50: embeddings frozen → trained"
    assert (row["memory"], row["time"], row["accuracy"]) == (pytest.approx(0.5), pytest.approx(0.5), None)


def test_selection_by_hand() -> None:
    scores = [0.1, 0.2, 0.6, 0.7]
    rows = [
        cell("ADT-L50", "t", seed, n_layers=4, frozen_layers=frozen, layer_changes=scores)
        for seed, frozen in ((42, [0, 1]), (43, [0, 1]), (44, [0, 2]))
    ]
    data = selection_data(frame(*rows)).to_dicts()
    assert [row["share"] for row in data] == pytest.approx([1, 2 / 3, 1 / 3, 0])
    assert [row["layer"] for row in data] == [1, 2, 3, 4]
    # The pairs overlap in 2 of 2, 1 of 3 and 1 of 3 layers.
    assert data[0]["agreement"] == pytest.approx((1 + 1 / 3 + 1 / 3) / 3)
    assert (data[0]["n"], data[0]["n_pairs"], data[0]["even"]) == (3, 3, pytest.approx(1 / 3))
    assert decisiveness(scores, [0, 1]) == pytest.approx(0.4 / 0.6)
    assert decisiveness(scores, [0, 2]) is None
    assert decisiveness([0.5] * 4, [0, 1]) is None
    assert decisiveness([0.0, 1.0, 1.0], [1, 2]) == pytest.approx(1.0)


@pytest.mark.parametrize(("layers", "first", "second"), [(8, 2, 2), (5, 2, 3), (6, 6, 1)])
def test_random_overlap_is_the_mean_over_all_sets(layers: int, first: int, second: int) -> None:
    fixed = set(range(first))
    every = [set(chosen) for chosen in itertools.combinations(range(layers), second)]
    expected = statistics.mean(len(fixed & chosen) / len(fixed | chosen) for chosen in every)
    assert random_overlap(layers, first, second) == pytest.approx(expected)


def test_loss_is_a_mean_over_windows_and_seeds() -> None:
    rows = [cell("ALL", "t", seed) for seed in (42, 43)] + [cell("BOT25", "t", status="error")]
    data = loss_data(report_data(rows, steps=50))
    assert set(data["strategy"]) == {"ALL"}
    assert data["step"].to_list() == list(range(2, 51, 2))
    assert data["loss"][0] == pytest.approx((1 + 1 / 2) / 2)
    assert set(data["n"]) == {2}
