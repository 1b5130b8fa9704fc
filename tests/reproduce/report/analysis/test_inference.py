"""The statistics against closed forms, textbooks, brute force, and planted effects."""

from __future__ import annotations

import itertools
import statistics

import numpy as np
import pytest
from scipy import stats

from reproduce.report.analysis.effects import ALL_MODELS, effects_data
from reproduce.report.analysis.inference import (
    Largest,
    Mean,
    Share,
    Smallest,
    can_reach,
    holm,
    mcnemar_p,
    mean_over_blocks,
    mean_over_experiments,
    signed_rank_p,
)
from tests.reproduce.report.analysis.test_aggregates import frame
from tests.reproduce.report.synthetic import grid, trial_row

# Darwin's fifteen pairs of maize plants, crossed minus self-fertilised, in eighths of an inch (Fisher, The
# Design of Experiments, 1935).
_MAIZE = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]


def test_darwins_maize_by_the_textbook() -> None:
    # Fisher: mean 20.93, t = 2.148 with 14 degrees of freedom; the 95 % interval is 0.03 to 41.84.
    for mean in (mean_over_experiments(np.array(_MAIZE, float)), mean_over_blocks([np.array(_MAIZE, float)])):
        assert mean.error is not None
        assert mean.value / mean.error == pytest.approx(2.148, abs=5e-4)
        assert mean.freedom == pytest.approx(14)
        assert mean.interval() == pytest.approx((0.0312, 41.8355), abs=1e-3)


def test_two_blocks_are_welchs_t_test() -> None:
    # The mean of two blocks' means has Welch's standard error and degrees of freedom.
    random = np.random.default_rng(1)
    first, second = random.normal(0, 1, 4), random.normal(0, 3, 9)
    mean = mean_over_blocks([first, second])
    ends = stats.ttest_ind(first, -second, equal_var=False).confidence_interval()
    assert mean.interval() == pytest.approx((ends.low / 2, ends.high / 2))


def test_the_examples_widen_an_interval() -> None:
    blocks = [np.array([0.0, 2.0]), np.array([1.0, 3.0])]
    # Variances 1 of each block's mean over seeds, 2 over examples: 4 / 2 ** 2 in all.
    mean = mean_over_blocks(blocks, 2.0)
    assert mean.error == pytest.approx(1.0)
    assert mean.freedom == pytest.approx(4**2 / (1 + 1))


def test_without_a_spread_there_is_no_interval_and_without_variation_a_point() -> None:
    assert mean_over_blocks([np.array([1.0, 2.0]), np.array([1.0])]).interval() is None
    assert mean_over_experiments(np.array([1.0])).interval() is None
    assert mean_over_experiments(np.zeros(15)).interval() is None
    assert mean_over_blocks([np.array([1.0, 2.0])], None).interval() is None
    assert mean_over_blocks([np.array([1.0, 1.0])]).interval() == (1.0, 1.0)


def test_the_smallest_mean_contains_its_value_and_bounds_all() -> None:
    means = tuple(Mean(value, 1.0) for value in (0.0, 0.1, 5.0))
    smallest = Smallest(means)
    assert smallest.value == 0.0
    # Lower ends at 95 %, upper ends at 1 - 0.05 / 3.
    assert smallest.interval() == pytest.approx((-1.95996, 2.39398), abs=1e-4)
    assert Smallest((Mean(0.0, 1.0), Mean(1.0, None))).interval() is None


def test_the_largest_mean_mirrors_the_smallest() -> None:
    largest = Largest((Mean(0.0, 1.0), Mean(-0.1, 1.0), Mean(-5.0, 1.0)))
    assert largest.value == 0.0
    assert largest.interval() == pytest.approx((-2.39398, 1.95996), abs=1e-4)


@pytest.mark.parametrize(("held", "n"), [(0, 5), (12, 15), (15, 15), (7, 15)])
def test_shares_have_the_exact_binomial_interval(held: int, n: int) -> None:
    ends = stats.binomtest(held, n).proportion_ci()
    assert Share(held, n).interval() == pytest.approx((ends.low, ends.high))


def test_signed_ranks_of_darwins_maize() -> None:
    # T = 24; 676 of the 2 ** 15 flips of signs have a sum of at most that.
    assert signed_rank_p(_MAIZE) == 2 * 676 / 2**15


def test_signed_ranks_with_ties_count_every_flip() -> None:
    values = [0.2, 0.2, -0.1, 0.3, 0.3, 0.1, 0.0, 0.5]
    ranks = stats.rankdata(np.abs([v for v in values if v]))
    observed = abs(sum(r * np.sign(v) for r, v in zip(ranks, [v for v in values if v], strict=True)))
    sums = [
        abs(sum(r * s for r, s in zip(ranks, signs, strict=True)))
        for signs in itertools.product((-1, 1), repeat=7)
    ]
    assert signed_rank_p(values) == pytest.approx(sum(s >= observed for s in sums) / 2**7)


def test_signed_ranks_without_a_difference() -> None:
    assert signed_rank_p([]) is None
    assert signed_rank_p([0.0, 1e-17]) == 1.0


def test_holms_textbook_values() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, None, 0.7]) == [1.0, None, 1.0]


def test_mcnemar_is_exact() -> None:
    # Of six examples on which they disagree, one goes to the first: 2 (1 + 6) / 2 ** 6.
    assert mcnemar_p(1, 5) == pytest.approx(14 / 64)
    assert mcnemar_p([0, 3], [0, 3]).tolist() == [1.0, 1.0]
    for first, second in ((0, 12), (30, 11), (4, 9)):
        expected = stats.binomtest(first, first + second).pvalue
        assert mcnemar_p(first, second) == pytest.approx(expected)


def test_which_signed_ranks_can_reach_the_level() -> None:
    # All n differences of one sign: 2 / 2 ** n, times 16 by Holm's first step.
    for n in range(1, 16):
        smallest = signed_rank_p([1.0 + place for place in range(n)])
        assert smallest is not None
        assert can_reach(n, 16) == (16 * smallest < 0.05)
    assert not can_reach(5, 1)
    assert can_reach(6, 1)


def test_differences_are_paired_by_seed() -> None:
    # Seeds differ by far more than strategies do; seed 44 has no ALL, seed 45 no BOT25.
    values = {("ALL", 42): 0.5, ("ALL", 43): 0.9, ("ALL", 45): 0.7}
    values |= {("BOT25", 42): 0.53, ("BOT25", 43): 0.91, ("BOT25", 44): 0.1}
    rows = [
        trial_row(s, "m", "t", seed, validation_accuracy=v, n_validation=10**9)
        for (s, seed), v in values.items()
    ]
    (row,) = effects_data(frame(*rows)).to_dicts()
    assert (row["strategy"], row["n"], row["n_blocks"]) == ("BOT25", 2, 1)
    assert row["difference"] == pytest.approx(0.02)
    # Two pairs, 0.03 and 0.01: t of one degree of freedom, 12.706, times a standard error of 0.01.
    assert (row["low"], row["high"]) == pytest.approx((0.02 - 0.12706, 0.02 + 0.12706), abs=1e-4)
    assert row["p_holm"] is None


def test_differences_average_blocks_and_take_them_apart() -> None:
    trials = frame(*grid(("a", "b"), ("t", "u"), ("ALL", "BOT25", "LoRA"), (42, 43, 44)))
    by_hand: dict[str, list[float]] = {"a": [], "b": []}
    rows = {
        (r["model"], r["task"], r["strategy"], r["seed"]): r["validation_accuracy"] for r in trials.to_dicts()
    }
    for model, task in itertools.product("ab", "tu"):
        pairs = [rows[model, task, "BOT25", s] - rows[model, task, "ALL", s] for s in (42, 43, 44)]
        by_hand[model].append(statistics.mean(pairs))
    found = {(r["model"], r["strategy"]): r for r in effects_data(trials).to_dicts()}
    whole = found[ALL_MODELS, "BOT25"]
    assert whole["difference"] == pytest.approx(statistics.mean(by_hand["a"] + by_hand["b"]))
    assert (whole["n"], whole["n_blocks"]) == (12, 4)
    assert whole["p"] == pytest.approx(signed_rank_p(by_hand["a"] + by_hand["b"]))
    for model in "ab":
        assert found[model, "BOT25"]["difference"] == pytest.approx(statistics.mean(by_hand[model]))
    assert effects_data(trials).equals(effects_data(trials))


def test_p_values_are_adjusted_over_the_strategies() -> None:
    tasks = [f"t{number:02}" for number in range(8)]
    trials = frame(*grid(("a",), tasks, ("ALL", "BOT25", "LoRA"), (42, 43)))
    found = {row["strategy"]: row for row in effects_data(trials).to_dicts()}
    assert [found[s]["p_holm"] for s in ("LoRA", "BOT25")] == holm([found[s]["p"] for s in ("LoRA", "BOT25")])


def test_one_seed_has_no_interval_and_no_reference_no_difference() -> None:
    one = effects_data(frame(*grid(strategies=("ALL", "BOT25"), seeds=(42,))))
    assert one["low"].null_count() == one["high"].null_count() == 1
    assert one["n"].to_list() == [2]
    assert effects_data(frame(trial_row("BOT25"))).height == 0
    assert effects_data(frame(trial_row("ALL"), trial_row("BOT25", status="oom")))["n"].sum() == 0
