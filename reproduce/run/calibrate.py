"""The rate that training sustains on this machine: a few real steps of a space's smallest model."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass, replace

from lfreeze.errors import InputError
from lfreeze.models.catalog import find_checkpoint
from lfreeze.models.shapes import model_shape
from lfreeze.strategy import Strategy
from reproduce.plan.cost import GIB, Assumptions, plan_space
from reproduce.plan.lengths import batch_work
from reproduce.plan.search_space import SearchSpace

# Of these, the first warm up and one is profiled.
_STEPS, _WARM_UP = 8, 2


@dataclass(frozen=True)
class Calibration:
    """A measured rate in FLOP/s, and with what it was measured."""

    flops_per_second: float
    words: str


def calibrate(space: SearchSpace) -> Calibration:
    """Time full fine-tuning of the space's smallest model, with random weights, on this machine's device.

    Batches have the recipe's size and the mean length that its texts and padding give. Nothing is read or
    downloaded but the model's configuration.

    Raises:
        InputError: the model does not fit the memory at hand.
    """
    import torch

    from lfreeze.data.encoding import EncodedSplit, EncodedTask
    from lfreeze.models.loading import BaseModel
    from lfreeze.training.loop import train

    trials = plan_space(space, Assumptions(GIB, 1.0))
    smallest = min(trials, key=lambda trial: trial.static_bytes).factors
    card, task = space.cards[smallest.model], space.tasks[smallest.task]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    # One layout for all examples, so that what is timed is what the closed form counts.
    recipe = replace(
        space.recipe,
        steps=_STEPS,
        timing_warmup_steps=_WARM_UP,
        padding="longest",
        prefix_cache="off",
        micro_batch_size=0,
    )
    length = batch_work(task, space.recipe).length
    full = Strategy.parse("ALL")
    shape, n_labels = model_shape(card.config, device.type), len(task.labels) or 2
    cost = full.cost(shape, recipe, n_labels=n_labels, length=length)
    need, have = cost.weights_bytes + cost.training_bytes, free_memory(device)
    if need > have:
        raise InputError(
            f"--calibrate needs {need / GIB:.1f} GiB for {card.name}, the smallest model of {space.name}, but this "
            f"machine's {device.type} has {have / GIB:.1f} GiB: name a smaller one with --models, or a rate with --tflops"
        )
    torch.set_num_threads(recipe.cpu_threads)
    base = BaseModel(find_checkpoint(replace(card, random=True)), n_labels, recipe, device)
    model = base.reset(0)
    drawn = random.Random(0)
    words = range(3, model.get_input_embeddings().num_embeddings)  # type: ignore[operator]

    def split(count: int) -> EncodedSplit:
        texts = tuple(tuple(drawn.choices(words, k=length)) for _ in range(count))
        return EncodedSplit(texts, tuple(i % n_labels for i in range(count)))

    data = EncodedTask(split(recipe.batch_size), split(n_labels), model.config.pad_token_id)  # type: ignore[union-attr, arg-type]
    record = train(model, data, recipe, full, 0, device)
    _, seconds, _ = record.step_quartiles()
    assert seconds is not None, "the recipe of a calibration times steps"
    threads = f", {recipe.cpu_threads} threads" if recipe.cpu_threads > 1 else ""
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"the CPU{threads}"
    return Calibration(
        (cost.forward_flops + cost.backward_flops) / seconds,
        f"measured on {where}: {card.name}, {recipe.batch_size} x {length} tokens in {seconds:.3g} s",
    )


def free_memory(device: object) -> int:
    """Bytes that a device of this machine has free."""
    import torch

    if str(device).startswith("cuda"):
        return int(torch.cuda.mem_get_info()[0])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
