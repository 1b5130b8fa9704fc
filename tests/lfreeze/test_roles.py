"""Roles by order of execution: what runs before the layers, between them, behind them, and beside them.

The right roles are written down by hand; the right depth is what a real backward pass crosses.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers as hf
from torch import nn

from lfreeze import freeze
from lfreeze.blocks import model_parts
from lfreeze.errors import StrategyError
from lfreeze.freeze_proof import FreezeProof

SIZES: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4, "vocab_size": 99,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "max_position_embeddings": 64,
}  # fmt: skip
SEQ2SEQ: dict[str, Any] = {
    "d_model": 32, "encoder_layers": 12, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "vocab_size": 99, "pad_token_id": 0,
}  # fmt: skip
VISION: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4,
    "image_size": 16, "patch_size": 8,
}  # fmt: skip
IDS = {"input_ids": torch.tensor([[5, 6, 7, 8, 9, 10]])}
IMAGE = {"pixel_values": torch.zeros(1, 3, 16, 16) + torch.arange(16) / 16}


def deberta(**changes: Any) -> nn.Module:
    relative = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "norm_rel_ebd": "layer_norm"}
    buckets = {"position_buckets": 16, "position_biased_input": False, "type_vocab_size": 0}
    return hf.DebertaV2ForSequenceClassification(
        hf.DebertaV2Config(**SIZES, **relative, **buckets, **changes)
    )


def gemma3n() -> nn.Module:
    return hf.Gemma3nForCausalLM(
        hf.Gemma3nTextConfig(
            **SIZES, head_dim=8, num_key_value_heads=1, hidden_size_per_layer_input=8, vocab_size_per_layer_input=99,
            laurel_rank=4, altup_num_inputs=2, num_kv_shared_layers=0, activation_sparsity_pattern=[0.0] * 4,
            layer_types=["full_attention"] * 4,
        )
    )  # fmt: skip


# A model, a batch, and the prefixes of its embeddings, its layers, what is between them, and its final norms.
# What has none of them is the head.
Case = tuple[Callable[[], nn.Module], dict[str, Any], tuple[str, ...], str, tuple[str, ...], tuple[str, ...]]
CASES: dict[str, Case] = {
    "a norm after the embeddings (BLOOM)": (
        lambda: hf.BloomForSequenceClassification(
            hf.BloomConfig(hidden_size=32, n_layer=4, n_head=4, vocab_size=99, pad_token_id=0)
        ),
        IDS, ("transformer.word_embeddings",), "transformer.h.", (), ("transformer.ln_f",),
    ),
    "positions that every layer reads (DeBERTa-v3)": (
        deberta,
        IDS, ("deberta.embeddings.", "deberta.encoder.rel_embeddings", "deberta.encoder.LayerNorm"),
        "deberta.encoder.layer.", (), (),
    ),
    "a convolution beside the first layer (DeBERTa-v2-xlarge)": (
        lambda: deberta(conv_kernel_size=3, conv_act="gelu"),
        IDS, ("deberta.embeddings.", "deberta.encoder.rel_embeddings", "deberta.encoder.LayerNorm"),
        "deberta.encoder.layer.", ("deberta.encoder.conv.",), (),
    ),
    "a projection after the embeddings (ConvBERT)": (
        lambda: hf.ConvBertForSequenceClassification(hf.ConvBertConfig(**SIZES, embedding_size=16, head_ratio=2)),
        IDS, ("convbert.embeddings.", "convbert.embeddings_project."), "convbert.encoder.layer.", (), (),
    ),
    "a decoder with positions and a norm (BART)": (
        lambda: hf.BartForCausalLM(hf.BartConfig(**(SEQ2SEQ | {"decoder_layers": 4}))),
        IDS, ("model.decoder.embed_tokens.", "model.decoder.embed_positions.", "model.decoder.layernorm_embedding."),
        "model.decoder.layers.", (), (),
    ),
    "inputs of every layer (Gemma 3n)": (
        gemma3n,
        IDS, ("model.embed_tokens", "model.per_layer_", "model.altup_projections."), "model.layers.", (), ("model.norm",),
    ),
    "parameters without a module (XLNet)": (
        lambda: hf.XLNetForSequenceClassification(
            hf.XLNetConfig(vocab_size=99, d_model=32, n_layer=4, n_head=4, d_inner=48)
        ),
        IDS, ("transformer.word_embedding.", "transformer.mask_emb"), "transformer.layer.", (), (),
    ),
    "patches (ViT)": (
        lambda: hf.ViTForImageClassification(hf.ViTConfig(**VISION)),
        IMAGE, ("vit.embeddings.",), "vit.layers.", (), ("vit.layernorm.",),
    ),
    "patches and a norm before the layers (CLIP)": (
        lambda: hf.CLIPVisionModel(hf.CLIPVisionConfig(**VISION)),
        IMAGE, ("embeddings.", "pre_layrnorm."), "encoder.layers.", (), ("post_layernorm.",),
    ),
    "stages with a map between them (Swin)": (
        lambda: hf.SwinForImageClassification(
            hf.SwinConfig(image_size=32, patch_size=4, embed_dim=16, depths=[2, 2], num_heads=[2, 2], window_size=2)
        ),
        {"pixel_values": torch.rand(1, 3, 32, 32)},
        ("swin.embeddings.",), "swin.encoder.layers.", ("swin.encoder.layers.0.downsample.",), ("swin.layernorm.",),
    ),
    "convolutions and positions (Wav2Vec2)": (
        lambda: hf.Wav2Vec2ForSequenceClassification(
            hf.Wav2Vec2Config(
                **{k: SIZES[k] for k in list(SIZES)[:4]}, conv_dim=(16, 16), conv_stride=(5, 2), conv_kernel=(10, 3),
                num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=2,
            )
        ),
        {"input_values": torch.rand(1, 400)},
        ("wav2vec2.masked_spec_embed", "wav2vec2.feature_", "wav2vec2.encoder.pos_conv_embed.", "wav2vec2.encoder.layer_norm."),
        "wav2vec2.encoder.layers.", (), (),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_parts_have_the_role_in_which_they_run(case: str) -> None:
    make, _, embeddings, layers, between, norms = CASES[case]
    model = make()
    parts = model_parts(model)
    names = {id(p): name for name, p in model.named_parameters()}
    roles = {names[id(p)]: role for role in ("embeddings", "norm", "head") for p in getattr(parts, role)}
    roles |= {names[id(p)]: "between" for extra in parts.between for p in extra}
    assert parts.unobserved is None
    assert {id(p) for i in range(4) for p in parts.layers[i].parameters()} == {
        key for key, name in names.items() if name.startswith(layers) and not name.startswith(between or "-")
    }
    for name in set(names.values()) - set(roles):
        assert name.startswith(layers), name
    for name, role in roles.items():
        prefixes = {"embeddings": embeddings, "between": between, "norm": norms}
        assert role == next((r for r, p in prefixes.items() if name.startswith(p or "-")), "head"), name


@pytest.mark.parametrize("strategy", ["BOT50", "TOP25", "INT50"])
@pytest.mark.parametrize("case", CASES)
def test_the_plans_depth_is_the_backward_passes(case: str, strategy: str) -> None:
    make, batch, *_ = CASES[case]
    torch.manual_seed(0)
    model = make()
    plan = freeze(model, strategy)
    assert plan.embeddings_frozen is (strategy == "BOT50")
    proof = FreezeProof(model)
    proof.observe_depth()
    output = model(**batch)
    next(t for t in output.values() if isinstance(t, torch.Tensor)).float().pow(2).mean().backward()
    depth = proof.conclude(torch.optim.SGD(model.parameters())).backward_depth
    assert depth == plan.backward_depth == (2 if strategy == "BOT50" else 4)
    assert not [n for n, p in model.named_parameters() if p.grad is not None and not p.requires_grad]


def test_observing_leaves_no_trace() -> None:
    model = CASES["a norm after the embeddings (BLOOM)"][0]().train()
    model.transformer.h[1].eval()  # type: ignore[union-attr, index]
    flags = [i % 3 > 0 for i, _ in enumerate(model.parameters())]
    for parameter, flag in zip(model.parameters(), flags, strict=True):
        parameter.requires_grad_(flag)
    before, modes = torch.get_rng_state(), [m.training for m in model.modules()]
    model_parts(model)
    assert torch.equal(torch.get_rng_state(), before)
    assert [p.requires_grad for p in model.parameters()] == flags
    assert [m.training for m in model.modules()] == modes
    assert all(p.grad is None and not p.grad_fn for p in model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_a_model_without_data_is_observed_too() -> None:
    with torch.device("meta"):
        model = CASES["a norm after the embeddings (BLOOM)"][0]()
    parts = model_parts(model)
    assert parts.unobserved is None
    norm = model.transformer.word_embeddings_layernorm  # type: ignore[union-attr]
    assert any(p is norm.weight for p in parts.embeddings)  # type: ignore[union-attr]


def test_new_parameters_are_observed_again() -> None:
    model = CASES["a norm after the embeddings (BLOOM)"][0]()
    model_parts(model)
    new = nn.Embedding(120, 32)
    model.set_input_embeddings(new)  # type: ignore[operator]
    assert any(p is new.weight for p in model_parts(model).embeddings)


class Custom(nn.Module):
    """A model of its own kind, whose input cannot be guessed."""

    def __init__(self) -> None:
        super().__init__()
        self.inlet = nn.Linear(3, 8)
        self.blocks = nn.ModuleList(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True) for _ in range(4))
        self.outlet = nn.Linear(8, 2)

    def forward(self, signal: torch.Tensor, scale: float) -> torch.Tensor:
        hidden = self.inlet(signal) * scale
        for block in self.blocks:
            hidden = block(hidden)
        return self.outlet(hidden.mean(1))


def test_an_example_shows_what_a_made_up_input_cannot() -> None:
    model = Custom()
    with pytest.raises(StrategyError, match=r"does not run on a made-up input.*example="):
        freeze(model, "BOT50")
    with pytest.raises(StrategyError, match=r"does not run on the example \(TypeError"):
        freeze(model, "BOT50", example={"signal": torch.rand(1, 5, 3)})
    plan = freeze(model, "BOT50", example={"signal": torch.rand(1, 5, 3), "scale": 1.0})
    assert not model.inlet.weight.requires_grad
    assert (plan.embeddings_frozen, plan.backward_depth, plan.head_parameters) == (True, 2, 8 * 2 + 2)


class Wrapper(nn.Module):
    """A model of transformers with a head of one's own, and a forward method that takes a dictionary."""

    def __init__(self, head_first: bool = False) -> None:
        super().__init__()
        if head_first:
            self.outlet = nn.Linear(32, 2)
        self.encoder = hf.BertModel(hf.BertConfig(**SIZES))
        if not head_first:
            self.outlet = nn.Linear(32, 2)

    def forward(self, features: dict[str, torch.Tensor]) -> torch.Tensor:
        return self.outlet(self.encoder(**features).last_hidden_state.mean(1))


class Pooled(nn.Module):
    """A wrapper without parameters of its own, as sentence-transformers has them."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = hf.BertModel(hf.BertConfig(**SIZES))

    def forward(self, features: dict[str, torch.Tensor]) -> torch.Tensor:
        return self.encoder(**features).last_hidden_state.mean(1)


def test_a_model_in_a_wrapper_without_parameters_is_observed_itself() -> None:
    model = Pooled()
    plan = freeze(model, "BOT50")
    assert (plan.embeddings_frozen, plan.backward_depth, plan.n_layers) == (True, 2, 4)
    assert not model.encoder.embeddings.word_embeddings.weight.requires_grad


@pytest.mark.parametrize("head_first", [False, True])
def test_a_wrapper_with_parameters_needs_an_example(head_first: bool) -> None:
    """Its own parts might run before the layers or behind them."""
    model = Wrapper(head_first)
    with pytest.raises(
        StrategyError, match=r"Wrapper does not run on a made-up input \(its arguments are not known\)"
    ):
        freeze(model, "BOT50")
    with pytest.raises(StrategyError, match="example is a Tensor, not a mapping"):
        freeze(model, "BOT50", example=IDS["input_ids"])
    plan = freeze(model, "BOT50", example={"features": IDS})
    assert (plan.backward_depth, plan.head_parameters) == (2, 32 * 2 + 2 + 32 * 32 + 32)
    assert model.outlet.weight.requires_grad


class Plain(nn.Module):
    """torch's own encoder, with a head whose weight is that of the embeddings."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(99, 32)
        layer = nn.TransformerEncoderLayer(32, 4, 48, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 4)
        self.outlet = nn.Linear(32, 99)
        self.outlet.weight = self.tokens.weight

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self.outlet(self.encoder(self.tokens(ids), src_key_padding_mask=mask))


def test_torchs_own_encoder_with_a_mask() -> None:
    """Its fast path in evaluation mode does not suit layers of which some are frozen."""
    mask = torch.tensor([[False] * 4 + [True] * 2])
    fast = torch.backends.mha.get_fastpath_enabled()
    model = Plain()
    plan = freeze(model, "BOT50", example={"ids": IDS["input_ids"], "mask": mask})
    assert (plan.backward_depth, plan.frozen_layers, plan.head_tied) == (2, (0, 1), True)
    assert "head        frozen, tied to the embeddings" in str(plan)
    assert "head        trains, tied to the embeddings" in str(freeze(model, "TOP50"))
    assert torch.backends.mha.get_fastpath_enabled() is fast


def test_what_trains_beside_a_tied_head_is_counted() -> None:
    model = hf.BertForMaskedLM(hf.BertConfig(**SIZES))
    plan = freeze(model, "BOT50")
    assert plan.head_parameters == (32 * 32 + 32) + (32 + 32) + 99  # transform, its norm, the output's bias
    assert "frozen, tied to the embeddings; its other 1,219 parameters train" in str(plan)


class ManyHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = hf.BertModel(hf.BertConfig(**SIZES), add_pooling_layer=False)
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Linear(32, 16), nn.LayerNorm(16), nn.Linear(16, 2)) for _ in range(3)
        )

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        hidden = self.backbone(input_ids).last_hidden_state[:, 0]
        return torch.stack([head(hidden) for head in self.heads])


def test_a_list_of_heads_is_no_stack_of_layers() -> None:
    model = ManyHeads()
    plan = freeze(model, "BOT50")
    assert (plan.n_layers, plan.backward_depth, plan.others_frozen) == (4, 2, None)
    assert all(p.requires_grad for p in model.heads.parameters())
    assert plan.head_parameters == sum(p.numel() for p in model.heads.parameters())


def test_inputs_that_are_made_to_require_gradients_deepen_the_plan() -> None:
    model = CASES["a norm after the embeddings (BLOOM)"][0]()
    model.enable_input_require_grads()  # type: ignore[operator]
    assert freeze(model, "BOT50").backward_depth == 4
    model.disable_input_require_grads()  # type: ignore[operator]
    assert freeze(model, "BOT50").backward_depth == 2


def llava() -> nn.Module:
    text = hf.LlamaConfig(**SIZES, num_key_value_heads=2).to_dict()
    vision = hf.CLIPVisionConfig(**(VISION | {"hidden_size": 16, "num_hidden_layers": 2})).to_dict()
    config = hf.LlavaConfig(vision_config=vision, text_config=text, image_token_id=5)
    return hf.LlavaForConditionalGeneration(config)


def bart(
    config: type = hf.BartConfig, model: type = hf.BartForConditionalGeneration, **changes: Any
) -> nn.Module:
    result: nn.Module = model(config(**(SEQ2SEQ | changes)))
    return result


STACKS = {
    "LLaVA": (llava, "model.language_model.layers", 4, "model.vision_tower.", "model.multi_modal_projector."),
    "BART": (bart, "model.decoder.layers", 2, "model.encoder.", None),
    "Whisper": (
        lambda: bart(hf.WhisperConfig, hf.WhisperForConditionalGeneration, max_source_positions=32, num_mel_bins=8),
        "model.encoder.layers", 12, "model.decoder.", None,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", STACKS)
@pytest.mark.parametrize("strategy", ["BOT50", "LoRA", "ALL"])
def test_several_stacks_are_refused_unless_one_is_chosen(name: str, strategy: str) -> None:
    make, stack, *_ = STACKS[name]
    with pytest.raises(
        StrategyError, match=rf"more than one stack of layers.* {stack} \(\d+\).*stack="
    ) as caught:
        freeze(make(), strategy)
    assert "\n" not in str(caught.value)
    with pytest.raises(StrategyError, match=r"stack = 'layers' is not a stack of layers of .*which has "):
        freeze(make(), strategy, stack="layers")
    with pytest.raises(StrategyError, match="others = 'keep' is not one of freeze, train"):
        freeze(make(), strategy, stack=stack, others="keep")


def image_and_text() -> dict[str, Any]:
    ids = torch.tensor([[6, *[5] * 4, 7]])  # 5 stands for a patch of the image
    return {"input_ids": ids, **IMAGE}


def test_a_tower_that_the_made_up_input_does_not_reach_needs_an_example() -> None:
    """Without an image, its training would seem not to deepen the backward pass."""
    with pytest.raises(
        StrategyError, match=r"does not reach the parts with other stacks.*example=.*others='freeze'"
    ):
        freeze(llava(), "BOT50", stack="model.language_model.layers", others="train")


def test_a_layer_whose_output_is_not_used_is_not_crossed() -> None:
    """LLaVA reads the output of its vision tower's last layer but one."""
    model = llava()
    plan = freeze(model, "BOT50", stack="model.vision_tower.encoder.layers", example=image_and_text())
    assert (plan.n_layers, plan.frozen_layers) == (2, (0,))
    proof = FreezeProof(model, "model.vision_tower.encoder.layers")
    proof.observe_depth()
    model(**image_and_text()).logits.pow(2).mean().backward()
    depth = proof.conclude(torch.optim.SGD(model.parameters())).backward_depth
    assert plan.backward_depth == depth


@pytest.mark.parametrize("name", STACKS)
@pytest.mark.parametrize("others", ["freeze", "train"])
@pytest.mark.parametrize("strategy", ["BOT50", "LoRA"])
def test_a_chosen_stack(name: str, others: str, strategy: str) -> None:
    make, stack, n_layers, tower, projector = STACKS[name]
    model = make()
    example = image_and_text() if name == "LLaVA" else None
    plan = freeze(model, strategy, stack=stack, others=others, example=example)
    assert plan.n_layers == n_layers
    assert plan.others_frozen is (others == "freeze")
    assert f"others      {'frozen' if others == 'freeze' else 'train'}" in str(plan)
    trains = {n for n, p in model.named_parameters() if p.requires_grad}
    assert any(n.startswith(tower) for n in trains) is (others == "train")
    assert all("lora_" not in n or n.startswith(stack) for n in trains)
    if projector:
        assert not any(n.startswith(projector) for n in trains)
    if strategy == "BOT50":
        inside = {n.split(".")[stack.count(".") + 1] for n in trains if n.startswith(stack)}
        assert inside == {str(i) for i in range(n_layers // 2, n_layers)}
        # The decoder reads the encoder in every layer; the language model reads the vision tower.
        reaches = others == "train" and name in ("BART", "LLaVA")
        assert plan.backward_depth == (n_layers if reaches or strategy == "LoRA" else n_layers // 2)


def test_layers_in_nested_lists_are_one_stack() -> None:
    model = hf.FunnelForSequenceClassification(
        hf.FunnelConfig(vocab_size=99, block_sizes=[2, 2, 2], d_model=32, n_head=4, d_head=8, d_inner=48)
    )
    plan = freeze(model, "BOT50")
    assert (plan.n_layers, plan.frozen_layers, plan.backward_depth) == (6, (0, 1, 2), 3)
    blocks = model.funnel.encoder.blocks
    trains = [any(p.requires_grad for p in layer.parameters()) for block in blocks for layer in block]
    assert trains == [False] * 3 + [True] * 3


@pytest.mark.parametrize("groups", [1, 2])
def test_layers_that_run_repeatedly_are_refused(groups: int) -> None:
    model = hf.AlbertModel(hf.AlbertConfig(**SIZES, embedding_size=16, num_hidden_groups=groups))
    with pytest.raises(StrategyError, match=rf"runs its {groups} layers? 4 times in one forward pass"):
        freeze(model, "ALL")


def test_layers_that_share_parameters_are_refused() -> None:
    model = Custom()
    model.blocks[2].linear1 = model.blocks[1].linear1  # type: ignore[union-attr]
    with pytest.raises(StrategyError, match="the layers of Custom share parameters"):
        freeze(model, "BOT50")


@pytest.mark.parametrize(
    ("model_class", "config_class", "head", "embeddings"),
    [
        (hf.LlamaForCausalLM, hf.LlamaConfig, "lm_head", "model.embed_tokens"),
        (hf.BertForMaskedLM, hf.BertConfig, "cls.predictions.decoder", "bert.embeddings.word_embeddings"),
        (
            hf.XLMRobertaForMaskedLM,
            hf.XLMRobertaConfig,
            "lm_head.decoder",
            "roberta.embeddings.word_embeddings",
        ),
    ],
)
def test_a_tied_head_is_named(model_class: Any, config_class: Any, head: str, embeddings: str) -> None:
    model = model_class(config_class(**SIZES, tie_word_embeddings=True))
    plan = freeze(model, "BOT50")
    assert model.get_submodule(head).weight is model.get_submodule(embeddings).weight
    assert not model.get_submodule(embeddings).weight.requires_grad
    assert plan.head_tied
    assert "head        frozen, tied to the embeddings" in str(plan)
    assert "head        trains, tied to the embeddings" in str(freeze(model, "TOP50"))


def test_an_untied_heads_share_is_given() -> None:
    model = hf.LlamaForCausalLM(hf.LlamaConfig(**SIZES, tie_word_embeddings=False))
    plan = freeze(model, "BOT50")
    assert not plan.head_tied
    assert plan.head_parameters == 99 * 32
    assert f"trains, 3,168 parameters ({3168 / plan.trainable_parameters:.1%} of those that train)" in str(
        plan
    )
