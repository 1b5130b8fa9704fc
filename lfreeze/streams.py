"""The output streams of a program: characters that the terminal lacks, and output that cannot be written.

Only the standard library is imported.
"""

from __future__ import annotations

import codecs
import contextlib
import os
import re
import sys
import unicodedata
from collections.abc import Iterator
from typing import TextIO

_ERRORS = "lfreeze.replace"
_PLAIN = {
    "■": "#", "□": ".", "━": "-", "─": "-", "–": "-", "—": "-", "−": "-", "·": "*", "…": "...", "±": "+-",
    "×": "x", "≥": ">=", "≤": "<=", "→": "->", "“": '"', "”": '"', "‘": "'", "’": "'",
}  # fmt: skip
# Control characters, and marks that change the direction of text or end a line.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def visible(text: str) -> str:
    r"""The text with control characters and direction marks written out, such as ``\x1b``.

    For text from elsewhere, such as names and error messages: a terminal would obey its escape sequences.
    """
    return _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def plain(text: str) -> str:
    """The text in ASCII, legible where possible."""
    return "".join(map(_plain, text))


def _plain(character: str) -> str:
    if character.isascii():
        return character
    if character in _PLAIN:
        return _PLAIN[character]
    decomposed = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    return decomposed or character.encode("ascii", "backslashreplace").decode()


def _replace(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return plain(error.object[error.start : error.end]), error.end


def prepare_streams() -> None:
    """Let the standard streams replace what their encoding lacks, and discard output where there is no stream."""
    codecs.register_error(_ERRORS, _replace)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=_ERRORS)


@contextlib.contextmanager
def output_required() -> Iterator[None]:
    """End the program with status 1 and one sentence if its output cannot be written, as on a full disk.

    Where the reader of a pipe has ended, as in ``| head``, without a sentence.
    """
    try:
        yield
    except BaseException as error:
        end_without_output(error)
        raise
    end_without_output(None)


def end_without_output(ending: BaseException | None) -> None:
    """End the program as ``output_required`` does if its output cannot be written; return if it can.

    Args:
        ending: what ends the program anyway.

    Raises:
        SystemExit: the output cannot be written.
    """
    problem = _unwritten(sys.stdout, "\n" if isinstance(ending, OSError) else "")
    if problem is None:
        return
    if not isinstance(problem, BrokenPipeError):
        print(f"error: the output cannot be written ({problem.strerror or problem})", file=sys.stderr)
    _unwritten(sys.stderr)
    status = ending.code if isinstance(ending, SystemExit) else 1
    raise SystemExit(status or 1) from None


def _unwritten(stream: TextIO, text: str = "") -> OSError | None:
    """Why a stream's buffer cannot be written; what it holds is then discarded, so that no later flush fails.

    Args:
        text: written first, for a stream that has discarded what it could not write.
    """
    try:
        stream.write(text)
        stream.flush()
    except OSError as problem:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), stream.fileno())
        return problem
    return None
