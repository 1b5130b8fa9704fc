"""The arms beside the paper's: exactly what each trains, against lists made by hand."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers import T5Config, T5ForSequenceClassification

from lfreeze import AdaptiveFreezing, freeze, merge_lora
from lfreeze.errors import InputError, StrategyError
from lfreeze.freeze_proof import FreezeProof
from lfreeze.freezing import prepare
from lfreeze.models.catalog import find_checkpoint, get_model
from lfreeze.models.loading import BaseModel
from lfreeze.models.preflight import inspect_model
from lfreeze.plan import FreezeOptions
from lfreeze.recipe import Recipe, RecipeError
from lfreeze.strategy import Strategy, kinds
from lfreeze.training.loop import train
from reproduce.plan.search_space import load_space
from tests.conftest import with_values
from tests.lfreeze.training.test_loop import CPU, make_data, make_model
from tests.support.architectures import LAYERS, build


def each(pattern: str, names: list[str], layers: range = range(LAYERS)) -> set[str]:
    return {pattern.format(i) + name for i in layers for name in names}


_PHI = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.dense", "mlp.fc1", "mlp.fc2"]
_BERT = [
    "attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense",
    "attention.output.LayerNorm", "intermediate.dense", "output.dense", "output.LayerNorm",
]  # fmt: skip
_BERT_HEAD = {"bert.pooler.dense.weight", "bert.pooler.dense.bias", "classifier.weight", "classifier.bias"}
_BERT_BIASES = each("bert.encoder.layer.{}.", [f"{name}.bias" for name in _BERT]) | _BERT_HEAD
_NORMS = ["input_layernorm.weight", "post_attention_layernorm.weight"]
# Architecture, strategy, options, and the names of all that trains.
TRAINED: list[tuple[str, str, dict[str, Any], set[str]]] = [
    ("gemma", "NORM", {}, each("model.layers.{}.", _NORMS) | {"model.norm.weight", "score.weight"}),
    (
        "phi",
        "BitFit",
        {},
        each("model.layers.{}.", ["input_layernorm.bias", *(f"{name}.bias" for name in _PHI)])
        | {"model.final_layernorm.bias", "score.weight"},
    ),
    (
        "phi",
        "NORM",
        {},
        each("model.layers.{}.", ["input_layernorm.weight", "input_layernorm.bias"])
        | {"model.final_layernorm.weight", "model.final_layernorm.bias", "score.weight"},
    ),
    ("bert", "BitFit", {}, _BERT_BIASES | {"bert.embeddings.LayerNorm.bias"}),
    ("bert", "BitFit", {"freeze_embeddings": "yes"}, _BERT_BIASES),
    (
        "gpt2",
        "NORM",
        {},
        each("transformer.h.{}.", ["ln_1.weight", "ln_1.bias", "ln_2.weight", "ln_2.bias"])
        | {"transformer.ln_f.weight", "transformer.ln_f.bias", "score.weight"},
    ),
    (
        "gpt2",
        "BitFit",
        {},
        each(
            "transformer.h.{}.",
            [f"{n}.bias" for n in ("ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj")],
        )
        | {"transformer.ln_f.bias", "score.weight"},
    ),
    (
        "gemma",
        "BOT-LoRA25",
        {"lora_dropout": 0.0},
        each(
            "model.layers.{}.self_attn.",
            [f"{m}.lora_{side}.default.weight" for m in ("q_proj", "v_proj") for side in "AB"],
            range(3, LAYERS),
        )
        | {"score.weight"},
    ),
    (
        "bert",
        "BOT-LoRA75",
        {"lora_dropout": 0.0},
        each(
            "bert.encoder.layer.{}.attention.self.",
            [f"{m}.lora_{side}.default.weight" for m in ("query", "value") for side in "AB"],
            range(9, LAYERS),
        )
        | _BERT_HEAD,
    ),
]


def loss_of(model: nn.Module) -> torch.Tensor:
    ids = torch.randint(3, 50, (4, 7), generator=torch.Generator().manual_seed(0))
    return F.cross_entropy(model(input_ids=ids).logits, torch.tensor([0, 1, 2, 1]))


@pytest.mark.parametrize(("name", "strategy", "options", "expected"), TRAINED)
def test_exactly_these_tensors_train(
    name: str, strategy: str, options: dict[str, Any], expected: set[str]
) -> None:
    """By their flags, by their gradients, and by what two steps of an optimiser that holds everything change."""
    torch.manual_seed(0)
    model = build(name).train()
    plan = freeze(model, strategy, **options)
    assert {n for n, p in model.named_parameters() if p.requires_grad} == expected
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    proof = FreezeProof(model)
    for _ in range(2):
        handles = proof.observe_depth()
        loss_of(model).backward()
        for handle in handles:
            handle.remove()
        assert {n for n, p in model.named_parameters() if p.grad is not None} == expected
        optimizer.step()
        optimizer.zero_grad()
    assert {n for n, p in model.named_parameters() if not torch.equal(p, before[n])} == expected
    assert plan.trainable_parameters == sum(before[n].numel() for n in expected)
    measured = proof.conclude(optimizer).backward_depth
    assert measured == plan.backward_depth == LAYERS - Strategy.parse(strategy).frozen_count(LAYERS)


@pytest.mark.parametrize("percent", ["25", "33", "50", "75", "12.5"])
@pytest.mark.parametrize("n_layers", [8, 18, 32, 40])
def test_drawn_layers_are_as_many_as_other_kinds_freeze(percent: str, n_layers: int) -> None:
    drawn = Strategy.parse(f"RND{percent}")
    counts = {len(drawn.frozen_layers(n_layers, seed)) for seed in range(20)}
    assert counts == {len(Strategy.parse(k + percent).frozen_layers(n_layers)) for k in ("INT", "BOT")}
    assert all(set(drawn.frozen_layers(n_layers, s)) <= set(range(n_layers)) for s in range(20))


def test_the_seed_draws_the_layers() -> None:
    strategy = Strategy.parse("RND50")
    draws = [strategy.frozen_layers(18, seed) for seed in range(42, 92)]
    assert draws == [strategy.frozen_layers(18, seed) for seed in range(42, 92)]
    assert len(set(draws)) == 50
    # Each layer is frozen in half of them: 4 standard deviations of a binomial of 50 are 14.
    assert all(11 <= sum(layer in draw for draw in draws) <= 39 for layer in range(18))
    assert freeze(build("llama"), "RND50", seed=7).frozen_layers == strategy.frozen_layers(LAYERS, 7)


def test_a_redraw_leaves_no_optimiser_state_behind() -> None:
    """Two parameter groups keep their members; a layer that trains again starts with new moments."""
    model = make_model().train()
    redrawn = AdaptiveFreezing(model, "LISA50", redraw_steps=3, seed=5)
    layers = model.model.layers
    of_layer = {id(p): i for i, layer in enumerate(layers) for p in layer.parameters()}
    vectors = [p for p in model.parameters() if p.dim() == 1]
    matrices = [p for p in model.parameters() if p.dim() > 1]
    optimizer = torch.optim.AdamW([{"params": vectors}, {"params": matrices, "weight_decay": 0.1}], lr=1e-2)
    always = {id(p) for n, p in model.named_parameters() if id(p) not in of_layer}
    trained_since: dict[int, int] = {}
    draws = [redrawn.plan.frozen_layers]
    for number in range(1, 16):
        frozen = redrawn.plan.frozen_layers
        assert len(frozen) == 2
        trained_since = {i: trained_since.get(i, number) for i in range(4) if i not in frozen}
        before = {id(p): p.detach().clone() for p in model.parameters()}
        loss_of(model).backward()
        got = {id(p) for p in model.parameters() if p.grad is not None}
        assert got == always | {key for key, layer in of_layer.items() if layer not in frozen}
        optimizer.step()
        optimizer.zero_grad()
        moved = {id(p) for p in model.parameters() if not torch.equal(p, before[id(p)])}
        assert moved == got
        plan = redrawn.step(optimizer)
        assert (plan is not None) is (number % 3 == 0)
        trains = {id(p): p for p in model.parameters() if p.requires_grad}
        new = set(trains) - got
        assert {id(p) for p in optimizer.state} == set(trains) - new
        for p, state in optimizer.state.items():
            since = trained_since.get(of_layer.get(id(p), -1), 1)
            assert state["step"].item() == number - since + 1
        for group, members in zip(optimizer.param_groups, (vectors, matrices), strict=True):
            assert [id(p) for p in group["params"]] == [id(p) for p in members if p.requires_grad]
        assert not any(p.grad is not None for p in model.parameters())
        if plan is not None:
            draws.append(plan.frozen_layers)
    assert len(set(draws)) > 2
    again = AdaptiveFreezing(make_model(), "LISA50", redraw_steps=3, seed=5)
    assert again.plan.frozen_layers == draws[0]
    others = {AdaptiveFreezing(make_model(), "LISA50", seed=s).plan.frozen_layers for s in range(8)}
    assert len(others) > 2


def test_an_optimiser_that_lacks_layers_which_train_later_is_refused() -> None:
    model = make_model()
    redrawn = AdaptiveFreezing(model, "LISA50")
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
    loss_of(model).backward()
    optimizer.step()
    with pytest.raises(
        StrategyError, match=r"lacks 18 of the parameters that LISA50 trains .*from model.param"
    ):
        redrawn.step(optimizer)


@pytest.mark.parametrize("name", ["RND50", "NORM", "BOT-LoRA50", "LISA50"])
def test_a_trial_of_every_arm_holds_its_proof(name: str, recipe: Recipe) -> None:
    recipe = with_values(recipe, redraw_steps=4)
    runs = [train(make_model(), make_data(), recipe, Strategy.parse(name), s, CPU) for s in (1, 1, 2)]
    for record in runs:
        assert record.proof.holds
        assert record.proof.backward_depth == record.plan.backward_depth == (2 if name[:3] == "BOT" else 4)
        assert record.redraws == (2 if name == "LISA50" else 0)
        assert record.switch_step is None
        assert {s.phase for s in record.steps} == {"train"}
        assert len(record.plan.frozen_layers) == (0 if name == "NORM" else 2)
    losses = [[s.loss for s in record.steps] for record in runs]
    assert losses[0] == losses[1] != losses[2]


def test_redrawn_layers_train_as_in_a_loop_by_hand(recipe: Recipe) -> None:
    """The layers of each draw, and AdamW on what trains, with moments dropped by hand."""
    recipe = with_values(recipe, redraw_steps=5, schedule="constant", max_grad_norm=0.0, steps=11)
    ours, theirs, data = make_model(), make_model().train(), make_data()
    record = train(ours, data, recipe, Strategy.parse("LISA25"), 9, CPU)
    from lfreeze.seeding import stream_seed
    from lfreeze.training.batches import training_batches

    optimizer = torch.optim.AdamW(theirs.parameters(), lr=recipe.learning_rate, weight_decay=0.0)
    for number, (batch,) in enumerate(training_batches(data, recipe, 9)):
        if number % 5 == 0:
            seed = stream_seed(stream_seed(9, f"draw {number // 5}"), "frozen layers")
            frozen = random.Random(seed).sample(range(4), 1)
            for index, layer in enumerate(theirs.model.layers):
                for p in layer.parameters():
                    p.requires_grad_(index not in frozen)
                    if index in frozen:
                        optimizer.state.pop(p, None)
        logits = theirs(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
        F.cross_entropy(logits, batch.labels).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert record.plan.frozen_layers == tuple(frozen)
    for (name, p), q in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p, q, atol=1e-6, rtol=1e-5, msg=name)


def test_trained_layers_are_restored_after_a_trial_that_redraws(recipe: Recipe) -> None:
    """Of layers that trained and are frozen at the end, too."""
    recipe = with_values(recipe, redraw_steps=2)
    base = BaseModel(find_checkpoint(get_model("tiny-gemma")), 3, recipe, CPU)
    start = {n: p.detach().clone() for n, p in base.reset(1).named_parameters()}
    train(base.model, make_data(), recipe, Strategy.parse("LISA75"), 1, CPU)
    moved = {n for n, p in base.model.named_parameters() if not torch.equal(p, start[n])}
    frozen = {n for n, p in base.model.named_parameters() if not p.requires_grad}
    assert moved & frozen
    again = base.reset(1)
    assert all(p.requires_grad and torch.equal(p, start[n]) for n, p in again.named_parameters())


def test_merged_adapters_above_frozen_layers_compute_the_same() -> None:
    torch.manual_seed(0)
    model = build("llama").eval()
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    names = set(dict(model.named_parameters()))
    freeze(model, "BOT-LoRA50", lora_dropout=0.0)
    ids = torch.randint(3, 50, (2, 7), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(generator=torch.Generator().manual_seed(len(name)))
        logits = model(input_ids=ids).logits
        merge_lora(model)
        torch.testing.assert_close(model(input_ids=ids).logits, logits, atol=1e-5, rtol=1e-5)
    assert set(dict(model.named_parameters())) == names
    changed = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert changed == each("model.layers.{}.self_attn.", ["q_proj.weight", "v_proj.weight"], range(6, LAYERS))


@pytest.mark.parametrize(
    ("name", "targets"),
    [
        ("gemma", ("q_proj", "v_proj")),
        ("phi", ("q_proj", "v_proj")),
        ("granite", ("q_proj", "v_proj")),
        ("bert", ("query", "value")),
        ("gpt2", ("c_attn",)),
        ("gpt_neox", ("query_key_value",)),
        ("deberta", ("query_proj", "value_proj")),
    ],
)
def test_lora_adapts_the_architectures_own_projections(name: str, targets: tuple[str, ...]) -> None:
    model = build(name)
    plan = freeze(model, "LoRA")
    assert plan.adapted == targets
    own = {n.rsplit(".", 4)[1] for n, _ in model.named_parameters() if "lora_A" in n}
    assert own == set(targets)
    chosen = {"gemma": "o_proj", "bert": "key", "gpt2": "c_fc"}.get(name)
    if chosen:
        assert freeze(build(name), "LoRA", lora_targets=(chosen,)).adapted == (chosen,)


def test_lora_in_the_encoder_of_a_t5() -> None:
    config = T5Config(d_model=16, d_kv=4, d_ff=24, num_layers=4, num_heads=2, vocab_size=60)
    plan = freeze(T5ForSequenceClassification(config), "BOT-LoRA50", stack="transformer.encoder.block")
    assert (plan.adapted, plan.frozen_layers) == (("q", "v"), (0, 1))


def test_models_that_lack_what_an_arm_trains_are_refused(recipe: Recipe) -> None:
    with pytest.raises(
        StrategyError, match=r"BitFit trains biases, and the layers of GemmaForSeq.* have none"
    ):
        freeze(make_model(), "BitFit")
    checkpoint = find_checkpoint(get_model("tiny-gemma"))
    with pytest.raises(
        StrategyError, match="BitFit trains biases, and the layers of the model tiny-gemma have"
    ):
        inspect_model(checkpoint, 3, [Strategy.parse("BitFit")], recipe)
    model = build("gpt2")
    for layer in model.transformer.h:
        layer.ln_1, layer.ln_2 = nn.Identity(), nn.Identity()
    with pytest.raises(StrategyError, match=r"NORM trains norms, and the layers of GPT2For.* have none"):
        freeze(model, "NORM")
    assert all(p.requires_grad for p in model.parameters())


def test_a_space_with_an_arm_that_a_model_lacks_is_refused() -> None:
    narrow = {"strategies": ["ALL", "BitFit"], "models": ["tiny-phi", "tiny-gemma"]}
    with pytest.raises(
        InputError, match="model tiny-gemma: strategy BitFit trains biases, and a model of type"
    ):
        load_space("embedded", narrow)
    assert load_space("embedded", narrow | {"models": ["tiny-phi"]}).strategies == ("ALL", "BitFit")


def test_unusable_draws_are_refused(recipe: Recipe) -> None:
    with pytest.raises(RecipeError, match="redraw_steps = 0 is below 1"):
        with_values(recipe, redraw_steps=0)
    with pytest.raises(StrategyError, match="redraw_steps = 0 is not a whole number above 0"):
        AdaptiveFreezing(make_model(), "LISA50", redraw_steps=0)
    with pytest.raises(RecipeError, match="LISA50 needs steps above redraw_steps = 10, not 10"):
        load_space("embedded", {"strategies": ["LISA50"]}, {"steps": "10"})
    with pytest.raises(
        StrategyError, match="LISA50 selects its layers during training: use AdaptiveFreezing"
    ):
        freeze(make_model(), "LISA50")
    with pytest.raises(StrategyError, match="LISA10 freezes no layer"):
        AdaptiveFreezing(make_model(), "LISA10")


def test_frozen_weights_that_train_again_are_not_rounded() -> None:
    model = make_model()
    AdaptiveFreezing(model, "LISA50", frozen_dtype=torch.bfloat16)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    other = make_model()
    prepare(other, Strategy.parse("RND50"), FreezeOptions(frozen_dtype=torch.bfloat16))
    assert {p.dtype for p in other.parameters()} == {torch.float32, torch.bfloat16}


def test_every_kind_has_its_own_place_in_the_report() -> None:
    orders = [kind.order for kind in kinds().values()]
    assert orders == sorted(set(orders))
