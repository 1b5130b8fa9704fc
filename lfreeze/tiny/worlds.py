"""Finite worlds and truth in them: the models of the logic, and the subject of some texts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations, product

from lfreeze.tiny.lexicon import exclude, is_below, is_noun
from lfreeze.tiny.logic import FACTIVE, Attitude, Both, Formula, Named, Quantified


@dataclass(frozen=True)
class World:
    """Individuals, each given as the set of words that are true of it, and the bearers of the names.

    Attributes:
        attitudes: the attitudes that individuals have, whether or not their clauses are true.
    """

    individuals: tuple[frozenset[str], ...]
    names: Mapping[str, int]
    attitudes: frozenset[Attitude] = frozenset()

    def holds(self, formula: Formula) -> bool:
        """The truth value of a formula, by the definition of each operator."""
        match formula:
            case Quantified(quantifier, noun, verb):
                has_verb = [verb in words for words in self.individuals if noun in words]
                truth = {
                    "every": all(has_verb),
                    "some": any(has_verb),
                    "no": not any(has_verb),
                    "not every": not all(has_verb),
                    "some not": not all(has_verb),
                }
                return truth[quantifier]
            case Named(name, predicate, positive):
                return (predicate in self.individuals[self.names[name]]) == positive
            case Attitude(_, verb, clause):
                return formula in self.attitudes and (verb not in FACTIVE or self.holds(clause))
            case Both(left, right):
                return self.holds(left) and self.holds(right)


def permitted(words: Iterable[str], vocabulary: Iterable[str]) -> bool:
    """Whether exactly ``words``, of all words in ``vocabulary``, can be true of one individual."""
    chosen = frozenset(words)
    if any(exclude(a, b) for a, b in combinations(sorted(chosen), 2)):
        return False
    return not any(is_below(word, other) for word in chosen for other in set(vocabulary) - chosen)


def all_worlds(
    vocabulary: Iterable[str], names: Iterable[str], attitudes: Iterable[Attitude], largest: int
) -> Iterator[World]:
    """Every world of 1 to ``largest`` individuals that obeys the postulates and gives every noun a bearer.

    Individuals with equal words are interchangeable except for their number; worlds that differ only in
    the order of individuals are yielded once.
    """
    words, who = sorted(set(vocabulary)), sorted(set(names))
    kinds = [
        frozenset(kind)
        for size in range(len(words) + 1)
        for kind in combinations(words, size)
        if permitted(kind, words)
    ]
    stances = sorted(set(attitudes), key=repr)
    held = [frozenset(s) for size in range(len(stances) + 1) for s in combinations(stances, size)]
    for size in range(1, largest + 1):
        for population in product(range(len(kinds)), repeat=size):
            if list(population) != sorted(population):
                continue
            individuals = tuple(kinds[kind] for kind in population)
            if not all(any(word in one for one in individuals) for word in words if is_noun(word)):
                continue
            for bearers in product(range(size), repeat=len(who)):
                for some in held:
                    yield World(individuals, dict(zip(who, bearers, strict=True)), some)
