"""Verdicts on planted trials: each for the reason that was planted, none from trials that are no evidence."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Iterable
from typing import Any

import polars as pl
import pytest

from lfreeze.strategy import Strategy, paper_strategies
from reproduce.report.analysis.claims import BOUNDS, Verdict, ledger, verdicts
from reproduce.report.analysis.estimands import ContrastEstimator, Estimate
from reproduce.report.text.claims import card, claims_layout, evidence_notes, label, tally
from tests.reproduce.report.analysis.test_aggregates import frame
from tests.reproduce.report.synthetic import trial_row

MODELS, TASKS = ("gemma-2b", "minicpm-2b-128k", "phi-2"), ("cb", "mnli", "qnli", "rte", "wnli")
SEEDS = (42, 43, 44, 45, 46)
PAPER: dict[str, Any] = {"recipe_learning_rate": 5e-5, "device": "cuda", "exclusive": True}
Plant = Callable[[str, random.Random], dict[str, Any]]


def paper_trials(
    plant: Plant,
    strategies: Iterable[str] = paper_strategies(),
    models: Iterable[str] = MODELS,
    tasks: Iterable[str] = TASKS,
    seeds: Iterable[int] = SEEDS,
    **changes: Any,
) -> pl.DataFrame:
    """Trials as the paper's space would leave them, with planted columns for each strategy."""
    source = random.Random(0)
    cells = [(s, m, t, seed) for m in models for t in tasks for s in strategies for seed in seeds]
    return frame(*(trial_row(*cell, **PAPER | plant(cell[0], source) | changes) for cell in cells))


def accuracies(spread: float = 0.01, **means: float) -> Plant:
    def plant(strategy: str, source: random.Random) -> dict[str, Any]:
        mean = means.get(strategy.replace("-", "_"), 0.8)
        return {"validation_accuracy": source.gauss(mean, spread)}

    return plant


def of(found: list[Verdict], name: str) -> Verdict:
    return next(verdict for verdict in found if verdict.claim.id == name)


def test_the_ledger_is_sound() -> None:
    claims, evidence = ledger()
    assert len({claim.id for claim in claims}) == len(claims)
    assert {claim.id.rstrip("abcde") for claim in claims} == {str(number) for number in range(1, 11)}
    for claim in claims:
        assert claim.range.keys() <= BOUNDS.keys()
        assert claim.range
        assert claim.parts
        assert claim.quantity in evidence
        for name in {name for part in claim.parts for name in part}:
            assert Strategy.parse(name).name == name


def test_a_planted_loss_gain_and_doubt_are_told_apart() -> None:
    means = {"BOT25": 0.82, "BOT50": 0.81, "LoRA": 0.9, "BOT75": 0.7, "TOP75": 0.7}
    found = verdicts(paper_trials(accuracies(**means)))
    expected = {
        "1a": "supported",
        "1b": "contradicted",
        "7a": "supported",
        "10a": "supported",
        "10b": "supported",
    }
    assert {name: of(found, name).verdict for name in expected} == expected
    doubtful = verdicts(paper_trials(accuracies(spread=0.2, BOT25=0.79, BOT50=0.79)))
    assert of(doubtful, "1a").verdict == "inconclusive"
    assert of(doubtful, "1a").reasons == ()
    assert "do not decide" in card(of(doubtful, "1a")).outcome


def test_the_numbers_of_a_verdict_are_those_of_plain_python() -> None:
    trials = paper_trials(accuracies(BOT25=0.82))
    rows = {
        (r["model"], r["task"], r["strategy"], r["seed"]): r["validation_accuracy"] for r in trials.to_dicts()
    }
    blocks = [
        [rows[m, t, "BOT25", seed] - rows[m, t, "ALL", seed] for seed in SEEDS] for m in MODELS for t in TASKS
    ]
    means = [statistics.mean(block) for block in blocks]
    found = of(verdicts(trials), "1a").parts[0].estimate
    assert found is not None
    assert found.value == pytest.approx(statistics.mean(means))
    assert (found.least, found.most) == pytest.approx((min(means), max(means)))
    assert (found.n, found.n_blocks, found.n_seeds) == (150, 15, 5)
    error = sum(statistics.variance(block) / 5 for block in blocks) ** 0.5 / 15
    assert found.low == pytest.approx(found.value - 1.96 * error, abs=0.1 * error)
    assert found.high == pytest.approx(found.value + 1.96 * error, abs=0.1 * error)


_MEMORY = {"ALL": 1000, "BOT25": 700, "BOT50": 500, "BOT75": 300, "LoRA": 720, "INT25": 900, "INT33": 890}
_MEMORY |= {"INT50": 880, "TOP25": 930, "TOP50": 850, "TOP75": 780, "BOT-E25": 800, "BOT-E50": 780}


def memory(strategy: str, source: random.Random) -> dict[str, Any]:
    return {"training_bytes": _MEMORY.get(strategy, 1000)}


def test_memory_claims_need_neither_texts_nor_trained_weights() -> None:
    trials = paper_trials(memory, _MEMORY, tasks=("tiny-mnli",), seeds=(42, 43), weights="random")
    found = {v.claim.id: v for v in verdicts(trials) if v.claim.quantity == "memory"}
    expected = dict.fromkeys(("2a", "2b", "2d", "2e", "4a", "4b", "5"), "supported") | {"2c": "contradicted"}
    assert {name: verdict.verdict for name, verdict in found.items()} == expected
    (part,) = found["2a"].parts
    assert part.estimate == Estimate(0.3, 0.3, 0.3, 0.3, 0.3, n=12, n_blocks=3, n_seeds=2)
    (part,) = found["5"].parts
    assert part.estimate is not None
    assert part.estimate.value == pytest.approx(0.02)
    assert of(verdicts(trials), "1a").verdict == "inconclusive"
    assert of(verdicts(trials), "1a").reasons == ("the models have random weights",)


def test_speed_claims() -> None:
    seconds = {"BOT25": 0.8, "BOT50": 0.78, "BOT75": 0.5, "LoRA": 0.9}

    def plant(strategy: str, source: random.Random) -> dict[str, Any]:
        faster = seconds.get(strategy, 1.0 if strategy == "ALL" else 0.95) * source.gauss(1, 0.001)
        return {"seconds_per_10_steps": faster, "selection_seconds": 1.3, "train_seconds": 13.0}

    found = verdicts(paper_trials(plant))
    expected = {"3": "supported", "6a": "supported", "6b": "supported", "7b": "supported", "7c": "supported"}
    assert {name: of(found, name).verdict for name in expected} == expected
    speed, share = (of(found, name).parts[0].estimate for name in ("3", "7b"))
    assert speed is not None
    assert share is not None
    assert speed.value == pytest.approx(1 / 0.8 - 1, abs=0.005)
    assert share.value == pytest.approx(0.1)
    for changes, reason in (({"exclusive": False}, "shared its GPU"), ({"device": "cpu"}, "on a GPU")):
        verdict = of(verdicts(paper_trials(plant, **changes)), "3")
        assert (verdict.verdict, verdict.by_numbers) == ("inconclusive", "supported")
        assert reason in verdict.reasons[0]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"models": ("tiny-gemma", "tiny-phi", "tiny-minicpm")}, "no trial is of the paper's models"),
        ({"tasks": tuple(f"tiny-{task}" for task in TASKS)}, "no trial is of the paper's tasks"),
        ({"models": ("gemma-2b", "phi-2")}, "2 models, of 3 needed"),
        ({"tasks": ("rte", "cb")}, "6 experiments, of 15 needed"),
        ({"seeds": (42, 43)}, "2 seeds, of 3 needed"),
        ({"seeds": (42,)}, "1 seed, of 3 needed"),
        ({"strategies": ("ALL", "LoRA", "BOT25")}, "no trials to compare for 1 of 2 parts"),
        ({"recipe_learning_rate": 1e-3}, "the paper's learning_rate is 5e-05, that of the trials 0.001"),
        ({"recipe_steps": 20}, "the paper's steps is 100, that of the trials 20"),
        ({"frozen_unchanged": False}, "the freeze proof holds for no trial"),
        ({"status": "oom"}, "no trial"),
    ],
)
def test_what_is_no_evidence_decides_nothing(changes: dict[str, Any], reason: str) -> None:
    verdict = of(verdicts(paper_trials(accuracies(), **changes)), "1a")
    assert verdict.verdict == "inconclusive"
    assert reason in " ".join(verdict.reasons)
    assert reason.lower() in " ".join(evidence_notes([verdict])).lower()
    assert reason not in card(verdict).outcome


def test_trials_that_are_no_evidence_do_not_weigh_in() -> None:
    # The miniatures beside the paper's models say the opposite.
    real = paper_trials(accuracies(BOT25=0.9, BOT50=0.9))
    tiny = paper_trials(accuracies(BOT25=0.5, BOT50=0.5), models=("tiny-gemma",), tasks=("tiny-rte",))
    found, alone = of(verdicts(pl.concat([real, tiny])), "1a"), of(verdicts(real), "1a")
    assert found == alone
    assert found.verdict == "supported"


def test_ranks_and_their_lead_by_hand() -> None:
    # Without spread, in one experiment: ALL 3 points, BOT25 2, TOP25 1, LoRA 0.
    values = {"ALL": 0.9, "BOT25": 0.8, "TOP25": 0.7, "LoRA": 0.6}
    trials = paper_trials(accuracies(0.0, **values), values, ("gemma-2b",), ("rte",))
    estimator = ContrastEstimator(trials)
    lead = estimator.estimate("lead", {"BOT25": 1, "TOP25": 1})
    rank = estimator.estimate("rank", {"BOT25": 1, "ALL": -1})
    assert lead == Estimate(-2.0, -2.0, -2.0, None, None, n=10, n_blocks=1, n_seeds=5)
    assert rank is not None
    assert (rank.value, rank.low, rank.high) == (-1.0, -1.0, -1.0)


def test_deviations_by_hand() -> None:
    spread = {"ALL": [0.4, 0.6], "INT25": [0.5, 0.5]}
    rows = [
        trial_row(strategy, "m", task, seed, validation_accuracy=value)
        for task in ("t", "u")
        for strategy, values in spread.items()
        for seed, value in enumerate(values)
    ]
    found = ContrastEstimator(frame(*rows)).estimate("deviation", {"INT25": 1, "ALL": -1})
    assert found is not None
    assert found.value == pytest.approx(-statistics.stdev([0.4, 0.6]))
    assert found.n == 8


def test_verdicts_in_words_and_as_a_table() -> None:
    found = verdicts(paper_trials(accuracies(BOT75=0.7, TOP75=0.7)))
    assert label("accuracy", {"BOT75": 1, "BOT50": -2, "BOT25": 1}) == "BOT75 − 2 BOT50 + BOT25"
    shown = card(of(found, "1a"))
    assert shown.rule == "at least −1.0 points"
    assert [line.contrast for line in shown.lines] == ["BOT25 − ALL", "BOT50 − ALL"]
    assert shown.strategies == ("BOT25", "ALL", "BOT50")
    assert "ALL" in card(of(found, "2a")).strategies
    names = [verdict.verdict for verdict in found]
    assert f"{names.count('inconclusive')} are inconclusive" in tally(found)
    table = claims_layout(found)
    assert table.frame.height == sum(len(verdict.parts) for verdict in found)
    assert set(table.frame["verdict"]) <= {"supported", "contradicted", "inconclusive"}
    assert table.markdown().count("\n") == table.frame.height + 1
