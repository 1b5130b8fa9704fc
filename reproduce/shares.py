"""Which part of a GPU a trial is given."""

from __future__ import annotations

import math

from lfreeze.errors import InputError
from lfreeze.shapes import ShapeError
from reproduce.search_space import SearchSpace


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


def fitting_share(space: SearchSpace, address: str | None) -> float:
    """The part of the smallest GPU here that fits the space's largest trial; 0 without a GPU."""
    import torch

    from reproduce.planner import largest_share

    if not torch.cuda.is_available():
        return 1.0 if space.exclusive and address else 0.0
    memory = min(torch.cuda.get_device_properties(i).total_memory for i in range(torch.cuda.device_count()))
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
            f"the largest trial of {space.name} needs {share:.1f} times this GPU's {memory / 2**30:.0f} GiB of memory"
        )
    return 1.0 if space.exclusive else share


def require_gpu(share: float, address: str | None) -> None:
    import torch

    if share and address is None and not torch.cuda.is_available():
        raise InputError(
            f"--gpus-per-trial {share:g} asks for a GPU, but this machine has none: use 0 or auto"
        )
