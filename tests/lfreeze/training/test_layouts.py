"""Paddings, micro-batches and the prefix cache give the numbers of the plain path, for every architecture."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import varlen
from transformers import (
    AttentionInterface,
    GPT2Config,
    GPT2ForSequenceClassification,
    MistralConfig,
    MistralForSequenceClassification,
)

from lfreeze.data.encoding import EncodedSplit, EncodedTask, collate, pack
from lfreeze.errors import InputError
from lfreeze.models.catalog import find_checkpoint, get_model
from lfreeze.models.files import ModelError
from lfreeze.models.loading import BaseModel
from lfreeze.recipe import Recipe, RecipeError
from lfreeze.strategy import Strategy
from lfreeze.training.batches import training_batches
from lfreeze.training.loop import train
from lfreeze.training.packing import ATTENTION, packed_logits, require_packable
from lfreeze.training.prefix_store import PrefixStore
from lfreeze.training.record import TrainingRecord
from tests.conftest import with_values
from tests.lfreeze.training.test_loop import CPU, make_data
from tests.support.architectures import ARCHITECTURES, build

FAST = {"steps": 6, "batch_size": 16, "eval_batch_size": 16, "learning_rate": 1e-3, "lora_dropout": 0.0}
# The largest difference of any step's loss and any logit; all are around 1.
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def models() -> dict[str, BaseModel]:
    made = {}
    for name in ("tiny-gemma", "tiny-phi", "tiny-minicpm"):
        checkpoint = find_checkpoint(get_model(name))
        made[name] = BaseModel(checkpoint, 3, Recipe.from_mapping(_PLAIN), CPU)
    return made


_PLAIN: dict[str, Any] = {
    "max_length": 128,
    "schedule": "cosine",
    "lora_rank": 8,
    "lora_alpha": 32,
    "max_train_examples": 3200,
    "probe_steps": 3,
    "precision": "fp32",
    **FAST,
}


def run(
    base: BaseModel, strategy: str, data: EncodedTask, store: PrefixStore | None = None, **changes: Any
) -> TrainingRecord:
    parsed, recipe = Strategy.parse(strategy), Recipe.from_mapping(_PLAIN | changes)
    model: Any = base.reset(3)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0  # Masks are drawn for each layout anew.
    try:
        return train(model, data, recipe, parsed, 3, CPU, prefixes=store)
    finally:
        base.release(parsed.implementation)


def difference(a: TrainingRecord, b: TrainingRecord) -> float:
    losses = max(abs(x.loss - y.loss) for x, y in zip(a.steps, b.steps, strict=True))
    logits = torch.tensor(a.predictions.logits) - torch.tensor(b.predictions.logits)
    return max(losses, float(logits.abs().max()))


@pytest.mark.parametrize("model", ["tiny-gemma", "tiny-phi", "tiny-minicpm"])
@pytest.mark.parametrize("strategy", ["ALL", "BOT50", "BOT75", "ADT-L50", "LoRA", "TOP25"])
def test_every_layout_gives_the_plain_numbers(
    models: dict[str, BaseModel], model: str, strategy: str
) -> None:
    data, base = make_data(), models[model]
    plain = run(base, strategy, data)
    skipped = {"BOT50": 4, "BOT75": 6}.get(strategy, 0)
    for changes in (
        {"padding": "packed"},
        {"micro_batch_size": 5},
        {"padding": "bucketed", "micro_batch_size": 3},
        {"prefix_cache": "evaluation"},
        {"padding": "packed", "prefix_cache": "all"},
        {"padding": "bucketed", "prefix_cache": "all", "micro_batch_size": 6},
        {"padding": "max_length", "max_length": 16, "prefix_cache": "all"},
    ):
        other = run(base, strategy, data, **changes)
        assert difference(plain, other) < TOLERANCE, changes
        assert other.proof.holds
        assert other.prefix_layers == (skipped if changes.get("prefix_cache") == "all" else 0)
        assert (other.prefix_seconds > 0) == ("prefix_cache" in changes and skipped > 0)
        if changes.get("padding") == "packed":
            used = [
                part for batch in training_batches(data, Recipe.from_mapping(_PLAIN), 3) for part in batch
            ]
            assert sum(s.tokens for s in other.steps) == sum(int(part.attention_mask.sum()) for part in used)


def test_a_prefix_that_an_adaptive_strategy_freezes_is_reused(models: dict[str, BaseModel]) -> None:
    """With frozen embeddings, layers that ADT selects at the bottom have weights of the trial's own."""
    data, base = make_data(), models["tiny-gemma"]
    store = PrefixStore()
    plain = run(base, "ADT-H75", data, freeze_embeddings="yes")
    other = run(base, "ADT-H75", data, store, freeze_embeddings="yes", prefix_cache="all")
    first = next(i for i in range(8) if i not in plain.plan.frozen_layers)
    assert other.prefix_layers == first > 0
    assert difference(plain, other) < TOLERANCE
    assert not store.states("")


def test_numbers_do_not_depend_on_what_earlier_trials_left(
    models: dict[str, BaseModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, base = make_data(), models["tiny-gemma"]
    fast = {"prefix_cache": "all", "padding": "bucketed"}
    alone = run(base, "BOT50", data, **fast)
    store = PrefixStore("these weights and texts")
    run(base, "BOT75", data, store, **fast)
    again = [run(base, "BOT50", data, store, **fast) for _ in range(2)]
    monkeypatch.setenv("LFREEZE_PREFIX_FOLDER", str(tmp_path))
    again += [run(base, "BOT50", data, PrefixStore("these weights and texts"), **fast) for _ in range(2)]
    assert len(list(tmp_path.iterdir())) == 2
    for record in again:
        assert [s.loss for s in record.steps] == [s.loss for s in alone.steps]
        assert record.predictions == alone.predictions


def test_a_folder_with_other_states_or_without_room_is_refused(
    models: dict[str, BaseModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, base = make_data(), models["tiny-gemma"]
    monkeypatch.setenv("LFREEZE_PREFIX_FOLDER", str(tmp_path))
    run(base, "BOT50", data, PrefixStore("a"), prefix_cache="all")
    written = sorted(tmp_path.iterdir())
    assert len(written) == 2
    sizes = [path.read_bytes() for path in written]
    for path, content in zip(written, reversed(sizes), strict=True):
        path.write_bytes(content)
    with pytest.raises(InputError, match="holds the states of other weights, texts or settings"):
        run(base, "BOT50", data, PrefixStore("a"), prefix_cache="all")
    for path in written:
        path.write_bytes(b"torn")
    with pytest.raises(InputError, match="cannot be read"):
        run(base, "BOT50", data, PrefixStore("a"), prefix_cache="all")


def test_a_damaged_file_of_validation_states_is_refused_before_training(
    models: dict[str, BaseModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, base = make_data(), models["tiny-gemma"]
    steps: list[Any] = []
    monkeypatch.setenv("LFREEZE_PREFIX_FOLDER", str(tmp_path))
    run(base, "BOT50", data, PrefixStore("a"), prefix_cache="evaluation")
    (path,) = tmp_path.iterdir()
    path.write_bytes(b"torn")
    recipe = Recipe.from_mapping(_PLAIN | {"prefix_cache": "evaluation"})
    model: Any = base.reset(0)
    with pytest.raises(InputError, match="cannot be read"):
        train(
            model,
            data,
            recipe,
            Strategy.parse("BOT50"),
            0,
            CPU,
            prefixes=PrefixStore("a"),
            on_step=steps.append,
        )
    assert not steps


def test_a_folder_that_fails_later_costs_no_trial(
    models: dict[str, BaseModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, base = make_data(), models["tiny-gemma"]
    alone = run(base, "BOT50", data, prefix_cache="all")
    monkeypatch.setenv("LFREEZE_PREFIX_FOLDER", str(tmp_path / "gone"))
    with pytest.warns(UserWarning, match="are kept in memory only, since they cannot be written"):
        record = run(base, "BOT50", data, PrefixStore("a"), prefix_cache="all")
    assert record.predictions == alone.predictions


def test_a_packed_row_attends_within_each_example() -> None:
    """Attention windows shorter than a text, and attention dropout, which must be 0 in evaluation."""
    chance = random.Random(0)
    rows = tuple(tuple(chance.randrange(5, 99) for _ in range(n)) for n in (7, 3, 12, 20))
    split = EncodedSplit(rows, (0, 1, 2, 0))
    sizes = {
        "vocab_size": 99,
        "num_labels": 3,
        "pad_token_id": 0,
        "hidden_size": 32,
        "num_attention_heads": 4,
    }
    windowed = MistralConfig(
        **sizes, num_key_value_heads=2, intermediate_size=48, num_hidden_layers=3, sliding_window=5
    )
    dropping = GPT2Config(**sizes, n_layer=3)
    for model in (MistralForSequenceClassification(windowed), GPT2ForSequenceClassification(dropping)):
        require_packable("it", model.eval())
        batch = collate(split, range(4), 0)
        with torch.no_grad():
            plain = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
            torch.testing.assert_close(packed_logits(model, pack(split, range(4))), plain, rtol=0, atol=1e-6)
            model.train()
            dropped = packed_logits(model, pack(split, range(4)))
        changed = not torch.allclose(dropped, plain, atol=1e-4)
        assert changed == isinstance(model, GPT2ForSequenceClassification)


def test_packing_pools_where_transformers_does() -> None:
    """A pad token inside a text, at its end, and as all of it."""
    rows = ((5, 0, 7), (5, 6, 0), (8, 9, 0, 0), (0,), (0, 4))
    split = EncodedSplit(rows, (0, 1, 1, 0, 1))
    torch.manual_seed(0)
    sizes = {"vocab_size": 99, "pad_token_id": 0, "hidden_size": 32, "intermediate_size": 48}
    config = MistralConfig(**sizes, num_attention_heads=4, num_key_value_heads=2, num_hidden_layers=2)
    model = MistralForSequenceClassification(config).eval()
    batch = collate(split, range(5), 0)
    with torch.no_grad():
        plain = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
        torch.testing.assert_close(packed_logits(model, pack(split, range(5))), plain, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_packing_fits_or_is_refused_by_name(name: str) -> None:
    chance = random.Random(0)
    rows = tuple(tuple(chance.randrange(5, 99) for _ in range(n)) for n in (7, 3, 12, 20))
    split = EncodedSplit(rows, (0, 1, 2, 0))
    model = build(name).eval()
    refused = {"gemma2", "falcon", "bert", "roberta", "modernbert", "electra", "deberta"}
    if name in refused:
        with pytest.raises(
            ModelError, match=f"model {name}: padding = 'packed' does not fit {type(model).__name__}"
        ):
            require_packable(name, model)
        return
    require_packable(name, model)
    batch = collate(split, range(4), 0)
    with torch.no_grad():
        plain = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
        torch.testing.assert_close(packed_logits(model, pack(split, range(4))), plain, rtol=0, atol=1e-6)


def test_a_micro_batch_is_at_most_the_batch(recipe: Recipe) -> None:
    with pytest.raises(RecipeError, match="micro_batch_size = 33 is above batch_size = 32"):
        replace(with_values(recipe, batch_size=32), micro_batch_size=33)


def test_cuda_attends_with_variable_lengths(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a GPU would be asked to compute, on fake tensors: one call, with grouped heads and the window."""
    calls: list[dict[str, Any]] = []
    compute = varlen.varlen_attn

    def spy(*arguments: Any, **options: Any) -> Any:
        calls.append(options | {"shapes": [tuple(a.shape) for a in arguments[:5]], "longest": arguments[5]})
        return compute(*arguments, **options)

    monkeypatch.setattr(varlen, "varlen_attn", spy)
    attention = AttentionInterface()[ATTENTION]
    with FakeTensorMode():
        query, key, value = (
            torch.empty(1, heads, 10, 64, device="cuda", dtype=torch.bfloat16) for heads in (4, 1, 1)
        )
        starts = torch.empty(4, device="cuda", dtype=torch.int32)
        for window in (None, 3):
            output, _ = attention(
                torch.nn.Module(), query, key, value, None,
                packed_lengths=(2, 5, 3), packed_starts=starts, scaling=0.5, sliding_window=window,
            )  # fmt: skip
            assert output.shape == (1, 10, 4, 64)
    assert [call["window_size"] for call in calls] == [(-1, 0), (2, 0)]
    for call in calls:
        assert call["shapes"] == [(10, 4, 64), (10, 1, 64), (10, 1, 64), (4,), (4,)]
        assert (call["longest"], call["scale"], call["enable_gqa"]) == (5, 0.5, True)
