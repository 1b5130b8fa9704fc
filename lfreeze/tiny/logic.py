"""Formulas of the language and a decision procedure for entailment between them.

Worlds are finite models of monadic first-order logic that obey the lexicon's postulates. Nouns have
existential import: in every world each noun that occurs is true of some individual; verbs may be true of
none. Every name has a bearer; two names may share one, which no sentence of the language can express.

The decision is exact and does not search through worlds. For these formulas an individual is determined by
its *profile*: the set of occurring predicates that are true of it. A conjunction of universal, existential
and name conditions holds in some world if and only if every existential and every name still has a
possible profile once the universals have excluded theirs: a world with one individual for each satisfies
it. A set of profiles is an integer with one bit per profile.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from lfreeze.tiny.lexicon import exclude, is_below, is_noun

Relation = Literal["entailment", "contradiction", "neutral"]
Quantifier = Literal["every", "some", "no", "not every", "some not"]
QUANTIFIERS: tuple[Quantifier, ...] = ("every", "some", "no", "not every", "some not")
FACTIVE = ("knows", "sees")
NON_FACTIVE = ("hopes", "says")


@dataclass(frozen=True)
class Quantified:
    """``every dog runs``: a quantifier, a noun, a verb."""

    quantifier: Quantifier
    noun: str
    verb: str


@dataclass(frozen=True)
class Named:
    """``rex runs``, ``rex is not a dog``: a predicate affirmed or denied of a name.

    With ``by_pronoun`` the text has ``he`` or ``she``; ``name`` is the pronoun's referent.
    """

    name: str
    predicate: str
    positive: bool = True
    by_pronoun: bool = False


@dataclass(frozen=True)
class Attitude:
    """``ann knows that ...``: a factive verb implies its clause, other verbs leave it open."""

    name: str
    verb: str
    clause: Quantified


@dataclass(frozen=True)
class Both:
    """A conjunction of two sentences."""

    left: Formula
    right: Formula


Formula = Quantified | Named | Attitude | Both


@dataclass(frozen=True)
class _Case:
    """One conjunction of conditions.

    Attributes:
        allowed: profiles that any individual may have.
        required: sets of profiles, of each of which some individual must have one.
        names: sets of profiles for the bearers of names.
        facts: attitudes with their truth values.
    """

    allowed: int
    required: tuple[int, ...] = ()
    names: tuple[tuple[str, int], ...] = ()
    facts: tuple[tuple[Attitude, bool], ...] = ()

    def meet(self, other: _Case) -> _Case:
        return _Case(
            self.allowed & other.allowed,
            self.required + other.required,
            self.names + other.names,
            self.facts + other.facts,
        )

    def holds_somewhere(self) -> bool:
        bearers: dict[str, int] = {}
        for name, profiles in self.names:
            bearers[name] = bearers.get(name, self.allowed) & profiles
        facts = dict(self.facts)
        return (
            all(self.allowed & profiles for profiles in self.required)
            and all(bearers.values())
            and all(facts[fact] == truth for fact, truth in self.facts)
        )


class _Profiles:
    """The profiles over some predicates that the postulates permit, and conditions on them from formulas."""

    def __init__(self, predicates: Iterable[str]):
        self.predicates = tuple(sorted(set(predicates)))
        n = len(self.predicates)
        profiles = [
            {word for bit, word in enumerate(self.predicates) if number >> bit & 1}
            for number in range(1 << n)
        ]
        profiles = [profile for profile in profiles if self._permitted(profile)]
        self.all = (1 << len(profiles)) - 1
        self.of = {
            word: sum(1 << place for place, profile in enumerate(profiles) if word in profile)
            for word in self.predicates
        }
        self.imports = _Case(self.all, tuple(self.of[word] for word in self.predicates if is_noun(word)))

    def _permitted(self, profile: set[str]) -> bool:
        return not any(
            (is_below(word, other) and other not in profile) or (other in profile and exclude(word, other))
            for word in profile
            for other in self.predicates
        )

    def cases(self, formula: Formula, truth: bool = True) -> list[_Case]:
        """Conjunctions, at least one of which holds exactly where ``formula`` has this truth value."""
        match formula:
            case Quantified(quantifier, noun, verb):
                if quantifier in ("not every", "some not"):
                    return self.cases(Quantified("every", noun, verb), not truth)
                if quantifier == "no":
                    return self.cases(Quantified("some", noun, verb), not truth)
                both, only_noun = self.of[noun] & self.of[verb], self.of[noun] & ~self.of[verb]
                if quantifier == "every":
                    return [_Case(self.all & ~only_noun) if truth else _Case(self.all, (only_noun,))]
                return [_Case(self.all, (both,)) if truth else _Case(self.all & ~both)]
            case Named(name, predicate, positive, _):
                profiles = self.of[predicate] if positive == truth else self.all & ~self.of[predicate]
                return [_Case(self.all, names=((name, profiles),))]
            case Attitude(_, verb, clause):
                fact = _Case(self.all, facts=((formula, truth),))
                if verb in NON_FACTIVE:
                    return [fact]
                clauses = self.cases(clause, truth)
                return [fact.meet(case) for case in clauses] if truth else [fact, *clauses]
            case Both(left, right):
                lefts, rights = self.cases(left, truth), self.cases(right, truth)
                return [a.meet(b) for a in lefts for b in rights] if truth else lefts + rights


def predicates(formula: Formula) -> frozenset[str]:
    """The nouns and verbs in a formula."""
    match formula:
        case Quantified(_, noun, verb):
            return frozenset((noun, verb))
        case Named(_, predicate):
            return frozenset((predicate,))
        case Attitude(_, _, clause):
            return predicates(clause)
        case Both(left, right):
            return predicates(left) | predicates(right)


@lru_cache(maxsize=1 << 12)
def _profiles(words: frozenset[str]) -> _Profiles:
    return _Profiles(words)


def consistent(*formulas: tuple[Formula, bool]) -> bool:
    """Whether some world gives every formula the truth value in its pair."""
    space = _profiles(frozenset().union(*(predicates(formula) for formula, _ in formulas)))
    cases = [space.imports]
    for formula, truth in formulas:
        cases = [a.meet(b) for a in cases for b in space.cases(formula, truth)]
    return any(case.holds_somewhere() for case in cases)


@lru_cache(maxsize=1 << 14)
def relation(premise: Formula, hypothesis: Formula) -> Relation:
    """The relation of the premise to the hypothesis.

    Raises:
        ValueError: the premise holds in no world, so that it entails everything.
    """
    with_it = consistent((premise, True), (hypothesis, True))
    without_it = consistent((premise, True), (hypothesis, False))
    if not with_it and not without_it:
        raise ValueError(f"the premise {premise} holds in no world")
    return "neutral" if with_it and without_it else "entailment" if with_it else "contradiction"
