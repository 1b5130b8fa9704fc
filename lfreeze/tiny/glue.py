"""Texts like those of four GLUE tasks, in the tiny language: single sentences, and pairs that may say the same.

They keep what the tasks ask, not how hard they are: whether a sentence ends well (SST-2), whether its words are in order
(CoLA), and whether two sentences or questions about two individuals say the same (MRPC, QQP).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from lfreeze.tiny.draws import Draws
from lfreeze.tiny.grammar import question, statement
from lfreeze.tiny.lexicon import NAMES, NOUNS, VERBS
from lfreeze.tiny.logic import Both, Named

_PREDICATES = NOUNS + VERBS


def _clauses(draws: Draws) -> list[Named]:
    """Two clauses about two individuals, each affirmed or denied, with different predicates."""
    name, predicate = draws.below(len(NAMES)), draws.below(len(_PREDICATES))
    other = (name + 1 + draws.below(len(NAMES) - 1)) % len(NAMES)
    further = (predicate + 1 + draws.below(len(_PREDICATES) - 1)) % len(_PREDICATES)
    return [
        Named(NAMES[name], _PREDICATES[predicate], draws.below(2) == 1),
        Named(NAMES[other], _PREDICATES[further], draws.below(2) == 1),
    ]


def _ends_well(draws: Draws, label: int) -> tuple[str]:
    """Positive if the last clause is affirmed, whatever the first one is."""
    first, last = _clauses(draws)
    return (statement(Both(first, Named(last.name, last.predicate, label == 1))),)


def _in_order(draws: Draws, label: int) -> tuple[str]:
    """Unacceptable with two neighbouring words exchanged."""
    words = statement(Both(*_clauses(draws))).split()
    if not label:
        # Not the full stop.
        place = draws.below(len(words) - 2)
        words[place : place + 2] = reversed(words[place : place + 2])
    return (" ".join(words),)


def _same(text: Callable[[Named, Named], str]) -> Callable[[Draws, int], tuple[str, str]]:
    """Pairs with the clauses in the other order; unless they say the same, with names exchanged or another predicate."""

    def draw(draws: Draws, label: int) -> tuple[str, str]:
        first, second = _clauses(draws)
        others = [first, second]
        if not label and draws.below(2):
            others = [
                Named(second.name, first.predicate, first.positive),
                Named(first.name, second.predicate, second.positive),
            ]
        elif not label:
            free = [word for word in _PREDICATES if word not in (first.predicate, second.predicate)]
            others[0] = Named(first.name, draws.choice(free), first.positive)
        return text(first, second), text(*reversed(others))

    return draw


def _both_asked(first: Named, second: Named) -> str:
    return f"{question(first).removesuffix(' ?')} and {question(second)}"


# The texts of an example, from draws and the label's index.
GLUE_TEXTS: Mapping[str, Callable[[Draws, int], tuple[str, ...]]] = {
    "tiny-sst2": _ends_well,
    "tiny-mrpc": _same(lambda first, second: statement(Both(first, second))),
    "tiny-qqp": _same(_both_asked),
    "tiny-cola": _in_order,
}
