"""The labels, proved by going through every small world."""

from __future__ import annotations

import pytest

from lfreeze.tiny.draws import Draws
from lfreeze.tiny.forms import ANAPHORA, ATTITUDE, INSTANCE, PRONOUN, QUANTIFIED, Family, Words
from lfreeze.tiny.lexicon import NOUN_CHAINS, NOUNS, VERB_CHAINS, VERBS, exclude, is_below
from lfreeze.tiny.logic import Attitude, Both, Formula, Named, Quantified, predicates, relation
from lfreeze.tiny.worlds import all_worlds


def names_and_attitudes(formula: Formula) -> tuple[set[str], set[Attitude]]:
    match formula:
        case Both(left, right):
            a, b = names_and_attitudes(left), names_and_attitudes(right)
            return a[0] | b[0], a[1] | b[1]
        case Named(name):
            return {name}, set()
        case Attitude():
            return set(), {formula}
        case _:
            return set(), set()


def by_exhaustion(premise: Formula, hypothesis: Formula, largest: int) -> str:
    """The relation, from the truth values of both in every world of up to ``largest`` individuals."""
    names, attitudes = names_and_attitudes(Both(premise, hypothesis))
    vocabulary = predicates(premise) | predicates(hypothesis)
    seen = {
        world.holds(hypothesis)
        for world in all_worlds(vocabulary, names, attitudes, largest)
        if world.holds(premise)
    }
    assert seen, f"no small world makes {premise} true"
    return "neutral" if len(seen) == 2 else "entailment" if True in seen else "contradiction"


@pytest.mark.parametrize(
    ("family", "sample", "largest"),
    [(QUANTIFIED, 500, 3), (INSTANCE, 150, 3), (PRONOUN, 120, 3), (ANAPHORA, 150, 3), (ATTITUDE, 60, 3)],
    ids=lambda value: getattr(value, "name", value),
)
def test_relations_agree_with_every_small_world(family: Family, sample: int, largest: int) -> None:
    draws, forms = Draws("test", family.name), list(family.forms())
    for _ in range(sample):
        pair = family.build(draws.choice(forms), Words.draw(draws))
        assert relation(*pair) == by_exhaustion(*pair, largest), pair


@pytest.mark.parametrize("family", [QUANTIFIED, INSTANCE, PRONOUN, ANAPHORA, ATTITUDE], ids=lambda f: f.name)
def test_the_relation_depends_on_the_form_alone(family: Family) -> None:
    draws, forms = Draws("words", family.name), list(family.forms())
    for _ in range(200):
        form = draws.choice(forms)
        assert len({relation(*family.build(form, Words.draw(draws))) for _ in range(4)}) == 1


@pytest.mark.parametrize(
    ("premise", "hypothesis", "expected"),
    [
        (Quantified("every", "dog", "run"), Quantified("some", "poodle", "move"), "entailment"),
        (Quantified("every", "poodle", "run"), Quantified("every", "dog", "run"), "neutral"),
        (Quantified("no", "animal", "move"), Quantified("some", "cat", "sprint"), "contradiction"),
        (Quantified("not every", "dog", "run"), Quantified("some not", "animal", "run"), "entailment"),
        (Named("rex", "poodle"), Named("rex", "cat"), "contradiction"),
        (Named("rex", "poodle"), Named("kim", "dog"), "neutral"),
        (
            Attitude("ann", "knows", Quantified("no", "dog", "run")),
            Quantified("every", "dog", "run"),
            "contradiction",
        ),
        (Attitude("ann", "hopes", Quantified("no", "dog", "run")), Quantified("no", "dog", "run"), "neutral"),
    ],
)
def test_relations_computed_by_hand(premise: Formula, hypothesis: Formula, expected: str) -> None:
    assert relation(premise, hypothesis) == expected


def test_an_impossible_premise_is_refused() -> None:
    impossible = Both(Quantified("every", "dog", "run"), Quantified("no", "animal", "move"))
    with pytest.raises(ValueError, match="holds in no world"):
        relation(impossible, Named("rex", "dog"))


def test_the_taxonomies_are_forests_of_distinct_words() -> None:
    assert len(NOUNS) == len(VERBS) == 21
    assert not set(NOUNS) & set(VERBS)
    for chain in NOUN_CHAINS + VERB_CHAINS:
        assert is_below(chain[0], chain[1])
        assert is_below(chain[0], chain[2])
        assert not is_below(chain[1], chain[0])
    assert exclude("poodle", "cat")
    assert not exclude("poodle", "animal")
    assert not exclude("run", "swim")
