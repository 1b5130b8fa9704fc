"""Which share of a GPU a trial has."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lfreeze.errors import InputError
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
            f"--gpus-per-trial {text!r} is not auto, a share of a GPU, or a whole number of GPUs"
        )
    return share


def local_gpu_bytes() -> list[int]:
    """The memory of each GPU of this machine."""
    return [size for _, size, _ in usable_gpus()]


def choose_share(
    space: SearchSpace, requested: float | None, gpu_bytes: Sequence[int], where: str, which: str = "smallest"
) -> float:
    """The requested share, or the part of the smallest GPU that fits the space's largest trial.

    All trials have the same share, so that a worker can be reused on any GPU.

    Args:
        gpu_bytes: the memory in bytes of every GPU that trials may use; if empty, the share is 0.
        where, which: for messages, what has these GPUs and what the smallest of them is there.

    Raises:
        InputError: there is no GPU where one is needed, or none is large enough.
    """
    from reproduce.plan.cost import largest_share

    if not gpu_bytes:
        if requested:
            raise InputError(
                f"--gpus-per-trial {requested:g} needs a GPU, but {where} has none: use 0 or auto"
            )
        if space.gpu and requested is None:
            raise InputError(
                f"the space {space.name} needs a GPU, but {where} has none: use --gpus-per-trial 0 to run it on the CPU"
            )
        return 0.0
    if requested is not None:
        return requested
    memory = min(gpu_bytes)
    try:
        share = largest_share(space, memory)
    except ShapeError as error:
        if space.exclusive:
            return 1.0
        raise share_required(error) from None
    if share > 1:
        raise InputError(
            f"the largest trial of {space.name} needs {share:.1f} times the {memory / 2**30:.0f} GiB of the "
            f"{which} GPU of {where}: choose fewer models or strategies, --set precision=bf16, a smaller "
            "batch_size, or other GPUs with CUDA_VISIBLE_DEVICES"
        )
    return 1.0 if space.exclusive else share


def share_required(error: ShapeError) -> InputError:
    """The refusal to choose a share for a model whose memory has no closed form."""
    return InputError(f"{error}: set the share of a GPU for each trial with --gpus-per-trial")
