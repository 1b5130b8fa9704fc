"""The statistics against closed forms, textbooks, brute force, and planted effects."""

from __future__ import annotations

import itertools
import statistics

import numpy as np
import pytest
from scipy import stats

from reproduce.report.analysis import inference
from reproduce.report.analysis.aggregates import ranking
from reproduce.report.analysis.inference import (
    differences,
    holm,
    mcnemar_p,
    percentile_interval,
    ranking_samples,
    resampled_means,
    signed_rank_p,
    stratified_bootstrap,
)
from tests.reproduce.report.analysis.test_aggregates import frame
from tests.reproduce.report.synthetic import grid, trial_row

# Darwin's fifteen pairs of maize plants, crossed minus self-fertilised, in eighths of an inch (Fisher, The
# Design of Experiments, 1935).
_MAIZE = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]


def _blocks(random: np.random.Generator, effect: float = 0.0, columns: int = 1) -> list[inference.Array]:
    """Differences in 15 experiments of 5 seeds, each experiment with a spread of its own."""
    return [effect + random.normal(0, random.uniform(0.01, 0.05), (5, columns)) for _ in range(15)]


@pytest.mark.parametrize("sizes", [[5] * 15, [3, 8, 2], [40]])
def test_the_bootstrap_has_the_normal_models_spread(sizes: list[int]) -> None:
    random = np.random.default_rng(1)
    blocks = [random.normal(3, 1 + place, (n, 1)) for place, n in enumerate(sizes)]
    samples = stratified_bootstrap(blocks, np.random.default_rng(2), 40_000)[:, 0]
    closed = sum(block.var(ddof=1) / len(block) for block in blocks) ** 0.5 / len(blocks)
    assert samples.std() == pytest.approx(closed, rel=0.02)
    assert samples.mean() == pytest.approx(np.mean([block.mean() for block in blocks]), abs=0.02 * closed)
    if min(sizes) >= 5:
        low, high = percentile_interval(samples)
        assert (high - low) / 2 == pytest.approx(1.96 * closed, rel=0.04)


def test_a_block_with_gaps_is_resampled_over_what_there_is() -> None:
    values = np.array([[1.0, np.nan], [3.0, 5.0], [5.0, np.nan]])
    samples = resampled_means(values, np.random.default_rng(0), 2000)
    assert set(samples[:, 1]) == {5.0}
    assert samples[:, 0].mean() == pytest.approx(3.0, abs=0.1)
    assert set(resampled_means(values[:1], np.random.default_rng(0), 10)[:, 0]) == {1.0}


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


def test_a_planted_null_is_seldom_taken_for_an_effect() -> None:
    random = np.random.default_rng(7)
    excluded = family = 0
    for _ in range(200):
        blocks = _blocks(random, columns=16)
        low, high = percentile_interval(stratified_bootstrap(blocks, random, 1000)[:, 0])
        excluded += not low <= 0 <= high
        adjusted = holm([signed_rank_p([block[:, k].mean() for block in blocks]) for k in range(16)])
        family += any(p is not None and p < 0.05 for p in adjusted)
    # 5 % is the nominal rate; above these counts there is less than one chance in a thousand.
    bound = stats.binom.ppf(0.999, 200, 0.05)
    assert excluded <= bound
    assert family <= bound


def test_a_planted_effect_is_found() -> None:
    random = np.random.default_rng(8)
    found = 0
    for _ in range(200):
        blocks = _blocks(random, effect=-0.02)
        _, high = percentile_interval(stratified_bootstrap(blocks, random, 1000)[:, 0])
        found += high < 0 and (signed_rank_p([block.mean() for block in blocks]) or 1) < 0.05
    assert found >= 190


def test_differences_are_paired_by_seed() -> None:
    # Seeds differ by far more than strategies do; seed 44 has no ALL, seed 45 no BOT25.
    values = {("ALL", 42): 0.5, ("ALL", 43): 0.9, ("ALL", 45): 0.7}
    values |= {("BOT25", 42): 0.53, ("BOT25", 43): 0.91, ("BOT25", 44): 0.1}
    rows = [trial_row(s, "m", "t", seed, validation_accuracy=v) for (s, seed), v in values.items()]
    (row,) = differences(frame(*rows)).to_dicts()
    assert (row["strategy"], row["n"], row["n_blocks"]) == ("BOT25", 2, 1)
    assert row["difference"] == pytest.approx(0.02)
    # Two pairs: a draw of one of the two, so that the interval reaches from the one to the other.
    assert (row["low"], row["high"]) == pytest.approx((0.01, 0.03))


def test_differences_average_blocks_and_take_them_apart() -> None:
    trials = frame(*grid(("a", "b"), ("t", "u"), ("ALL", "BOT25", "LoRA"), (42, 43, 44)))
    by_hand: dict[str, list[float]] = {"a": [], "b": []}
    rows = {
        (r["model"], r["task"], r["strategy"], r["seed"]): r["validation_accuracy"] for r in trials.to_dicts()
    }
    for model, task in itertools.product("ab", "tu"):
        pairs = [rows[model, task, "BOT25", s] - rows[model, task, "ALL", s] for s in (42, 43, 44)]
        by_hand[model].append(statistics.mean(pairs))
    whole = {r["strategy"]: r for r in differences(trials).to_dicts()}
    assert whole["BOT25"]["difference"] == pytest.approx(statistics.mean(by_hand["a"] + by_hand["b"]))
    assert (whole["BOT25"]["n"], whole["BOT25"]["n_blocks"]) == (12, 4)
    assert whole["BOT25"]["p"] == signed_rank_p(by_hand["a"] + by_hand["b"])
    assert [whole[s]["p_holm"] for s in ("LoRA", "BOT25")] == holm([whole[s]["p"] for s in ("LoRA", "BOT25")])
    apart = {(r["model"], r["strategy"]): r for r in differences(trials, by=["model"]).to_dicts()}
    for model in "ab":
        assert apart[model, "BOT25"]["difference"] == pytest.approx(statistics.mean(by_hand[model]))
    assert differences(trials).equals(differences(trials))


def test_one_seed_has_no_interval_and_no_reference_no_difference() -> None:
    one = differences(frame(*grid(strategies=("ALL", "BOT25"), seeds=(42,))))
    assert one["low"].null_count() == one["high"].null_count() == 1
    assert one["n"].to_list() == [2]
    assert differences(frame(trial_row("BOT25"))).height == 0
    assert differences(frame(trial_row("ALL"), trial_row("BOT25", status="oom"))).height == 0


def test_ranking_samples_without_spread_are_the_ranking() -> None:
    rows = [
        trial_row(strategy, "m", task, seed, validation_accuracy=value)
        for task, values in (("t", (0.5, 0.7, 0.7)), ("u", (0.9, 0.8, 0.1)))
        for strategy, value in zip(("ALL", "BOT25", "LoRA"), values, strict=True)
        for seed in (42, 43)
    ]
    names, samples = ranking_samples(frame(*rows), repetitions=5)
    scores = dict(ranking(frame(*rows)).select("strategy", "score").iter_rows())
    assert samples.tolist() == [[scores[name] for name in names]] * 5
