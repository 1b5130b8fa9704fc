"""Which share of a GPU a trial has."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lfreeze.errors import InputError, shown
from lfreeze.model_shape import ShapeError
from reproduce.plan.search_space import SearchSpace
from reproduce.run.gpus import usable_gpus


def parse_share(text: str) -> float | None:
    """The share of a GPU in the option ``--gpus-per-trial``; None for ``auto``.

    Raises:
        InputError: the text is neither auto, a share, nor a whole number.
    """
    if text == "auto":
        return None
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share < math.inf or (share > 1 and share != int(share)):
        raise InputError(
            f"--gpus-per-trial {shown(text)} is not auto, a share of a GPU, or a whole number of GPUs"
        )
    return share


def local_gpu_bytes() -> list[int]:
    """The memory of each GPU of this machine."""
    return [size for _, size, _ in usable_gpus()]


def require_gpus(space: SearchSpace, requested: float | None, per_node: Sequence[int], where: str) -> None:
    """Check that there are the GPUs that a space or the option ``--gpus-per-trial`` needs.

    Args:
        per_node: how many GPUs each node has that has any.
        where: for messages, what has these GPUs.

    Raises:
        InputError: there is no GPU where one is needed, or no node has as many as requested.
    """
    if not per_node and requested:
        raise InputError(f"--gpus-per-trial {requested:g} needs a GPU, but {where} has none: use 0 or auto")
    if not per_node and space.gpu and requested is None:
        raise InputError(
            f"the space {space.name} needs a GPU, but {where} has none: use --gpus-per-trial 0 to run it on the CPU"
        )
    if requested and max(per_node) < requested:
        raise InputError(
            f"--gpus-per-trial {requested:g} is more GPUs than any node has: the maximum is {max(per_node)}"
        )


def share_required(error: ShapeError) -> InputError:
    """The refusal to choose a share for a model whose memory has no closed form."""
    return InputError(f"{error}: set the share of a GPU for each trial with --gpus-per-trial")
