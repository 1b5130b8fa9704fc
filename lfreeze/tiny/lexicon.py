"""The words: two taxonomies, of nouns and of verbs, and proper names.

Both taxonomies are forests of three levels. Every world obeys these meaning postulates:

- a word implies the word above it: every poodle is a dog;
- nouns exclude each other unless one is above the other: no dog is a cat;
- verbs of different branches are independent: an individual that runs may or may not sing.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

_NOUN_TREES: Mapping[str, Mapping[str, tuple[str, str]]] = {
    "animal": {"dog": ("poodle", "beagle"), "cat": ("tabby", "siamese")},
    "person": {"doctor": ("surgeon", "dentist"), "artist": ("painter", "dancer")},
    "machine": {"car": ("taxi", "jeep"), "boat": ("ferry", "canoe")},
}
_VERB_TREES: Mapping[str, Mapping[str, tuple[str, str]]] = {
    "move": {"run": ("sprint", "jog"), "swim": ("dive", "float")},
    "call": {"sing": ("hum", "chant"), "shout": ("yell", "roar")},
    "feed": {"eat": ("nibble", "munch"), "drink": ("sip", "gulp")},
}

HE = ("tom", "ben", "max", "rex")
SHE = ("ann", "eve", "kim", "sue")
NAMES = HE + SHE

LEVELS = 3


def _chains(trees: Mapping[str, Mapping[str, tuple[str, str]]]) -> tuple[tuple[str, str, str], ...]:
    return tuple(
        (leaf, middle, root)
        for root, below in trees.items()
        for middle, leaves in below.items()
        for leaf in leaves
    )


# Each chain goes up a taxonomy from its most specific word: ("poodle", "dog", "animal").
NOUN_CHAINS = _chains(_NOUN_TREES)
VERB_CHAINS = _chains(_VERB_TREES)
NOUNS = tuple(dict.fromkeys(word for chain in NOUN_CHAINS for word in chain))
VERBS = tuple(dict.fromkeys(word for chain in VERB_CHAINS for word in chain))
_ABOVE = {
    word: frozenset(chain[level + 1 :])
    for chain in NOUN_CHAINS + VERB_CHAINS
    for level, word in enumerate(chain)
}
_LEVEL = {word: level for chain in NOUN_CHAINS + VERB_CHAINS for level, word in enumerate(chain)}
_NOUN_SET = frozenset(NOUNS)


def is_noun(word: str) -> bool:
    return word in _NOUN_SET


def is_below(word: str, other: str) -> bool:
    """Whether ``other`` is strictly above ``word`` in a taxonomy."""
    return other in _ABOVE[word]


def level(word: str) -> int:
    """How general a word is: 0 for the most specific."""
    return _LEVEL[word]


@cache
def exclude(word: str, other: str) -> bool:
    """Whether no individual can be both: two nouns, neither of which is above the other."""
    return (
        is_noun(word)
        and is_noun(other)
        and word != other
        and not is_below(word, other)
        and not is_below(other, word)
    )
