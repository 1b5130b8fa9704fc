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
    """Forms of a family, each with its relation, and the running sums of their integer weights."""

    family: Family
    forms: tuple[Form, ...]
    relations: tuple[Relation, ...]
    cumulative: tuple[int, ...]

    def draw(self, draws: Draws) -> tuple[Pair, Relation]:
        """A premise and hypothesis, and the relation between them."""
        index = draws.weighted(self.cumulative)
        return self.family.build(self.forms[index], Words.draw(draws)), self.relations[index]


def weighted_forms(family: Family, shares: Mapping[Relation, float]) -> WeightedForms:
    """The family's forms, weighted so that relations have ``shares`` and aspects do not tell them."""
    return _weighted_forms(family, tuple(sorted(shares.items())))


@lru_cache(maxsize=32)
def _weighted_forms(family: Family, shares: tuple[tuple[Relation, float], ...]) -> WeightedForms:
    forms, relations = _labelled(family)
    names = [name for name, _ in shares]
    label = np.array([names.index(name) for name in relations])
    target = np.array([share for _, share in shares])
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
    cumulative = np.cumsum(np.rint(weight * _SCALE).astype(np.int64))
    return WeightedForms(family, forms, relations, tuple(cumulative.tolist()))


@lru_cache(maxsize=8)
def _labelled(family: Family) -> tuple[tuple[Form, ...], tuple[Relation, ...]]:
    words = Words.draw(Draws("words"))
    forms = tuple(family.forms())
    return forms, tuple(relation(*family.build(form, words)) for form in forms)
