"""Verdicts on planted trials: each for the reason that was planted, none from trials that are no evidence."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Iterable
from typing import Any

import polars as pl
import pytest

from lfreeze.strategy import Strategy, paper_strategies
from reproduce.report.analysis import claims as judging
from reproduce.report.analysis.claims import VERDICTS, Verdict
from reproduce.report.analysis.estimands import ContrastEstimator
from reproduce.report.analysis.ledger import BOUNDS, MARGINS, claims, evidence_for
from reproduce.report.text.claims import card, claims_layout, evidence_notes, label, rule, tally
from tests.reproduce.report.analysis.test_aggregates import frame
from tests.reproduce.report.synthetic import trial_row

MODELS, TASKS = ("gemma-2b", "minicpm-2b-128k", "phi-2"), ("cb", "mnli", "qnli", "rte", "wnli")
SEEDS = (42, 43, 44, 45, 46)
PAPER: dict[str, Any] = {
    "recipe_learning_rate": 5e-5,
    "recipe_precision": "bf16-mixed",
    "recipe_padding": "max_length",
    "device": "cuda",
    "exclusive": True,
    # So many examples that their choice adds nothing.
    "n_validation": 10**9,
}
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


def verdicts(trials: pl.DataFrame) -> list[Verdict]:
    return judging.verdicts(judging.evidence_estimators(trials))


def accuracies(spread: float = 0.01, **means: float) -> Plant:
    def plant(strategy: str, source: random.Random) -> dict[str, Any]:
        mean = means.get(strategy.replace("-", "_"), 0.8)
        return {"validation_accuracy": source.gauss(mean, spread)}

    return plant


def of(found: list[Verdict], name: str) -> Verdict:
    return next(verdict for verdict in found if verdict.claim.id == name)


def test_the_ledger_is_sound() -> None:
    assert len({claim.id for claim in claims()}) == len(claims())
    assert {claim.id.rstrip("abcdefgh") for claim in claims()} == {str(number) for number in range(1, 11)}
    assert {claim.id for claim in claims() if claim.reading} == {"2d", "10a", "10b"}
    for claim in claims():
        assert claim.printed.keys() <= BOUNDS.keys()
        assert claim.printed
        assert claim.parts
        assert claim.quantity in evidence_for(claim.quantity).quantities
        assert set(claim.models) <= set(MODELS)
        for name in {name for part in claim.parts for name in part}:
            assert Strategy.parse(name).name == name


def test_one_margin_for_each_quantity() -> None:
    # What the paper prints as numbers is widened, whether it says "about 30 %" or "20-30 %".
    ranges = {claim.id: claim.range for claim in claims()}
    assert ranges["2a"] == pytest.approx({"at_least": 0.25, "at_most": 0.35})
    assert ranges["2c"] == pytest.approx({"at_least": 0.07, "at_most": 0.30})
    assert ranges["2e"] == pytest.approx({"at_least": 0.02, "at_most": 0.18})
    assert ranges["3"] == pytest.approx({"at_least": 0.15, "at_most": 0.35})
    assert ranges["1a"] == pytest.approx({"at_least": -0.01})
    assert ranges["1c"] == {"above": 0}
    assert rule(next(claim for claim in claims() if claim.id == "3")) == "20.0 to 30.0, margin 5.0"
    assert MARGINS["memory"] == MARGINS["speed"]


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


def test_better_is_more_than_not_worse() -> None:
    equal = verdicts(paper_trials(accuracies(spread=0.002)))
    assert [of(equal, name).verdict for name in ("1a", "1c", "1e", "1f")] == [
        "supported", "inconclusive", "supported", "supported",
    ]  # fmt: skip
    better = verdicts(paper_trials(accuracies(spread=0.002, BOT25=0.86, INT25=0.86, TOP25=0.86)))
    assert [of(better, name).verdict for name in ("1c", "1d", "1g")] == ["supported"] * 3
    worse = verdicts(paper_trials(accuracies(spread=0.002, BOT25=0.74)))
    assert [of(worse, name).verdict for name in ("1c", "1d", "1e", "1f", "1g")] == ["contradicted"] * 5


def test_one_model_is_enough_to_contradict_every_model() -> None:
    def plant(model: str) -> pl.DataFrame:
        loss = {"BOT25": 0.7} if model == "phi-2" else {}
        return paper_trials(accuracies(spread=0.002, **loss), models=(model,))

    found = verdicts(pl.concat([plant(model) for model in MODELS]))
    assert of(found, "1e").verdict == "contradicted"
    assert {(p.model, p.verdict) for p in of(found, "1e").parts if "BOT25" in p.contrast} == {
        ("gemma-2b", "supported"),
        ("minicpm-2b-128k", "supported"),
        ("phi-2", "contradicted"),
    }
    assert of(found, "1g").verdict == "contradicted"
    assert of(found, "1g").parts[1].estimate.n_blocks == 5  # type: ignore[union-attr]


def test_the_numbers_of_a_verdict_are_those_of_plain_python() -> None:
    trials = paper_trials(accuracies(BOT25=0.82), n_validation=277)
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
    # Without predictions, the examples' part is that of two strategies that err independently of each other.
    # The models share a task's examples, and may err on the same ones.
    sampling = 0.0
    for t in TASKS:
        deviations = 0.0
        for m in MODELS:
            means = [statistics.mean(rows[m, t, s, seed] for seed in SEEDS) for s in ("BOT25", "ALL")]
            deviations += sum(p * (1 - p) / 277 for p in means) ** 0.5
        sampling += deviations**2
    error = (sum(statistics.variance(block) / 5 for block in blocks) + sampling) ** 0.5 / 15
    assert found.low == pytest.approx(found.value - 1.96 * error, rel=1e-3)
    assert found.high == pytest.approx(found.value + 1.96 * error, rel=1e-3)


_MEMORY = {"ALL": 1000, "BOT25": 700, "BOT50": 500, "BOT75": 300, "LoRA": 720, "INT25": 900, "INT33": 890}
_MEMORY |= {"INT50": 880, "TOP25": 930, "TOP50": 850, "TOP75": 780, "BOT-E25": 800, "BOT-E50": 780}


def memory(strategy: str, source: random.Random) -> dict[str, Any]:
    return {"training_bytes": _MEMORY.get(strategy, 1000)}


def test_memory_claims_need_neither_texts_nor_trained_weights() -> None:
    trials = paper_trials(memory, _MEMORY, tasks=("tiny-mnli",), seeds=(42, 43), weights="random")
    found = {v.claim.id: v for v in verdicts(trials) if v.claim.quantity == "memory"}
    expected = dict.fromkeys(("2a", "2b", "2d", "2e", "2g", "2h", "4a", "4b", "5"), "supported")
    expected |= {"2c": "supported", "2f": "contradicted"}
    assert {name: verdict.verdict for name, verdict in found.items()} == expected
    (part,) = found["2a"].parts
    assert part.estimate is not None
    assert (part.estimate.value, part.estimate.low, part.estimate.high) == (0.3, 0.3, 0.3)
    assert (part.estimate.n, part.estimate.n_blocks, part.estimate.n_seeds) == (12, 3, 2)
    (part,) = found["5"].parts
    assert part.estimate is not None
    assert part.estimate.value == pytest.approx(0.02)
    assert of(verdicts(trials), "1a").verdict == "inconclusive"
    assert of(verdicts(trials), "1a").reasons == ("the models have random weights",)


def test_memory_is_judged_by_each_model_not_by_their_mean() -> None:
    def saved(gemma: float, phi: float, minicpm: float, **changes: Any) -> Verdict:
        savings = {"gemma-2b": gemma, "phi-2": phi, "minicpm-2b-128k": minicpm}
        parts = [
            paper_trials(
                lambda s, _, saving=saving: {"training_bytes": round(1e6 * (1 - saving * (s == "BOT25")))},
                ("ALL", "BOT25"), (model,), ("tiny-mnli",),
            )
            for model, saving in savings.items()
        ]  # fmt: skip
        return of(verdicts(pl.concat(parts)), "2a")

    assert saved(0.28, 0.30, 0.34).verdict == "supported"
    assert saved(0.10, 0.30, 0.50).verdict == "inconclusive"
    assert saved(0.10, 0.15, 0.20).verdict == "contradicted"
    assert saved(0.40, 0.45, 0.50).verdict == "exceeded"
    part = saved(0.10, 0.30, 0.50).parts[0]
    assert part.estimate is not None
    assert (part.estimate.value, part.estimate.low, part.estimate.high) == pytest.approx((0.3, 0.1, 0.5))


def test_a_comparison_needs_one_attention() -> None:
    def plant(strategy: str, source: random.Random) -> dict[str, Any]:
        attention = "eager" if strategy == "BOT25" else "sdpa"
        return memory(strategy, source) | {"attention_implementation": attention}

    found = verdicts(paper_trials(plant, _MEMORY, tasks=("tiny-mnli",)))
    assert of(found, "2b").verdict == "supported"
    assert of(found, "2a").verdict == "inconclusive"
    assert of(found, "2a").reasons == ("no trials to compare for 1 of 1 part",)


def test_an_adaptive_trial_needs_the_memory_of_its_probe() -> None:
    rows = [
        trial_row("ALL", "m", "t", training_bytes=1000),
        trial_row("ADT-L50", "m", "t", training_bytes=600, probe_training_bytes=1010),
    ]
    estimate = ContrastEstimator(frame(*rows)).estimate("memory", {"ADT-L50": 1})
    assert estimate is not None
    assert estimate.value == pytest.approx(-0.01)


def test_the_first_10_steps_include_probe_and_selection() -> None:
    rows = [
        trial_row("ALL", "m", "t", seconds_per_10_steps=2.0),
        trial_row(
            "ADT-L50", "m", "t", switch_step=4, probe_step_seconds_median=0.25, selection_seconds=0.4,
            step_seconds_median=0.1, seconds_per_10_steps=1.0,
        ),
    ]  # fmt: skip
    estimate = ContrastEstimator(frame(*rows)).estimate("start", {"ADT-L50": 1})
    assert estimate is not None
    assert estimate.value == pytest.approx((4 * 0.25 + 0.4 + 6 * 0.1) / 2.0)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"device": "cpu"}, "no trial ran on a GPU"),
        ({"recipe_padding": "longest"}, "padding must be max_length, that of the trials is longest"),
        ({"recipe_precision": "fp32"}, "precision must be bf16-mixed, that of the trials is fp32"),
        ({"recipe_frozen_dtype": "compute"}, "frozen_dtype must be same"),
        ({"recipe_freeze_embeddings": "yes"}, "freeze_embeddings must be auto"),
        ({"model_id": "lfreeze.tiny/tiny-gemma"}, "no trial is of the paper's models"),
    ],
)
def test_what_is_no_evidence_on_memory_and_speed(changes: dict[str, Any], reason: str) -> None:
    # Such as the miniatures' trials, with the models' names replaced.
    found = verdicts(paper_trials(memory, _MEMORY, tasks=("tiny-mnli",), **changes))
    judged = [verdict for verdict in found if verdict.kind in ("memory", "speed")]
    assert len(judged) > 10
    assert {verdict.verdict for verdict in judged} == {"inconclusive"}
    assert all(reason in verdict.reasons[0] for verdict in judged)
    assert any(reason in note for note in evidence_notes(found))
    assert reason not in card(of(found, "2a")).outcome


def test_speed_claims() -> None:
    seconds = {"BOT25": 0.81, "BOT50": 0.78, "BOT75": 0.5, "LoRA": 0.9}

    def plant(strategy: str, source: random.Random) -> dict[str, Any]:
        faster = seconds.get(strategy, 1.0 if strategy == "ALL" else 0.95) * source.gauss(1, 0.001)
        return {"seconds_per_10_steps": faster, "selection_seconds": 1.3, "train_seconds": 13.0}

    found = verdicts(paper_trials(plant))
    expected = {"3": "supported", "3b": "supported", "3c": "supported", "6a": "supported", "6b": "supported"}
    expected |= {"6c": "exceeded", "7c": "supported"}
    assert {name: of(found, name).verdict for name in expected} == expected
    speed = of(found, "3").parts[0].estimate
    assert speed is not None
    assert speed.value == pytest.approx(1 / 0.81 - 1, abs=0.005)
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
        ({"recipe_learning_rate": 1e-3}, "learning_rate must be 5e-05, that of the trials is 0.001"),
        ({"recipe_steps": 20}, "steps must be 100, that of the trials is 20"),
        ({"frozen_unchanged": False}, "the freeze proof holds for no trial"),
        ({"status": "oom"}, "no trial"),
    ],
)
def test_what_is_no_evidence_decides_nothing(changes: dict[str, Any], reason: str) -> None:
    trials = paper_trials(accuracies(), **{"strategies": ("ALL", "LoRA", "BOT25", "BOT50")} | changes)
    found = verdicts(trials)
    verdict = of(found, "1a")
    assert verdict.verdict == "inconclusive"
    assert reason in " ".join(verdict.reasons)
    assert reason not in card(verdict).outcome
    assert reason in " ".join(evidence_notes(found))


def test_trials_that_are_no_evidence_do_not_weigh_in() -> None:
    # The miniatures beside the paper's models say the opposite.
    real = paper_trials(accuracies(BOT25=0.9, BOT50=0.9))
    tiny = paper_trials(accuracies(BOT25=0.5, BOT50=0.5), models=("tiny-gemma",), tasks=("tiny-rte",))
    found, alone = of(verdicts(pl.concat([real, tiny])), "1a"), of(verdicts(real), "1a")
    assert found == alone
    assert found.verdict == "supported"


def _ranked(first: dict[str, float], second: dict[str, float], strategies: Iterable[str]) -> pl.DataFrame:
    """Two experiments without spread; strategies that a mapping does not name have the accuracy 0.5."""
    rows = []
    for task, values in (("rte", first), ("cb", second)):
        for strategy in strategies:
            rows += [
                trial_row(strategy, "m", task, s, validation_accuracy=values.get(strategy, 0.5))
                for s in (42, 43)
            ]
    return frame(*rows)


def test_ranks_and_their_lead_by_hand() -> None:
    # Of 17: the best gets 16 points, the second 15; the fifteen others share the mean of 0 to 14, 7.
    trials = _ranked({"ALL": 0.9, "BOT25": 0.8}, {"BOT25": 0.9, "ALL": 0.8}, paper_strategies())
    estimator = ContrastEstimator(trials)
    rank = estimator.estimate("rank", {"BOT25": 1, "TOP25": -1})
    assert rank is not None
    assert rank.value == pytest.approx((15 + 16) / 2 - 7)
    # Two experiments, 8 and 9: a t interval with one degree of freedom, 12.706 standard errors of 0.5.
    assert (rank.low, rank.high) == pytest.approx((8.5 - 12.7062 * 0.5, 8.5 + 12.7062 * 0.5), rel=1e-4)
    assert (rank.n, rank.n_blocks, rank.n_seeds) == (68, 2, 2)
    lead = estimator.estimate("lead", {"ALL": 1, "BOT25": 1})
    assert lead is not None
    assert lead.value == pytest.approx(8.5)
    assert lead.low is not None
    assert lead.high is not None
    assert lead.low < lead.value < lead.high
    behind = estimator.estimate("lead", {"ALL": 1, "TOP25": 1})
    assert behind is not None
    assert behind.value == pytest.approx(7 - 15.5)


def test_ranks_need_exactly_the_papers_strategies() -> None:
    values = {"ALL": 0.9, "BOT25": 0.95}
    few = ContrastEstimator(_ranked(values, values, ("ALL", "BOT25", "LoRA")))
    assert few.estimate("rank", {"BOT25": 1, "ALL": -1}) is None
    assert few.estimate("lead", {"BOT25": 1}) is None
    whole = ContrastEstimator(_ranked(values, values, paper_strategies()))
    more = ContrastEstimator(_ranked(values, values, [*paper_strategies(), "BOT-E25", "BOT-E50"]))
    for quantity, contrast in (("rank", {"BOT25": 1.0, "ALL": -1.0}), ("lead", {"BOT25": 1.0, "TOP25": 1.0})):
        first, second = whole.estimate(quantity, contrast), more.estimate(quantity, contrast)
        assert first is not None
        assert first == second
    partial = paper_trials(accuracies(BOT25=0.9, TOP25=0.9), ("ALL", "BOT25", "TOP25"))
    assert of(verdicts(partial), "8a").reasons == (
        "no experiment has a result for each of the paper's 17 strategies",
    )
    leading = verdicts(paper_trials(accuracies(BOT25=0.9, TOP25=0.9)))
    assert of(leading, "8a").verdict == "supported"
    assert of(leading, "8c").verdict == "contradicted"


def test_the_highest_model_is_one_of_all_that_are_needed() -> None:
    def saved(**savings: float) -> Verdict:
        parts = [
            paper_trials(
                lambda s, _, saving=saving: {"training_bytes": round(1e6 * (1 - saving * (s == "BOT50")))},
                ("ALL", "BOT50") if saving else ("ALL", "LoRA"), (model.replace("_", "-"),), ("tiny-mnli",),
            )
            for model, saving in savings.items()
        ]  # fmt: skip
        return of(verdicts(pl.concat(parts)), "2h")

    whole = saved(**{"gemma-2b": 0.4, "phi-2": 0.52, "minicpm-2b-128k": 0.41})
    assert whole.verdict == "supported"
    assert whole.parts[0].estimate is not None
    assert whole.parts[0].estimate.value == pytest.approx(0.52)
    assert card(whole).lines[0].contrast == "BOT50, highest model"
    one = saved(**{"gemma-2b": 0.0, "phi-2": 0.52, "minicpm-2b-128k": 0.0})
    assert one.verdict == "inconclusive"
    assert one.reasons[0] == "1 model, of 3 needed"


def test_accuracies_of_random_weights_give_no_verdict_by_numbers() -> None:
    found = verdicts(paper_trials(accuracies(BOT25=0.9), weights="random"))
    assert of(found, "1c").by_numbers == "inconclusive"
    assert card(of(found, "1c")).outcome == "No trials to compare."


def test_equal_strategies_contradict_no_rank() -> None:
    found = verdicts(paper_trials(accuracies(0.0)))
    assert [of(found, name).verdict for name in ("8a", "8b", "8c", "9")] == ["inconclusive"] * 4


def test_each_reason_names_what_it_concerns() -> None:
    trials = paper_trials(memory, paper_strategies(), tasks=("tiny-mnli",))
    notes = evidence_notes(verdicts(trials))
    assert "Not evidence on claim 2d: no trials to compare for 2 of 2 parts." in notes
    assert not any(note.startswith("Not evidence on memory") for note in notes)


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
    assert shown.rule == "at least 0.0, margin 1.0"
    assert not shown.reading
    assert card(of(found, "10a")).reading
    assert [line.contrast for line in shown.lines] == ["BOT25 − ALL", "BOT50 − ALL"]
    assert shown.strategies == ("BOT25", "ALL", "BOT50")
    assert "ALL" in card(of(found, "2a")).strategies
    names = [verdict.verdict for verdict in found if not verdict.claim.reading]
    assert tally(found).startswith(f"Of the paper's {len(names)} claims, ")
    assert f"{names.count('inconclusive')} are inconclusive" in tally(found)
    assert tally(found).endswith("Of our 3 readings of its text, 2 are supported and 1 is inconclusive.")
    table = claims_layout(found)
    assert table.frame.height == sum(len(verdict.parts) for verdict in found)
    assert set(table.frame["verdict"]) <= set(VERDICTS)
    assert table.markdown().count("\n") == table.frame.height + 1
