"""Weights for forms under which no single aspect of a form reveals the relation.

Iterative proportional fitting: the weights are scaled until every aspect (the hypothesis's quantifier,
the overlap of the words, ...) is independent of the relation, and the relations have the given shares.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from lfreeze.tiny.draws import Draws
from lfreeze.tiny.forms import Family, Form, Pair, Words
from lfreeze.tiny.grammar import clause
from lfreeze.tiny.lexicon import LEVELS, NOUN_CHAINS, VERB_CHAINS, is_noun, level
from lfreeze.tiny.logic import Formula, Relation, predicates, relation

_ROUNDS = 60
# Weights are converted to integers, so that draws cannot depend on a platform's rounding.
_SCALE = 10_000_000


@dataclass(frozen=True)
class WeightedForms:
    """Forms of a family by their relation, and the running sums of their integer weights."""

    family: Family
    forms: Mapping[Relation, tuple[Form, ...]]
    cumulative: Mapping[Relation, tuple[int, ...]]

    def draw(self, relation: Relation, draws: Draws) -> Pair:
        """A premise and hypothesis with the given relation."""
        form = self.forms[relation][draws.weighted(self.cumulative[relation])]
        return self.family.build(form, Words.draw(draws))


def weighted_forms(family: Family, shares: Mapping[Relation, int]) -> WeightedForms:
    """The family's forms, weighted so that relations have ``shares`` and no aspect reveals them."""
    return _weighted_forms(family, tuple(sorted(shares.items())))


@lru_cache(maxsize=32)
def _weighted_forms(family: Family, shares: tuple[tuple[Relation, int], ...]) -> WeightedForms:
    forms, pairs = tuple(family.forms()), _filled(family)
    names = [name for name, _ in shares]
    label = np.array([names.index(relation(*pair)) for pair in pairs])
    target = np.array([share for _, share in shares]) / sum(share for _, share in shares)
    weight = np.array([_fillings(*pair) for pair in pairs], dtype=float)
    columns = [*zip(*map(family.factors, forms), strict=True), [_overlap(*pair) for pair in pairs]]
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
def _filled(family: Family) -> tuple[Pair, ...]:
    """Every form with the same words; which words does not matter."""
    words = Words.draw(Draws("words"))
    return tuple(family.build(form, words) for form in family.forms())


def _overlap(premise: Formula, hypothesis: Formula) -> tuple[int, int]:
    """How many of the hypothesis's words are in the premise, and how many are not."""
    present, needed = set(clause(premise).split()), set(clause(hypothesis).split())
    return len(needed & present), len(needed - present)


def _fillings(premise: Formula, hypothesis: Formula) -> int:
    """In how many ways the pair's most specific noun and verb can be chosen.

    Forms start with this weight, so that pairs of general words, which are few, are not repeated often.
    """
    lowest = [LEVELS - 1, LEVELS - 1]
    for word in predicates(premise) | predicates(hypothesis):
        lowest[is_noun(word)] = min(lowest[is_noun(word)], level(word))
    verbs, nouns = lowest
    return len({chain[nouns] for chain in NOUN_CHAINS}) * len({chain[verbs] for chain in VERB_CHAINS})
