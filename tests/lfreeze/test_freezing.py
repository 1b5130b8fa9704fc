"""freeze(): exactly what the plan says trains, on every architecture."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lfreeze import freeze, merge_lora
from lfreeze.blocks import model_parts
from lfreeze.errors import StrategyError
from lfreeze.freeze_proof import FreezeProof
from lfreeze.optimizers import drop_frozen
from lfreeze.plan import FreezePlan
from lfreeze.strategy import Strategy
from tests.lfreeze.training.test_loop import make_model
from tests.support.architectures import ARCHITECTURES, LAYERS, build


def backward(model: nn.Module) -> None:
    ids = torch.randint(3, 50, (2, 7), generator=torch.Generator().manual_seed(0))
    F.cross_entropy(model(input_ids=ids).logits, torch.tensor([0, 1])).backward()


def frozen_layers(model: nn.Module) -> list[int]:
    layers = enumerate(model_parts(model).layers)
    return [i for i, layer in layers if not any(p.requires_grad for p in layer.parameters())]


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("strategy", ["BOT50", "TOP25", "INT33"])
def test_only_trainable_parameters_get_gradients(name: str, strategy: str) -> None:
    model = build(name).train()
    plan = freeze(model, strategy)
    assert (
        frozen_layers(model)
        == list(Strategy.parse(strategy).frozen_layers(LAYERS))
        == list(plan.frozen_layers)
    )
    parts = model_parts(model)
    assert all(p.requires_grad for p in (*parts.norm, *parts.head))
    assert plan.embeddings_frozen is (strategy == "BOT50")
    proof = FreezeProof(model)
    proof.observe_depth()
    backward(model)
    got = {n for n, p in model.named_parameters() if p.grad is not None}
    # An expert that no token was sent to, or a pooler that is not read, has no gradient.
    assert got <= {n for n, p in model.named_parameters() if p.requires_grad}
    layers = model_parts(model).layers
    for index, layer in enumerate(layers):
        assert any(p.grad is not None for p in layer.parameters()) is (index not in plan.frozen_layers)
    depth = proof.conclude(torch.optim.SGD([p for p in model.parameters() if p.requires_grad])).backward_depth
    assert depth == plan.backward_depth == (LAYERS // 2 if strategy == "BOT50" else LAYERS)


@pytest.mark.parametrize(("setting", "frozen"), [("auto", True), ("yes", True), ("no", False)])
def test_embeddings(setting: str, frozen: bool) -> None:
    model = make_model()
    plan = freeze(model, "BOT50", freeze_embeddings=setting)
    assert plan.embeddings_frozen is frozen
    assert model.model.embed_tokens.weight.requires_grad is not frozen
    assert plan.backward_depth == (2 if frozen else 4)
    assert freeze(model, "TOP50", freeze_embeddings=setting).embeddings_frozen is (setting == "yes")
    with pytest.raises(StrategyError, match="'maybe' is not one of auto, yes, no"):
        freeze(model, "BOT50", freeze_embeddings="maybe")


def test_a_second_strategy_replaces_the_first() -> None:
    model = make_model()
    freeze(model, "BOT50")
    freeze(model, "TOP25")
    assert frozen_layers(model) == [3]
    freeze(model, "ALL")
    assert all(p.requires_grad for p in model.parameters())


def test_lora_trains_adapters_and_head_and_can_be_undone() -> None:
    model = make_model()
    ids = torch.tensor([[3, 4, 5, 6]])
    before, names = model(input_ids=ids).logits, [n for n, _ in model.named_modules()]
    plan = freeze(model, "LoRA", lora_rank=4)
    training = {n for n, p in model.named_parameters() if p.requires_grad}
    assert training == {n for n, _ in model.named_parameters() if "lora_" in n or n == "score.weight"}
    # Rank 4 on q (32 -> 32) and v (32 -> 16) of four layers, and the head.
    assert plan.trainable_parameters == 4 * 4 * ((32 + 32) + (32 + 16)) + 3 * 32
    assert plan.backward_depth == 4
    assert torch.equal(model(input_ids=ids).logits, before)
    Strategy.parse("LoRA").implementation.undo(model)
    assert [n for n, _ in model.named_modules()] == names
    assert torch.equal(model(input_ids=ids).logits, before)


def test_a_merged_lora_is_saved_and_loaded_like_any_model(tmp_path: Path) -> None:
    model = build("llama").eval()
    names = set(dict(model.named_parameters()))
    freeze(model, "LoRA", lora_dropout=0.0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(generator=torch.Generator().manual_seed(len(name)))
    ids = torch.randint(3, 50, (2, 7), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = model(input_ids=ids).logits
        merge_lora(model)
        model.save_pretrained(tmp_path)
        again = type(model).from_pretrained(tmp_path, dtype=torch.float32).eval()
        torch.testing.assert_close(again(input_ids=ids).logits, before, atol=1e-5, rtol=1e-5)
        assert not torch.allclose(build("llama").eval()(input_ids=ids).logits, before, atol=1e-3)
    assert set(dict(again.named_parameters())) == names


def test_lora_targets_are_a_list_of_names() -> None:
    for targets in ("q_proj,v_proj", [1]):
        with pytest.raises(StrategyError, match="is not a list of names"):
            freeze(build("llama"), "LoRA", lora_targets=targets)


def test_lora_on_an_architecture_without_its_targets_is_refused() -> None:
    with pytest.raises(StrategyError, match=r"no module named q_proj, v_proj in GPT2.*lora_targets"):
        freeze(build("gpt2"), "LoRA", lora_targets=("q_proj", "v_proj"))
    # Not in peft's table.
    with pytest.raises(StrategyError, match=r"no module named q_proj, v_proj in ModernBert.*lora_targets"):
        freeze(build("modernbert"), "LoRA")
    with pytest.raises(StrategyError, match=r"no module named valu in BertForSequenceClassification"):
        freeze(build("bert"), "LoRA", lora_targets=("query", "valu"))
    assert freeze(build("gpt2"), "LoRA", lora_targets=("c_attn",)).trainable_parameters > 0


def test_models_with_adapters_are_refused() -> None:
    model = make_model()
    freeze(model, "LoRA")
    for strategy in ("BOT50", "LoRA"):
        with pytest.raises(StrategyError, match="has adapters already"):
            freeze(model, strategy)


@pytest.mark.parametrize(
    "config", ["PrefixTuningConfig", "PromptTuningConfig", "PromptEncoderConfig", "IA3Config"]
)
def test_models_of_peft_are_refused(config: str) -> None:
    peft = pytest.importorskip("peft")
    sizes = (
        {"num_virtual_tokens": 3}
        if config != "IA3Config"
        else {"target_modules": ["q_proj"], "feedforward_modules": []}
    )
    model = peft.get_peft_model(build("llama"), getattr(peft, config)(task_type="SEQ_CLS", **sizes))
    for part in (model, model.base_model):
        if getattr(part, "peft_config", None):
            with pytest.raises(StrategyError, match="has adapters already"):
                freeze(part, "BOT50")


def test_merging_a_peft_model_keeps_its_trained_head() -> None:
    peft = pytest.importorskip("peft")
    base = build("llama").eval()
    config = peft.LoraConfig(task_type="SEQ_CLS", target_modules=["q_proj"], modules_to_save=["score"])
    model = peft.get_peft_model(base, config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.normal_(generator=torch.Generator().manual_seed(len(name)))
    ids = torch.tensor([[3, 4, 5, 6]])
    before = model(input_ids=ids).logits
    merge_lora(model)
    torch.testing.assert_close(base(input_ids=ids).logits, before, atol=1e-5, rtol=1e-5)
    assert type(base.score) is nn.Linear
    assert set(dict(base.named_parameters())) == set(dict(build("llama").named_parameters()))


def test_freeze_refers_adaptive_strategies_to_adaptive_freezing() -> None:
    with pytest.raises(StrategyError, match=r"use AdaptiveFreezing\(model, 'ADT-L50'\)"):
        freeze(make_model(), "ADT-L50")


def test_a_plan_prints_its_layers_and_parameters() -> None:
    text = str(freeze(make_model(), "BOT50"))
    assert text.startswith("BOT50: 2 of 4 layers frozen")
    assert "■■□□" in text
    assert "embeddings  frozen" in text
    assert "crosses 2 of 4 layers" in text


def test_a_plan_is_counted_by_hand() -> None:
    model = make_model()
    plan = freeze(model, "INT50")
    layer = sum(p.numel() for p in model.model.layers[0].parameters())
    total = sum(p.numel() for p in model.parameters())
    head = 3 * 32
    assert plan == FreezePlan("INT50", 4, (1, 3), False, total - 2 * layer, total, 4, head)


def test_sharded_models_are_refused() -> None:
    model = make_model()
    model.model.norm.weight.ds_id = 3
    with pytest.raises(StrategyError, match=r"is sharded.*not supported"):
        freeze(model, "BOT50")


def test_the_optimiser_keeps_the_moments_of_remaining_parameters() -> None:
    model = make_model()
    body = [p for n, p in model.named_parameters() if n != "score.weight"]
    optimizer = torch.optim.AdamW([{"params": body}, {"params": [model.score.weight], "lr": 0.1}])
    backward(model)
    optimizer.step()
    kept = {n: optimizer.state[p]["exp_avg"].clone() for n, p in model.named_parameters()}
    freeze(model, "BOT50")
    drop_frozen([optimizer])
    held = [p for group in optimizer.param_groups for p in group["params"]]
    assert {id(p) for p in held} == {id(p) for p in model.parameters() if p.requires_grad}
    assert optimizer.param_groups[1]["params"] == [model.score.weight]
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert torch.equal(optimizer.state[parameter]["exp_avg"], kept[name])
        else:
            assert parameter not in optimizer.state
            assert parameter.grad is None
