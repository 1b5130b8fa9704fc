"""All benchmarks, in their order."""

from __future__ import annotations

from collections.abc import Sequence

from lfreeze.errors import InputError
from reproduce.bench import loop, memory, overhead, prefix, reports, strategies, sweep
from reproduce.bench.spec import Benchmark

BENCHMARKS = {
    module.BENCHMARK.name: module.BENCHMARK
    for module in (strategies, loop, prefix, sweep, memory, overhead, prefix, reports)
}


def chosen(names: Sequence[str]) -> list[Benchmark]:
    """The benchmarks with these names, in the registry's order; all without a name.

    Raises:
        InputError: there is no such benchmark.
    """
    for name in names:
        if name not in BENCHMARKS:
            raise InputError(f"unknown benchmark {name!r}; known are {', '.join(BENCHMARKS)}")
    return [benchmark for name, benchmark in BENCHMARKS.items() if not names or name in names]
