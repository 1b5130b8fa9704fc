"""A space in parts, for jobs that know nothing of each other: ``--shard 3/8`` is the third of eight."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from lfreeze.errors import InputError, shown
from reproduce.plan.spec import TrialSpec


@dataclass(frozen=True)
class Shard:
    """One of ``count`` parts of a space; ``index`` counts from 1."""

    index: int
    count: int

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def of(self, specs: Iterable[TrialSpec]) -> tuple[TrialSpec, ...]:
        """The shard's trials, in their order.

        A trial's run id, a hash, decides alone: every trial is in one shard, in the same one on every machine, in
        every selection of the space and after trials are added to it. Shards are of about the same size.
        """
        return tuple(spec for spec in specs if int(spec.run_id, 16) % self.count == self.index - 1)


def parse_shard(text: str | None) -> Shard | None:
    """The part of a space in the option ``--shard``; None for the whole space.

    Raises:
        InputError: it is not I/N with I from 1 to N.
    """
    if text is None:
        return None
    match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise InputError(f"--shard {shown(text)} is not I/N with I from 1 to N, such as 3/8")
    return Shard(int(match[1]), int(match[2]))
