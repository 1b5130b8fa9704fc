"""Checks what each row says of its own trial: its identity, and the proof that freezing did what it should."""

from __future__ import annotations

import polars as pl

from lfreeze.errors import StrategyError
from lfreeze.strategy import Strategy
from reproduce.store.row_spec import spec_of
from reproduce.store.trial_row import TRIAL_COLUMNS
from reproduce.verify.differences import CELL, names
from reproduce.verify.numbers import Check

_PROOFS = {
    "frozen_unchanged": "frozen weights changed",
    "every_trainable_got_gradient": "a trainable weight got no gradient",
    "optimiser_holds_trainable": "the optimiser held other weights than the trainable ones",
}


def freezing(ok: pl.DataFrame) -> Check:
    """Every trial proved that the right weights trained, and its backward pass ended where it was planned."""
    faults = [(~pl.col(name), text) for name, text in _PROOFS.items()]
    faults.append(
        (
            pl.col("backward_depth") != pl.col("planned_backward_depth"),
            "the backward pass was not as deep as planned",
        )
    )
    reason = pl.coalesce(*(pl.when(fault).then(pl.lit(text)) for fault, text in faults))
    wrong = ok.with_columns(reason=reason).drop_nulls("reason").sort(CELL)
    sentence = (
        f"of {ok.height:,} trials, {ok.height - wrong.height:,} prove that only the right weights trained"
    )
    details = names(wrong.select(CELL).rows(), after=[f": {text}" for text in wrong["reason"]])
    return Check("freezing", wrong.is_empty(), sentence, details)


def _is_known(strategy: str) -> bool:
    try:
        Strategy.parse(strategy)
    except StrategyError:
        return False
    return True


def identities(ok: pl.DataFrame) -> Check:
    """Every row's run id is the hash of its factors, its recipe and its inputs, as far as its strategy is known here."""
    checked = ok.filter(
        pl.col("strategy").is_in([name for name in ok["strategy"].unique() if _is_known(name)])
    )
    rows = checked.select(*TRIAL_COLUMNS).sort(CELL).iter_rows(named=True)
    wrong = [row for row in rows if spec_of(row) is None]
    sentence = f"of {checked.height:,} run ids, {checked.height - len(wrong):,} are those of their factors, recipe and inputs"
    if unknown := ok.height - checked.height:
        sentence += f"; {unknown:,} of strategies that are not installed here were not checked"
    return Check("run ids", not wrong, sentence, names([tuple(row[name] for name in CELL) for row in wrong]))
