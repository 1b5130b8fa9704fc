"""Kinds of premise-hypothesis pairs as forms: everything about a pair except its words.

A form fixes quantifiers, polarities and the level of each word in its taxonomy, but not the words
themselves. The relation between premise and hypothesis depends on the form alone.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from itertools import product
from typing import Any

from lfreeze.tiny.draws import Draws
from lfreeze.tiny.lexicon import HE, LEVELS, NOUN_CHAINS, SHE, VERB_CHAINS
from lfreeze.tiny.logic import (
    FACTIVE,
    NON_FACTIVE,
    QUANTIFIERS,
    Attitude,
    Both,
    Formula,
    Named,
    Quantified,
    Relation,
)

Form = tuple[Any, ...]
Pair = tuple[Formula, Formula]
_LEVELS = range(LEVELS)


@dataclass(frozen=True)
class Words:
    """The words for a form: chains of nouns and verbs for the subject of the pair, and others for the rest.

    ``other_nouns`` and ``other_verbs`` come from other trees than ``nouns`` and ``verbs``.
    """

    nouns: tuple[str, ...]
    verbs: tuple[str, ...]
    other_nouns: tuple[str, ...]
    other_verbs: tuple[str, ...]
    he: str
    she: str
    factive: str
    non_factive: str
    flip: bool
    others: tuple[int, int, int]

    @classmethod
    def draw(cls, draws: Draws) -> Words:
        nouns, other_nouns = _two_chains(NOUN_CHAINS, draws)
        verbs, other_verbs = _two_chains(VERB_CHAINS, draws)
        return cls(
            nouns,
            verbs,
            other_nouns,
            other_verbs,
            draws.choice(HE),
            draws.choice(SHE),
            draws.choice(FACTIVE),
            draws.choice(NON_FACTIVE),
            draws.below(2) == 1,
            (draws.below(len(QUANTIFIERS)), draws.below(LEVELS), draws.below(LEVELS)),
        )


def _two_chains(
    chains: tuple[tuple[str, str, str], ...], draws: Draws
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    first = draws.below(len(chains))
    per_tree = sum(chain[-1] == chains[first][-1] for chain in chains)
    start = first - first % per_tree
    other = (start + per_tree + draws.below(len(chains) - per_tree)) % len(chains)
    return chains[first], chains[other]


@dataclass(frozen=True)
class Family:
    """Forms of one kind.

    Attributes:
        forms: yields all forms.
        build: makes premise and hypothesis of a form and words.
        factors: the aspects of a form, none of which may reveal the relation by itself.
        relations: the relations that occur.
    """

    name: str
    forms: Callable[[], Iterable[Form]]
    build: Callable[[Form, Words], Pair]
    factors: Callable[[Form], tuple[Hashable, ...]]
    relations: tuple[Relation, ...] = ("entailment", "contradiction", "neutral")


# Form: quantifier, noun level and verb level of the premise, then of the hypothesis.
def _quantified(form: Form, w: Words) -> Pair:
    q1, l1, m1, q2, l2, m2 = form
    return Quantified(q1, w.nouns[l1], w.verbs[m1]), Quantified(q2, w.nouns[l2], w.verbs[m2])


def _quantified_factors(form: Form) -> tuple[Hashable, ...]:
    q1, l1, m1, q2, l2, m2 = form
    return (q1, l1), (q1, m1), (q2, l2), (q2, m2), (l1 == l2, m1 == m2, q1 == q2)


def _quantified_forms() -> Iterable[Form]:
    for form in product(QUANTIFIERS, _LEVELS, _LEVELS, QUANTIFIERS, _LEVELS, _LEVELS):
        # A sentence paired with itself would teach copying only.
        if form[:3] != form[3:]:
            yield form


QUANTIFIED = Family("quantified", _quantified_forms, _quantified, _quantified_factors)


# "every dog runs and rex is a poodle": "rex moves".
# Form: quantifier, its noun and verb level, the name's noun level; the hypothesis's verb level and polarity.
def _instance(form: Form, w: Words) -> Pair:
    q1, l1, m1, l2, m2, positive = form
    name = w.he if w.flip else w.she
    premise = Both(Quantified(q1, w.nouns[l1], w.verbs[m1]), Named(name, w.nouns[l2]))
    return premise, Named(name, w.verbs[m2], positive)


INSTANCE = Family(
    "instance",
    lambda: product(QUANTIFIERS, _LEVELS, _LEVELS, _LEVELS, _LEVELS, (True, False)),
    _instance,
    lambda f: ((f[0], f[1]), (f[0], f[2]), f[3], (f[4], f[5]), (f[1] == f[3], f[2] == f[4])),
)


# "ann is a poodle and ben is a taxi and she runs": "ann moves", "some taxi runs". The hypothesis follows if it is
# about the pronoun's referent and is open if it is about the other one. It is negated if and only if the premise is.
# Form: noun levels of the referent and of the other; verb level and polarity of the premise; whether the
# hypothesis is about the referent; whether it uses the name or the noun; its verb level.
def _pronoun(form: Form, w: Words) -> Pair:
    l1, l_other, m1, positive, meant, named, m2 = form
    name, other = (w.he, w.she) if w.flip else (w.she, w.he)
    here, there = Named(name, w.nouns[l1]), Named(other, w.other_nouns[l_other])
    first, second = (here, there) if w.others[0] % 2 else (there, here)
    premise = Both(Both(first, second), Named(name, w.verbs[m1], positive, by_pronoun=True))
    if named:
        return premise, Named(name if meant else other, w.verbs[m2], positive)
    noun = w.nouns[l1] if meant else w.other_nouns[l_other]
    return premise, Quantified("some" if positive else "some not", noun, w.verbs[m2])


def _pronoun_forms() -> Iterable[Form]:
    flags = (True, False)
    for form in product(_LEVELS, _LEVELS, _LEVELS, flags, flags, flags, _LEVELS):
        _, _, m1, positive, _, _, m2 = form
        if m1 <= m2 if positive else m1 >= m2:
            yield form


PRONOUN = Family(
    "pronoun",
    _pronoun_forms,
    _pronoun,
    lambda f: ((f[2], f[3], f[6]), (f[0], f[3]), f[1], (f[3], f[5], f[6])),
    ("entailment", "neutral"),
)


# "ann is a poodle and she runs": "some dog moves", "ann does not move". The pronoun links the
# verb to the noun. Form: noun level, verb level and polarity of the premise; the hypothesis's manner (a
# quantifier, or the name with a polarity), its noun and verb level.
def _anaphora(form: Form, w: Words) -> Pair:
    l1, m1, positive, manner, l2, m2 = form
    name = w.he if w.flip else w.she
    premise = Both(Named(name, w.nouns[l1]), Named(name, w.verbs[m1], positive, by_pronoun=True))
    if isinstance(manner, bool):
        return premise, Named(name, w.verbs[m2], manner)
    return premise, Quantified(manner, w.nouns[l2], w.verbs[m2])


def _anaphora_forms() -> Iterable[Form]:
    for premise in product(_LEVELS, _LEVELS, (True, False)):
        for m2 in _LEVELS:
            for manner in (True, False):
                yield *premise, manner, 0, m2
            # Facts about one individual entail no "every" and no "no": these words would reveal the label.
            for quantifier, l2 in product(("some", "some not", "not every"), _LEVELS):
                yield *premise, quantifier, l2, m2


ANAPHORA = Family(
    "anaphora",
    _anaphora_forms,
    _anaphora,
    lambda f: ((f[2], f[0]), (f[2], f[1]), (f[3], f[4]), (f[3], f[5]), (f[0] == f[4], f[1] == f[5])),
)


# "ann knows that every dog runs and ben hopes that no taxi sings": "some poodle moves".
# Form: a form of QUANTIFIED, and whether a factive verb governs the clause that the hypothesis is about.
def _attitude(form: Form, w: Words) -> Pair:
    *inner, factive = form
    clause, hypothesis = _quantified(tuple(inner), w)
    assert isinstance(clause, Quantified)
    quantifier, noun_level, verb_level = w.others
    unrelated = Quantified(QUANTIFIERS[quantifier], w.other_nouns[noun_level], w.other_verbs[verb_level])
    holders = (w.he, w.she) if w.flip else (w.she, w.he)
    about = Attitude(holders[0], w.factive if factive else w.non_factive, clause)
    rest = Attitude(holders[1], w.non_factive if factive else w.factive, unrelated)
    return (Both(about, rest) if noun_level % 2 else Both(rest, about)), hypothesis


ATTITUDE = Family(
    "attitude",
    lambda: ((*form, factive) for form in _quantified_forms() for factive in (True, False)),
    _attitude,
    lambda f: _quantified_factors(f[:6]),
)
