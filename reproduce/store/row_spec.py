"""The trial that a row says it is of: its factors, recipe and inputs, from which its run id follows."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from lfreeze.errors import InputError
from reproduce.plan.spec import Factors, Inputs, TrialSpec
from reproduce.store.trial_row import TrialRow

# What stood between two texts, before rows recorded it: nothing, a line break, or an end-of-text token.
_EARLIER_SEPARATORS = ("", "\n", "<|endoftext|>", "</s>", "<eos>")


def spec_of(row: Mapping[str, Any]) -> TrialSpec | None:
    """The trial of a row's columns; None if the run id is not the hash of its factors, recipe and inputs."""
    try:
        specs = _specs(TrialRow.from_columns(row))
    except (InputError, ValueError, TypeError):
        return None
    return next((spec for spec in specs if row["run_id"] in spec.all_run_ids), None)


def _specs(row: TrialRow) -> list[TrialSpec]:
    """The trial of a row; several where the row does not say what stood between the texts."""
    fields = {field.name for field in dataclasses.fields(Inputs)} - {"pair_separator"}
    known = {name: getattr(row, name) for name in fields}
    factors = Factors(row.model, row.task, row.strategy, row.seed)
    separators = _EARLIER_SEPARATORS if row.pair_separator is None else (row.pair_separator,)
    return [
        TrialSpec(factors, row.recipe, Inputs(**known, pair_separator=separator), row.space)
        for separator in separators
    ]
