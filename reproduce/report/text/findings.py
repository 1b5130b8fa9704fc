"""The report's sentences: headline, main findings, notices, freeze proof. Every number has its n."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from reproduce.report.analysis.aggregates import ranking, timed_devices
from reproduce.report.analysis.paper_figures import shared_experiments
from reproduce.report.analysis.report_data import ReportData
from reproduce.report.analysis.tables import table_tasks
from reproduce.report.formatting import listed, n_is, number, plural
from reproduce.report.strategy_order import BASELINE, experiments, is_tiny, strategies_in_order
from reproduce.report.text.grid import grid_notice

_CHECKS = {
    "frozen tensors stayed bit-identical": pl.col("frozen_unchanged"),
    "every trainable tensor received a gradient": pl.col("every_trainable_got_gradient"),
    "the optimiser held exactly the trainable tensors": pl.col("optimiser_holds_trainable"),
    "the measured backward depth equalled the planned one": pl.col("backward_depth")
    == pl.col("planned_backward_depth"),
}


@dataclass(frozen=True)
class FreezeCheck:
    """One check of the freeze proof: the number of successful trials for which it held."""

    statement: str
    held: int
    checked: int
    total: int
    broken: tuple[str, ...]

    @property
    def good(self) -> bool:
        return self.held == self.checked == self.total

    @property
    def sentence(self) -> str:
        unknown = self.total - self.checked
        text = f"{self.statement}: in {self.held:,} of {plural(self.checked, 'trial')}"
        if unknown:
            text += f" (not recorded in {unknown:,} more)"
        return text + (f"; not in {listed(list(self.broken))}" if self.broken else "")


def headline(report_data: ReportData) -> str:
    """What was run, in one sentence."""
    trials = report_data.every
    text = f"{report_data.ok:,} of {plural(report_data.total, 'trial')} succeeded"
    if not trials.height:
        return text + "."
    strategies = strategies_in_order(trials["strategy"])
    parts = [
        listed(strategies) if len(strategies) <= 3 else plural(len(strategies), "strategy"),
        listed(sorted(set(trials["model"]))),
        listed(sorted(set(trials["task"]))),
        plural(trials["seed"].n_unique(), "seed"),
    ]
    if report_data.grid:
        count = len(report_data.grid.points)
        parts.append(f"{plural(count, 'value')} of {listed(list(report_data.grid.names))}")
    devices = trials["gpu_name"].fill_null(trials["device"].replace("cpu", "CPU")).drop_nulls()
    where = f", on {listed(sorted(set(devices)))}" if devices.len() else ""
    return f"{text}: {' × '.join(parts)}{where}."


def findings(report_data: ReportData) -> list[str]:
    """The highest ranks of the paper's strategies, in one sentence; empty unless all of them can be ranked."""
    # A ranking of accuracies with random weights is meaningless.
    scores = ranking(report_data.trials.filter(pl.col("weights") == "pretrained"))
    scores = scores.filter(pl.col("group") == "paper")
    if not scores.height or not scores["complete"].all() or scores["score"].n_unique() == 1:
        return []
    best = [
        f"{row['strategy']} ({number(row['score'], 2)}, {n_is(row['n'])})"
        for row in scores.head(3).to_dicts()
    ]
    return [f"Highest ranking scores: {listed(best)}."]


def notices(report_data: ReportData) -> list[str]:
    """What limits the validity of the figures, one sentence each."""
    trials, texts = report_data.every, []
    texts += [grid_notice(report_data.grid)] if report_data.grid else []
    models = sorted(set(trials["model"]))
    tiny = [model for model in models if is_tiny(model)]
    if tiny:
        texts.append(
            f"{listed(tiny)} {'is a miniature that comes' if len(tiny) == 1 else 'are miniatures that come'} "
            f"with this package: {'its' if len(tiny) == 1 else 'their'} results show that the program works and "
            "are not evidence for or against the paper."
        )
    random = trials.filter(pl.col("weights") == "random")
    if random.height:
        texts.append(
            f"{plural(random.height, 'trial')} with random weights ({listed(sorted(set(random['model'])))}): speed "
            "and memory do not depend on the weights, but accuracies mean nothing and are not ranked."
        )
    if report_data.total > report_data.ok:
        counts = {
            "failed": report_data.failed,
            "skipped since they do not fit the GPUs": report_data.skipped,
            "damaged": len(report_data.damaged),
            "missing": len(report_data.missing),
        }
        parts = [f"{count:,} {name}" for name, count in counts.items() if count]
        texts.append(
            f"{report_data.total - report_data.ok:,} of {plural(report_data.total, 'trial')} have no result "
            f"({', '.join(parts)}); "
            "each is listed with its reason under “Trials without a result”."
        )
    if report_data.unreadable:
        texts.append(
            f"Files of {listed(sorted(report_data.unreadable))} are damaged; results that need them are omitted."
        )
    broken = sorted({name for check in freeze_proof(report_data) for name in check.broken})
    if broken:
        texts.append(
            f"The freeze proof fails for {plural(len(broken), 'trial')} ({listed(broken)}): "
            "what was trained is not what the strategy specifies."
        )
    for row in table_tasks(trials).drop_nulls("benchmark_train").to_dicts():
        for split in ("train", "validation"):
            loaded, official = row[f"n_{split}_available"], row[f"benchmark_{split}"]
            if loaded != official:
                name = "training" if split == "train" else split
                texts.append(
                    f"The {name} split of {row['task']} has {loaded:,} examples here, officially {official:,}."
                )
    shared = shared_experiments(report_data.trials)
    if shared:
        pairs = listed([f"{model} · {task}" for model, task in shared])
        which = "in every experiment" if len(shared) == len(experiments(trials)) else f"for {pairs}"
        texts.append(
            f"Speed was measured while other trials used the same device (marked ▲, {which}). Memory and "
            "accuracy are not affected; compare step times with care."
        )
    devices = timed_devices(report_data.trials)
    if devices:
        texts.append(
            f"Times were measured on {plural(len(devices), 'kind')} of devices ({listed(devices)}): each experiment uses "
            "those of one kind, and times are not comparable between experiments."
        )
    if trials.height and BASELINE not in set(trials.filter(pl.col("status") == "ok")["strategy"]):
        texts.append(
            f"No trial of {BASELINE} has a result, so savings against {BASELINE} cannot be computed."
        )
    if report_data.repeated:
        texts.append(
            f"{plural(report_data.repeated, 'trial')} repeat{'s' if report_data.repeated == 1 else ''} a model, task, "
            "strategy and "
            "seed of another: the folder named first is used and, for speed, the trial with exclusive use of "
            "its device."
        )
    varying = varying_recipe(report_data.trials)
    if varying:
        texts.append(f"The trials do not have the same recipe; they differ in {listed(varying)}.")
    if trials["memory_method"].drop_nulls().n_unique() > 1:
        texts.append(
            "Memory was measured by more than one method; compare memory only between trials on the same device."
        )
    return texts


def varying_recipe(trials: pl.DataFrame) -> list[str]:
    """The recipe fields that differ between trials."""
    names = [name for name in trials.columns if name.startswith("recipe_")]
    return [name.removeprefix("recipe_") for name in names if trials[name].n_unique() > 1]


def freeze_proof(report_data: ReportData) -> list[FreezeCheck]:
    """The checks that frozen parameters stayed frozen, over all successful trials."""
    trials = report_data.every.filter(pl.col("status") == "ok")
    checks = []
    for statement, held in _CHECKS.items():
        known = trials.filter(held.is_not_null())
        broken = known.filter(~held)
        names = [
            f"{r['strategy']} ({r['model']}, {r['task']}, seed {r['seed']})"
            for r in broken.iter_rows(named=True)
        ]
        checks.append(
            FreezeCheck(statement, known.height - broken.height, known.height, trials.height, tuple(names))
        )
    return checks if trials.height else []
