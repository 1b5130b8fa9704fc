"""Micro-batches of similar length, so that little padding is computed."""

from __future__ import annotations

from collections.abc import Sequence

# What a further micro-batch costs, in tokens: its kernel launches, and matrix products too small to fill a
# device. A fixed value, so that the same trial computes the same sums on every machine.
LAUNCH_TOKENS = 128


def micro_batches(
    lengths: Sequence[int], launch_tokens: int = LAUNCH_TOKENS, most_examples: int = 0
) -> list[list[int]]:
    """Split examples into groups, each to be padded to its longest, at the least total cost.

    The cost is the number of tokens computed, padding included, plus ``launch_tokens`` for each group. With
    the examples sorted by length, the best groups are consecutive; dynamic programming finds them exactly.

    Args:
        lengths: number of tokens of each example.
        most_examples: the largest group; 0 means all examples.

    Returns:
        The examples' places in ``lengths``, the shortest group first; equal lengths keep their order.
    """
    order = sorted(range(len(lengths)), key=lambda place: (lengths[place], place))
    # By number of examples: the least cost of the shortest so many, and where their last group starts.
    best, starts = [0], [0]
    for end in range(1, len(order) + 1):
        longest = lengths[order[end - 1]]
        first = max(0, end - most_examples) if most_examples else 0
        costs = {start: best[start] + (end - start) * longest + launch_tokens for start in range(first, end)}
        starts.append(min(costs, key=costs.__getitem__))
        best.append(costs[starts[-1]])
    groups: list[list[int]] = []
    end = len(order)
    while end:
        groups.insert(0, order[starts[end] : end])
        end = starts[end]
    return groups
