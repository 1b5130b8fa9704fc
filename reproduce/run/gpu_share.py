"""Which part of a GPU a trial is given."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lfreeze.errors import InputError
from lfreeze.model_shape import ShapeError
from reproduce.plan.search_space import SearchSpace
from reproduce.run.gpus import usable_gpus


def parse_share(text: str) -> float | None:
    """The part of a GPU asked for, or None where it is to be worked out."""
    if text == "auto":
        return None
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share < math.inf or (share > 1 and share != int(share)):
        raise InputError(
            f"--gpus-per-trial {text!r} is not auto, a share of a GPU, or a whole number of GPUs"
        )
    return share


def local_gpu_bytes() -> list[int]:
    """The memory of each GPU of this machine."""
    return [size for _, size, _ in usable_gpus()]


def choose_share(
    space: SearchSpace, asked: float | None, gpu_bytes: Sequence[int], where: str, which: str = "smallest"
) -> float:
    """What was asked for, or the part of the smallest GPU that fits the space's largest trial.

    One size for all lets a worker be used again whichever GPU it is on.

    Args:
        gpu_bytes: the memory of every GPU that trials may use; 0 is chosen where there is none.
        where, which: what has these GPUs, and which of its GPUs the smallest of them is, for the messages.

    Raises:
        InputError: there is no GPU where one is needed, or none is large enough.
    """
    from reproduce.plan.cost import largest_share

    if not gpu_bytes:
        if asked:
            raise InputError(
                f"--gpus-per-trial {asked:g} asks for a GPU, but {where} has none: use 0 or auto"
            )
        if space.gpu and asked is None:
            raise InputError(
                f"the space {space.name} needs a GPU, but {where} has none: --gpus-per-trial 0 runs it on the CPU"
            )
        return 0.0
    if asked is not None:
        return asked
    memory = min(gpu_bytes)
    try:
        share = largest_share(space, memory)
    except ShapeError as error:
        if space.exclusive:
            return 1.0
        raise InputError(
            f"{error}: say with --gpus-per-trial what part of a GPU a trial is to have"
        ) from None
    if share > 1:
        raise InputError(
            f"the largest trial of {space.name} needs {share:.1f} times the {memory / 2**30:.0f} GiB of the "
            f"{which} GPU of {where}: choose fewer models or strategies, --set precision=bf16, a smaller "
            "batch_size, or other GPUs with CUDA_VISIBLE_DEVICES"
        )
    return 1.0 if space.exclusive else share
