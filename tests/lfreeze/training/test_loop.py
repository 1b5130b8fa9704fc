"""The training loop against transformers.Trainer, and what a record holds."""

from __future__ import annotations

import copy
import functools
import gc
import math
import random
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import GemmaConfig, GemmaForSequenceClassification, Trainer, TrainingArguments

from lfreeze.data.buckets import micro_batches
from lfreeze.data.encoding import EncodedSplit, EncodedTask, collate, training_order
from lfreeze.errors import StrategyError
from lfreeze.freezing import freeze
from lfreeze.recipe import Recipe
from lfreeze.seeding import stream_seed
from lfreeze.strategy import Strategy, paper_strategies
from lfreeze.training import batches, evaluation, loop
from lfreeze.training.evaluation import evaluate
from lfreeze.training.loop import TrainingError, make_optimizer, train
from tests.conftest import with_values

CPU = torch.device("cpu")
VOCABULARY = 50


def make_model(**changes: Any) -> GemmaForSequenceClassification:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 2}
    config = GemmaConfig(
        **(sizes | changes),
        num_key_value_heads=1,
        head_dim=16,
        vocab_size=VOCABULARY,
        num_labels=3,
        pad_token_id=0,
    )
    return GemmaForSequenceClassification(config).eval()


def make_data(n_train: int = 120, n_validation: int = 30) -> EncodedTask:
    chance = random.Random(1)

    def split(n: int) -> EncodedSplit:
        rows = tuple(
            tuple(chance.randrange(1, VOCABULARY) for _ in range(chance.randrange(4, 12))) for _ in range(n)
        )
        return EncodedSplit(rows, tuple(sum(row) % 3 for row in rows))

    return EncodedTask(split(n_train), split(n_validation), pad_token_id=0)


class _InOrder(Trainer):
    """Takes the examples in the order they are given; the loop under test shuffles by itself."""

    def _get_train_sampler(self, train_dataset: Any = None) -> torch.utils.data.Sampler:
        return torch.utils.data.SequentialSampler(self.train_dataset)


def _train_with_trainer(
    model: nn.Module, data: EncodedTask, recipe: Recipe, seed: int, folder: Path
) -> tuple[list[float], list[float]]:
    """Losses and gradient norms of transformers.Trainer over the same batches."""
    size = recipe.batch_size
    order = training_order(len(data.train), recipe.steps * size, seed)
    rows = [{"index": i} for i in order]

    def together(items: list[dict[str, int]]) -> dict[str, torch.Tensor]:
        batch = collate(data.train, [item["index"] for item in items], data.pad_token_id)
        return {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask, "labels": batch.labels}

    trainer = _InOrder(
        model=model,
        args=TrainingArguments(
            output_dir=str(folder),
            per_device_train_batch_size=size,
            max_steps=recipe.steps,
            learning_rate=recipe.learning_rate,
            lr_scheduler_type=recipe.schedule,
            weight_decay=recipe.weight_decay,
            max_grad_norm=recipe.max_grad_norm,
            optim="adamw_torch",
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            use_cpu=True,
            remove_unused_columns=False,
            disable_tqdm=True,
            dataloader_pin_memory=False,
        ),
        train_dataset=rows,
        data_collator=together,
    )
    trainer.train()
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    return [e["loss"] for e in logged], [e["grad_norm"] for e in logged]


@pytest.mark.parametrize("strategy", ["ALL", "BOT50", "LoRA"])
def test_agrees_with_the_trainer(strategy: str, recipe: Recipe, tmp_path: Path) -> None:
    """Same batches, same settings: every weight within 1e-5, every gradient norm within 1e-4 relative."""
    data = make_data()
    ours, theirs = make_model(), make_model()
    record = train(ours, data, recipe, Strategy.parse(strategy), seed=42, device=CPU)

    torch.manual_seed(stream_seed(42, "adapter"))
    freeze(theirs, strategy, lora_rank=recipe.lora_rank, lora_alpha=recipe.lora_alpha, lora_dropout=0.0)
    losses, norms = _train_with_trainer(theirs.train(), data, recipe, 42, tmp_path)

    assert [s.loss for s in record.steps] == pytest.approx(losses, abs=1e-4)
    assert [s.grad_norm for s in record.steps] == pytest.approx(norms, rel=1e-4)
    expected = dict(theirs.named_parameters())
    start = dict(make_model().named_parameters())
    moved = 0
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter, expected[name], atol=1e-5, rtol=1e-5)
        before = start.get(name.replace(".base_layer", ""))
        moved += before is None or not torch.equal(parameter, before)
    assert moved == sum(p.requires_grad for p in ours.parameters())


def test_every_strategy_yields_a_complete_record(recipe: Recipe) -> None:
    data = make_data()
    for name in paper_strategies():
        record = train(make_model(), data, recipe, Strategy.parse(name), seed=1, device=CPU)
        adaptive = name.startswith("ADT")
        assert record.proof.holds, name
        assert record.proof.backward_depth == record.plan.backward_depth, name
        assert len(record.plan.frozen_layers) == Strategy.parse(name).frozen_count(4), name
        assert [s.step for s in record.steps] == list(range(1, 13))
        assert (record.switch_step == 3) is adaptive
        assert (record.probe_memory is not None) is adaptive
        assert {s.phase for s in record.steps} == ({"probe", "train"} if adaptive else {"train"})
        assert any(s.timed for s in record.steps if s.phase == "train")
        assert not any(s.timed for s in record.steps if s.step <= 2 and s.phase == "train")
        assert len(record.predictions.logits) == 30
        assert record.memory.training > 0


def test_frozen_layers_cost_no_gradient_and_no_optimiser_state(recipe: Recipe) -> None:
    data = make_data()
    for name in ("ALL", "BOT50", "TOP25", "ADT-H50"):
        model = make_model()
        record = train(model, data, recipe, Strategy.parse(name), seed=1, device=CPU)
        trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
        tensors = sum(p.requires_grad for p in model.parameters())
        assert record.plan.trainable_parameters == trainable
        assert record.memory.gradient == 4 * trainable
        # Two moments in float32, and one step count in float32 for each tensor.
        assert record.memory.optimiser == 8 * trainable + 4 * tensors


def test_the_learning_rate_is_a_cosine(recipe: Recipe) -> None:
    record = train(make_model(), make_data(), recipe, Strategy.parse("ALL"), seed=1, device=CPU)
    expected = [1e-3 * (1 + math.cos(math.pi * step / 12)) / 2 for step in range(12)]
    assert [s.learning_rate for s in record.steps] == pytest.approx(expected, abs=1e-12)


def test_the_same_seed_gives_the_same_numbers_and_another_does_not(recipe: Recipe) -> None:
    data = make_data()
    runs = [
        train(make_model(attention_dropout=0.1), data, recipe, Strategy.parse("LoRA"), seed, CPU)
        for seed in (5, 5, 6)
    ]
    losses = [[s.loss for s in run.steps] for run in runs]
    assert losses[0] == losses[1]
    assert losses[0] != losses[2]
    assert runs[0].predictions.logits == runs[1].predictions.logits


@pytest.mark.parametrize("name", ["ALL", "LoRA", "BOT50", "ADT-L50"])
def test_micro_batches_train_like_the_whole_batch(
    name: str, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Texts this short are worth splitting only where a launch costs little.
    monkeypatch.setattr(batches, "micro_batches", functools.partial(micro_batches, launch_tokens=2))
    data = make_data()
    whole, parts = (
        train(
            make_model(),
            data,
            with_values(recipe, padding=padding, lora_dropout=0.0),
            Strategy.parse(name),
            3,
            CPU,
        )
        for padding in ("longest", "bucketed")
    )
    assert sum(s.tokens for s in parts.steps) < 0.8 * sum(s.tokens for s in whole.steps)
    assert parts.proof.holds
    assert parts.proof.backward_depth == whole.proof.backward_depth
    assert parts.plan.frozen_layers == whole.plan.frozen_layers
    for one, other in zip(whole.steps, parts.steps, strict=True):
        assert other.loss == pytest.approx(one.loss, rel=1e-5)
        assert other.grad_norm == pytest.approx(one.grad_norm, rel=1e-4)
    for first, second in zip(whole.predictions.logits, parts.predictions.logits, strict=True):
        assert second == pytest.approx(first, rel=1e-3, abs=1e-4)
    assert parts.memory.activation < whole.memory.activation
    assert parts.memory.gradient == whole.memory.gradient


def test_a_loss_that_is_not_finite_stops_training(recipe: Recipe) -> None:
    model = make_model()
    with torch.no_grad():
        model.score.weight.fill_(math.inf)
    with pytest.raises(TrainingError, match="loss is nan at step 1"):
        train(model, make_data(), recipe, Strategy.parse("ALL"), seed=1, device=CPU)


def test_the_moments_are_gone_before_the_evaluation(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    moments: list[weakref.ref[torch.Tensor]] = []

    def made(model: nn.Module, recipe: Recipe) -> torch.optim.AdamW:
        optimizer = make_optimizer(model, recipe)

        def note(optimizer: torch.optim.Optimizer, *_: Any) -> None:
            moments[:] = [weakref.ref(state["exp_avg"]) for state in optimizer.state.values()]

        optimizer.register_step_post_hook(note)
        return optimizer

    def evaluated(*arguments: Any) -> Any:
        assert moments
        assert not any(ref() is not None for ref in moments)
        return evaluate(*arguments)

    monkeypatch.setattr(loop, "make_optimizer", made)
    monkeypatch.setattr(evaluation, "evaluate", evaluated)
    gc.disable()
    try:
        train(make_model(), make_data(), recipe, Strategy.parse("BOT50"), seed=1, device=CPU)
    finally:
        gc.enable()


def test_batches_are_the_same_for_every_strategy(recipe: Recipe) -> None:
    data = make_data()
    tokens = {
        tuple(s.tokens for s in train(make_model(), data, recipe, Strategy.parse(n), 3, CPU).steps)
        for n in ("ALL", "LoRA", "ADT-L50")
    }
    assert len(tokens) == 1


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16"])
def test_lower_precisions_train(precision: str, recipe: Recipe) -> None:
    model = make_model()
    if precision == "bf16":
        model = model.to(torch.bfloat16)
    changed = with_values(recipe, precision=precision)
    record = train(model, make_data(), changed, Strategy.parse("BOT50"), seed=1, device=CPU)
    assert record.proof.holds
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16 if precision == "bf16" else torch.float32}


@pytest.mark.parametrize(("strategy", "layers"), [("BOT50", 2), ("LoRA", 4)])
def test_storing_frozen_weights_in_the_compute_type_changes_only_memory(
    strategy: str, layers: int, recipe: Recipe
) -> None:
    data, records = make_data(), {}
    for kept in ("same", "compute"):
        changed = with_values(recipe, precision="bf16-mixed", frozen_dtype=kept)
        records[kept] = train(make_model(), data, changed, Strategy.parse(strategy), seed=1, device=CPU)
    assert [s.loss for s in records["same"].steps] == [s.loss for s in records["compute"].steps]
    assert records["same"].predictions.logits == records["compute"].predictions.logits
    linear = sum(
        m.weight.numel()
        for layer in make_model().model.layers[:layers]
        for m in layer.modules()
        if isinstance(m, nn.Linear)
    )
    assert records["same"].static_bytes - records["compute"].static_bytes == 2 * linear


def test_evaluation_follows_the_order_of_the_split(recipe: Recipe) -> None:
    data, model = make_data(), make_model()
    before = copy.deepcopy(model)
    record = train(
        model, data, with_values(recipe, learning_rate=0.0), Strategy.parse("ALL"), seed=1, device=CPU
    )
    for index in (0, 7, 29):
        row = torch.tensor([data.validation.input_ids[index]])
        with torch.no_grad():
            alone = before(input_ids=row).logits[0].tolist()
        assert record.predictions.logits[index] == pytest.approx(alone, abs=1e-5)


@pytest.mark.filterwarnings("ignore:.*a step changed no weight")
def test_a_probe_that_does_not_end_is_an_error(recipe: Recipe) -> None:
    still = with_values(recipe, learning_rate=0.0)
    with pytest.raises(StrategyError, match="has frozen nothing in 12 steps: fewer than probe_steps = 3"):
        train(make_model(), make_data(), still, Strategy.parse("ADT-L50"), seed=1, device=CPU)
