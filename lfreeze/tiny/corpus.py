"""The text for pre-training the tiny models: documents of a few lines in the suite's language.

There are two kinds. A *dialogue* is a statement, a claim or question about it, and the answer ``yes``,
``no`` or ``maybe``. A *description* lists facts of one random world. No dialogue uses a pair that could be in
a task's validation split: the same hash holds those out (``tasks.held_out``).
"""

from __future__ import annotations

from collections.abc import Mapping

from lfreeze.tiny.balance import weighted_forms
from lfreeze.tiny.draws import Draws
from lfreeze.tiny.forms import ATTITUDE, INSTANCE, PRONOUN, QUANTIFIED, Family
from lfreeze.tiny.grammar import question, statement
from lfreeze.tiny.lexicon import HE, NOUN_CHAINS, SHE, VERB_CHAINS
from lfreeze.tiny.logic import QUANTIFIERS, Formula, Named, Quantified, Relation
from lfreeze.tiny.tasks import held_out
from lfreeze.tiny.worlds import World

Document = tuple[str, ...]
ANSWERS: Mapping[Relation, str] = {"entailment": "yes", "contradiction": "no", "neutral": "maybe"}
_FAMILIES: tuple[Family, ...] = (QUANTIFIED, INSTANCE, PRONOUN, PRONOUN, ATTITUDE)
_FACTS = 8


def dialogue(draws: Draws, *, of_held_out: bool = False) -> Document:
    """Statement, claim or question, answer; with ``of_held_out``, about a pair that no training text contains."""
    family = draws.choice(_FAMILIES)
    relation = draws.choice(family.relations)
    forms = weighted_forms(family, dict.fromkeys(family.relations, 1))
    while True:
        premise, hypothesis = forms.draw(relation, draws)
        stated, claimed = statement(premise), statement(hypothesis)
        if held_out(stated, claimed) == of_held_out:
            break
    assert isinstance(hypothesis, Quantified | Named)
    manner = draws.below(3)
    if manner == 0:
        return stated, question(hypothesis), ANSWERS[relation]
    if manner == 1:
        return question(hypothesis), stated, ANSWERS[relation]
    return stated, claimed, ANSWERS[relation]


def description(draws: Draws) -> Document:
    """Facts about three individuals: first what each one is and does, then quantified facts that hold."""
    tree = draws.below(len(NOUN_CHAINS) // 4) * 4
    verb_tree = draws.below(len(VERB_CHAINS) // 4) * 4
    names, individuals, facts = list(HE + SHE), list[frozenset[str]](), list[Formula]()
    bearers: dict[str, int] = {}
    for number in range(3):
        name = names.pop(draws.below(len(names)))
        nouns = NOUN_CHAINS[tree + draws.below(4)][draws.below(3) :]
        verbs = VERB_CHAINS[verb_tree + draws.below(4)][draws.below(4) :]
        bearers[name] = number
        individuals.append(frozenset(nouns + verbs))
        facts.append(Named(name, nouns[0]))
        facts.append(
            Named(name, verbs[0] if verbs else VERB_CHAINS[verb_tree][-1], bool(verbs), by_pronoun=True)
        )
    world = World(tuple(individuals), bearers)
    nouns = tuple(
        sorted(word for chain in NOUN_CHAINS for word in set(chain) & frozenset().union(*individuals))
    )
    verbs = tuple(word for chain in VERB_CHAINS[verb_tree : verb_tree + 4] for word in chain)
    while len(facts) < _FACTS + 3:
        fact = Quantified(draws.choice(QUANTIFIERS), draws.choice(nouns), draws.choice(verbs))
        if world.holds(fact):
            facts.append(fact)
    return tuple(statement(fact) for fact in facts)
