"""One readable fine-tuning loop: (model, data, recipe, strategy, seed) -> TrainingRecord."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

from lfreeze.data.encoding import Batch, EncodedTask
from lfreeze.errors import StrategyError
from lfreeze.freeze_proof import FreezeProof
from lfreeze.freezing import prepare
from lfreeze.plan import FreezeOptions
from lfreeze.recipe import Recipe
from lfreeze.seeding import stream_seed
from lfreeze.strategy import Strategy
from lfreeze.training.batches import training_batches
from lfreeze.training.evaluation import Evaluations
from lfreeze.training.forward import classification_loss
from lfreeze.training.meter import Meter
from lfreeze.training.prefix import Prefix, trial_prefix
from lfreeze.training.prefix_store import PrefixStore
from lfreeze.training.record import Step, TrainingError, TrainingRecord

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def train(
    model: PreTrainedModel,
    data: EncodedTask,
    recipe: Recipe,
    strategy: Strategy,
    seed: int,
    device: torch.device,
    *,
    prefixes: PrefixStore | None = None,
    on_step: Callable[[Step], None] | None = None,
) -> TrainingRecord:
    """Fine-tune ``model`` in place and evaluate it on the validation split.

    The order of the examples, the dropout masks and LoRA's initial values depend on ``seed`` alone,
    not on anything that ran before.

    Args:
        prefixes: what earlier calls on the same initial weights and texts have left of frozen prefixes; it is
            used and added to if the recipe says so.
        on_step: called after each step, outside the timed part, to follow the run.

    Raises:
        StrategyError: the strategy does not fit the model.
        TrainingError: the loss or the gradient is not finite.
    """
    options = freeze_options(recipe, seed)
    if hasattr(model.config, "use_cache"):
        # Keys and values are cached for generation only, and would count as training memory.
        model.config.use_cache = False
    torch.manual_seed(stream_seed(seed, "adapter"))
    started = time.perf_counter()
    plan = prepare(model, strategy, options)
    model.to(device).train()
    batches = training_batches(data, recipe, seed)
    prefix = None
    if not strategy.implementation.adaptive:
        prefix = trial_prefix(model, plan, data, recipe, device, prefixes or PrefixStore())
    in_training = _filled(prefix, batches, recipe)
    optimizer = make_optimizer(model, recipe)
    scheduler = make_schedule(optimizer, recipe)
    # The meter last, here and below: what a proof keeps on the device or needs for a moment is no training memory.
    proof = FreezeProof(model)
    meter = Meter(model, device)
    selection_started = time.perf_counter()
    kind = strategy.implementation
    controller = kind.controller(model, strategy, options)
    selection_seconds = time.perf_counter() - selection_started if controller else 0.0
    if kind.redraws:
        plan = getattr(controller, "plan", plan)
        proof.begin()
    probes = controller is not None and not kind.redraws
    profiled = _profiled_steps(batches, recipe, adaptive=probes)
    torch.manual_seed(stream_seed(seed, "dropout"))
    evaluations = Evaluations(model, data, recipe, device, meter, started)
    shared = None if kind.adaptive else prefix

    record_steps: list[Step] = []
    probe_memory, switch_step, redraws = None, None, 0
    # The first step of each phase allocates and compiles, so warm-up is counted from there.
    phase_start = 0
    for number, batch in enumerate(batches, start=1):
        handles = proof.observe_depth()
        with meter.step(optimizer, memory=number in profiled or device.type == "cuda"):
            loss = _forward_backward(model, batch, recipe, device, meter, in_training)
            proof.after_backward()
            if number in profiled:
                meter.after_backward(model.parameters())
            norm = clip_gradients(model, recipe)
            learning_rate = float(scheduler.get_last_lr()[0])
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad(set_to_none=True)
        for handle in handles:
            handle.remove()
        probing = probes and switch_step is None
        record_steps.append(
            Step(
                step=number,
                phase="probe" if probing else "train",
                loss=loss.item(),
                learning_rate=learning_rate,
                grad_norm=norm.item(),
                seconds=meter.step_seconds,
                tokens=sum(part.tokens for part in batch),
                timed=_is_timed(number, phase_start, probing, recipe)
                and number not in profiled
                # What draws often observes often.
                and (kind.redraws or not handles)
                and not evaluations.disturbs(number),
            )
        )
        del loss
        _require_finite(record_steps[-1])
        if on_step is not None:
            on_step(record_steps[-1])
        # Layers that are drawn after the last step would not train.
        if controller is not None and (probes or number < len(batches)):
            switching = time.perf_counter()
            new_plan = controller.step(optimizer)
            if new_plan is not None:
                meter.synchronize()
                selection_seconds += time.perf_counter() - switching
                plan = new_plan
            if new_plan is not None and kind.redraws:
                redraws += 1
                proof.renew(optimizer)
            elif new_plan is not None:
                switch_step = phase_start = number
                probe_memory = meter.memory() if number >= min(profiled) else None
                # The frozen layers have weights of this trial's own, so that nothing is kept for other trials.
                prefix = trial_prefix(model, plan, data, recipe, device, PrefixStore())
                in_training = _filled(prefix, batches[number:], recipe)
                proof.begin()
                meter.begin_phase()
        if evaluations.due(number):
            evaluations.during(number, shared)
    if probes and switch_step is None:
        raise StrategyError(
            f"strategy {strategy.name} has frozen nothing in {recipe.steps} steps: fewer than "
            f"probe_steps = {recipe.probe_steps} of them changed a weight"
        )
    prefix_layers = in_training.depth if in_training else 0
    meter.synchronize()
    finished = time.perf_counter()
    memory = meter.memory()
    result = proof.conclude(optimizer)
    # The scheduler wraps the optimiser's step in a reference cycle, which would keep the moments alive.
    optimizer.state.clear()
    train_seconds = finished - started - evaluations.seconds
    predictions = evaluations.conclude(train_seconds, shared)
    return TrainingRecord(
        plan=plan,
        proof=result,
        memory=memory,
        probe_memory=probe_memory,
        static_bytes=meter.static_bytes,
        memory_method=meter.method,
        selection_seconds=selection_seconds,
        switch_step=switch_step,
        redraws=redraws,
        train_seconds=train_seconds,
        eval_seconds=evaluations.seconds,
        predictions=predictions,
        largest_micro_batch=_largest(batches[number - 1] for number in profiled),
        prefix_layers=prefix_layers,
        prefix_seconds=prefix.seconds if prefix else 0.0,
        steps=record_steps,
        evaluations=evaluations.done,
    )


def _filled(prefix: Prefix | None, batches: Sequence[Sequence[Batch]], recipe: Recipe) -> Prefix | None:
    """The prefix with the states of the given batches; None if training cannot or must not reuse it."""
    if prefix is None or recipe.prefix_cache != "all":
        return None
    prefix.fill("train", {index for batch in batches for part in batch for index in part.indices})
    return prefix if prefix.depth else None


def _forward_backward(
    model: nn.Module,
    batch: Sequence[Batch],
    recipe: Recipe,
    device: torch.device,
    meter: Meter,
    prefix: Prefix | None,
) -> torch.Tensor:
    """Add a batch's gradients, one micro-batch after another; the batch's mean loss."""
    losses, examples = [], sum(len(part.labels) for part in batch)
    for part in batch:
        with prefix.reused("train", part) if prefix else contextlib.nullcontext(), meter.forward():
            loss = classification_loss(model, part.to(device), recipe)
            if len(batch) > 1:
                loss = loss * (len(part.labels) / examples)
        loss.backward()
        losses.append(loss.detach())
        del loss
    return losses[0] if len(losses) == 1 else torch.stack(losses).sum()


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW over the trainable parameters."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    return torch.optim.AdamW(
        parameters,
        lr=recipe.learning_rate,
        betas=(recipe.adam_beta1, recipe.adam_beta2),
        eps=recipe.adam_epsilon,
        weight_decay=recipe.weight_decay,
        fused=parameters[0].device.type == "cuda",
    )


def make_schedule(optimizer: torch.optim.Optimizer, recipe: Recipe) -> torch.optim.lr_scheduler.LRScheduler:
    """The recipe's learning-rate schedule, stepped once per optimiser step."""
    from transformers import get_scheduler

    name = "constant_with_warmup" if recipe.schedule == "constant" else recipe.schedule
    schedule: torch.optim.lr_scheduler.LRScheduler = get_scheduler(
        name, optimizer, recipe.warmup_steps, recipe.steps
    )
    return schedule


def clip_gradients(model: nn.Module, recipe: Recipe) -> torch.Tensor:
    """Clip to the recipe's norm (0 means no clipping); return the norm before clipping."""
    return nn.utils.clip_grad_norm_(model.parameters(), recipe.max_grad_norm or math.inf)


def freeze_options(recipe: Recipe, seed: int) -> FreezeOptions:
    """The options of ``freeze`` that a recipe implies."""
    compute = torch.bfloat16 if recipe.precision.startswith("bf16") else None
    return FreezeOptions(
        freeze_embeddings=recipe.freeze_embeddings,
        frozen_dtype=compute if recipe.frozen_dtype == "compute" else None,
        probe_steps=recipe.probe_steps,
        redraw_steps=recipe.redraw_steps,
        seed=seed,
        lora_rank=recipe.lora_rank,
        lora_alpha=recipe.lora_alpha,
        lora_dropout=recipe.lora_dropout,
        lora_targets=recipe.chosen_lora_targets,
    )


def _profiled_steps(batches: Sequence[Sequence[Batch]], recipe: Recipe, *, adaptive: bool) -> set[int]:
    """The steps whose memory is measured: the one with the widest batch in each phase.

    The final phase is searched after the probe's end for every strategy, so that strategies are
    compared on the same batch. Optimiser state exists from the second step on.
    """
    last, probe = len(batches), recipe.probe_steps

    def most_tokens(number: int) -> int:
        return max(part.tokens for part in batches[number - 1])

    def widest(steps: range) -> set[int]:
        return {max(steps, key=lambda number: (most_tokens(number), -number))} if steps else set()

    final = widest(range(probe + 2, last + 1)) or {last}
    return final | (widest(range(2, min(probe, last) + 1)) or {1} if adaptive else set())


def _largest(batches: Iterable[Sequence[Batch]]) -> tuple[int, int]:
    largest = max((part for batch in batches for part in batch), key=lambda part: part.tokens)
    examples, length = largest.input_ids.shape
    return examples, length


def _is_timed(number: int, phase_start: int, probing: bool, recipe: Recipe) -> bool:
    """Whether a step is past the warm-up; a short run keeps its last half."""
    if probing:
        return number > 1
    warmup = min(recipe.timing_warmup_steps, recipe.steps // 2)
    return number > max(warmup, phase_start + 1)


def _require_finite(step: Step) -> None:
    for name, value in (("loss", step.loss), ("gradient norm", step.grad_norm)):
        if not math.isfinite(value):
            raise TrainingError(f"the {name} is {value} at step {step.step}")
