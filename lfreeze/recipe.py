"""How a model is fine-tuned: every value that training depends on, in one frozen dataclass.

The paper's own values (§4.3) have no default here: they are set in ``search_spaces/paper.toml``.
Fields with a default are decisions that the paper leaves open (docs/decisions.md).
"""

import dataclasses
import functools
import math
import re
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from lfreeze.errors import InputError, shown, whole_number

CHOICES: dict[str, tuple[str, ...]] = {
    "schedule": ("cosine", "constant"),
    "precision": ("fp32", "bf16-mixed", "bf16"),
    "frozen_dtype": ("same", "compute"),
    "freeze_embeddings": ("auto", "yes", "no"),
    "padding": ("longest", "max_length", "bucketed", "packed"),
    "prefix_cache": ("off", "evaluation", "all"),
    "pair_separator": ("auto", "none"),
}
# Smallest and largest accepted value by field. Real numbers without a largest one may be any finite number.
RANGES: dict[str, tuple[float, float | None]] = {
    "batch_size": (1, 2**16),
    "micro_batch_size": (0, 2**16),
    "max_length": (4, 2**20),
    "steps": (1, 10**7),
    "learning_rate": (0, None),
    "adam_beta1": (0, None),
    "adam_beta2": (0, None),
    "adam_epsilon": (0, None),
    "weight_decay": (0, None),
    "max_grad_norm": (0, None),
    "warmup_steps": (0, 10**7),
    "max_train_examples": (1, 10**9),
    "probe_steps": (1, 10**7),
    "redraw_steps": (1, 10**7),
    "lora_rank": (1, 2**16),
    "lora_alpha": (1, 2**20),
    "lora_dropout": (0, None),
    "eval_batch_size": (1, 2**16),
    "max_validation_examples": (0, 10**9),
    "evaluate_every": (0, 10**7),
    "timing_warmup_steps": (0, 10**7),
    "cpu_threads": (1, 1024),
}
# The order of the training examples is drawn before the first step, and kept.
_MOST_DRAWS = 10**8
_MOST_NAMES, _LONGEST_NAME = 100, 200


class RecipeError(InputError):
    """A recipe value that cannot be used; the message names it and what is accepted."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One fine-tuning recipe. Steps, seconds and tokens are counted per optimiser step.

    Raises:
        RecipeError: a value is of the wrong type or outside its range.
    """

    # §4.3 of the paper
    batch_size: int
    max_length: int
    steps: int
    learning_rate: float
    schedule: str
    lora_rank: int
    lora_alpha: int
    lora_dropout: float
    max_train_examples: int
    probe_steps: int
    # what the paper leaves open
    lora_targets: tuple[str, ...] = ("q_proj", "v_proj")
    # Steps after which LISA draws other layers.
    redraw_steps: int = dataclasses.field(default=10, metadata={"introduced": 10, "since": 6})
    precision: str = "bf16-mixed"
    frozen_dtype: str = "same"
    freeze_embeddings: str = "auto"
    padding: str = "longest"
    # Whether the output of the layers below the first that trains is computed once per example, not in every pass.
    # Metadata of this and other fields: reproduce.plan.spec.
    prefix_cache: str = dataclasses.field(default="off", metadata={"introduced": "off", "since": 5})
    # Examples whose gradients are computed at once; 0 means the whole batch.
    micro_batch_size: int = dataclasses.field(default=0, metadata={"introduced": 0, "since": 5})
    pair_separator: str = dataclasses.field(default="auto", metadata={"introduced": "auto", "since": 3})
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    adam_epsilon: float = 1e-8
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    warmup_steps: int = 0
    # With "trial", each trial's own seed draws its training examples.
    data_seed: int | Literal["trial"] = 0
    # how the trial is measured
    eval_batch_size: int = 128
    # The first so many examples of the validation split; 0 means all.
    max_validation_examples: int = dataclasses.field(
        default=0, metadata={"introduced": 0, "since": 2, "hashed_at_default": True}
    )
    # Optimiser steps between two evaluations during training; 0 means a single evaluation, at the end.
    evaluate_every: int = dataclasses.field(default=0, metadata={"introduced": 0, "since": 6})
    timing_warmup_steps: int = 10
    cpu_threads: int = 1

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            _check(name, value)
        if self.micro_batch_size > self.batch_size:
            raise RecipeError(
                f"micro_batch_size = {self.micro_batch_size} is above batch_size = {self.batch_size}"
            )
        if self.steps * self.batch_size > _MOST_DRAWS:
            raise RecipeError(
                f"steps = {self.steps} of batch_size = {self.batch_size} read more than {_MOST_DRAWS:,} examples"
            )

    @property
    def chosen_lora_targets(self) -> tuple[str, ...]:
        """``lora_targets``; empty at its default, which leaves them to the architecture (``lfreeze.lora_targets``)."""
        default = next(field.default for field in dataclasses.fields(self) if field.name == "lora_targets")
        return () if self.lora_targets == default else self.lora_targets

    def drawing_seed(self, seed: int) -> int:
        """The seed that draws the training examples of the trial with this seed."""
        return self.data_seed if isinstance(self.data_seed, int) else seed

    @classmethod
    def from_mapping(cls, values: dict[str, Any]) -> "Recipe":
        """Make a recipe of parsed TOML; whole numbers are accepted for real ones.

        Raises:
            RecipeError: a key is unknown or missing, or a value is unusable.
        """
        known = field_types()
        for name in values:
            if name not in known:
                raise RecipeError(f"unknown recipe value {shown(name)}; known are {', '.join(known)}")
        required = [f.name for f in dataclasses.fields(cls) if f.default is dataclasses.MISSING]
        missing = [name for name in required if name not in values]
        if missing:
            raise RecipeError(f"the recipe lacks {', '.join(missing)}")
        return cls(**{name: coerce(name, value) for name, value in values.items()})


@functools.cache
def field_types() -> Mapping[str, Any]:
    """The type of every recipe value, by name, in order."""
    hints = typing.get_type_hints(Recipe)
    return {f.name: hints[f.name] for f in dataclasses.fields(Recipe)}


def coerce(name: str, value: Any) -> Any:
    """Convert ``value``, from TOML or as text from ``--set``, to the type of the recipe field ``name``."""
    expected = field_types()[name]
    if name == "data_seed":
        return int(value) if isinstance(value, str) and re.fullmatch("[0-9]{1,19}", value) else value
    try:
        if expected is int and isinstance(value, str):
            return whole_number(value)
        if expected is float and isinstance(value, int | str) and not isinstance(value, bool):
            return float(value)
    # An integer of hundreds of digits overflows.
    except (ValueError, OverflowError):
        kind = "a whole number" if expected is int else "a number"
        raise RecipeError(f"{name} = {shown(value)} is not {kind}") from None
    if expected == tuple[str, ...]:
        if isinstance(value, str):
            return tuple(value.split(","))
        return tuple(value) if isinstance(value, list | tuple) else value
    return value


def _check(name: str, value: Any) -> None:
    expected = field_types()[name]
    if name == "data_seed":
        number = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63
        if not number and value != "trial":
            raise RecipeError(
                f"data_seed = {shown(value)} is neither a whole number from 0 to 2**63 - 1 nor 'trial'"
            )
        return
    if expected == tuple[str, ...]:
        named = isinstance(value, tuple) and 0 < len(value) <= _MOST_NAMES
        if not named or not all(isinstance(v, str) and 0 < len(v) <= _LONGEST_NAME for v in value):
            raise RecipeError(f"{name} = {shown(value)} is not a list of names")
        return
    if not isinstance(value, expected) or isinstance(value, bool):
        raise RecipeError(f"{name} = {shown(value)} is not of type {expected.__name__}")
    if isinstance(value, float) and not math.isfinite(value):
        raise RecipeError(f"{name} = {value!r} is not a finite number")
    if name in CHOICES and value not in CHOICES[name]:
        raise RecipeError(f"{name} = {shown(value)} is not one of {', '.join(CHOICES[name])}")
    least, most = RANGES.get(name, (None, None))
    if least is not None and value < least:
        raise RecipeError(f"{name} = {shown(value)} is below {least:g}")
    if most is not None and value > most:
        raise RecipeError(f"{name} = {shown(value)} is above {most:,}")
    if name in ("lora_dropout", "adam_beta1", "adam_beta2") and not value < 1:
        raise RecipeError(f"{name} = {value!r} is not below 1")
