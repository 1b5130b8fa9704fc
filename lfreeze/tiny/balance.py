"""Weights for forms under which no single aspect of a form gives the relation away.

Iterative proportional fitting: the weights are scaled until every aspect (the hypothesis's quantifier,
the overlap of the words, ...) is independent of the relation, and the relations have the wanted shares.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from lfreeze.tiny.draws import Draws
from lfreeze.tiny.forms import Family, Form, Pair, Words
from lfreeze.tiny.logic import Relation, relation

_ROUNDS = 60
# Weights become integers, so that draws cannot depend on a platform's rounding.
_SCALE = 10_000_000


@dataclass(frozen=True)
class WeightedForms:
    """Forms of a family by their relation, and the running sums of their integer weights."""

    family: Family
    forms: Mapping[Relation, tuple[Form, ...]]
    cumulative: Mapping[Relation, tuple[int, ...]]

    def draw(self, relation: Relation, draws: Draws) -> Pair:
        """A premise and hypothesis that stand in ``relation``."""
        form = self.forms[relation][draws.weighted(self.cumulative[relation])]
        return self.family.build(form, Words.draw(draws))


def weighted_forms(family: Family, shares: Mapping[Relation, int]) -> WeightedForms:
    """The family's forms, weighted so that relations have ``shares`` and aspects do not tell them."""
    return _weighted_forms(family, tuple(sorted(shares.items())))


@lru_cache(maxsize=32)
def _weighted_forms(family: Family, shares: tuple[tuple[Relation, int], ...]) -> WeightedForms:
    forms, relations = _labelled(family)
    names = [name for name, _ in shares]
    label = np.array([names.index(name) for name in relations])
    target = np.array([share for _, share in shares]) / sum(share for _, share in shares)
    weight = np.full(len(forms), 1 / len(forms))
    columns = list(zip(*map(family.factors, forms), strict=True))
    cells = []
    for column in columns:
        values = {value: number for number, value in enumerate(dict.fromkeys(column))}
        value = np.array([values[entry] for entry in column])
        cells.append((value, label * len(values) + value, len(values)))
    for _ in range(_ROUNDS):
        for value, cell, n_values in cells:
            of_value = np.bincount(value, weight, n_values)
            of_cell = np.bincount(cell, weight, n_values * len(target))
            weight *= target[label] * of_value[value] / of_cell[cell]
        weight /= weight.sum()
    integers = np.rint(weight * _SCALE).astype(np.int64)
    chosen = {name: np.flatnonzero((label == number) & (integers > 0)) for number, name in enumerate(names)}
    return WeightedForms(
        family,
        {name: tuple(forms[i] for i in places) for name, places in chosen.items()},
        {name: tuple(np.cumsum(integers[places]).tolist()) for name, places in chosen.items()},
    )


@lru_cache(maxsize=8)
def _labelled(family: Family) -> tuple[tuple[Form, ...], tuple[Relation, ...]]:
    words = Words.draw(Draws("words"))
    forms = tuple(family.forms())
    return forms, tuple(relation(*family.build(form, words)) for form in forms)
