"""Formulas as English-like text: statements and questions, in lower case, with spaces between all tokens."""

from __future__ import annotations

from lfreeze.tiny.lexicon import HE, is_noun
from lfreeze.tiny.logic import Attitude, Both, Formula, Named, Quantified


def third_person(verb: str) -> str:
    return f"{verb}es" if verb.endswith("ch") else f"{verb}s"


def with_article(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def pronoun(name: str) -> str:
    return "he" if name in HE else "she"


def clause(formula: Formula) -> str:
    """A formula's words, without the final punctuation mark."""
    match formula:
        case Quantified("some not", noun, verb):
            return f"some {noun} does not {verb}"
        case Quantified(quantifier, noun, verb):
            return f"{quantifier} {noun} {third_person(verb)}"
        case Named(name, predicate, positive, by_pronoun):
            return f"{pronoun(name) if by_pronoun else name} {predication(predicate, positive)}"
        case Attitude(name, verb, inner):
            return f"{name} {verb} that {clause(inner)}"
        case Both(left, right):
            return f"{clause(left)} and {clause(right)}"


def predication(predicate: str, positive: bool) -> str:
    """``runs``, ``does not run``, ``is a dog``, ``is not a dog``."""
    if is_noun(predicate):
        return f"is {'' if positive else 'not '}{with_article(predicate)}"
    return third_person(predicate) if positive else f"does not {predicate}"


def statement(formula: Formula) -> str:
    return f"{clause(formula)} ."


def question(formula: Quantified | Named) -> str:
    """``does every dog run ?``; a negated formula becomes the positive question with ``not`` inside."""
    match formula:
        case Quantified("some not", noun, verb):
            return f"does some {noun} not {verb} ?"
        case Quantified(quantifier, noun, verb):
            return f"does {quantifier} {noun} {verb} ?"
        case Named(name, predicate, positive):
            denial = "" if positive else "not "
            if is_noun(predicate):
                return f"is {name} {denial}{with_article(predicate)} ?"
            return f"does {name} {denial}{predicate} ?"
