"""``PrefixCache`` in a training loop of one's own: the plain numbers, or a refusal in one sentence."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    BartConfig,
    BartForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
)

from lfreeze import PrefixCache, freeze
from lfreeze.errors import StrategyError

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "vocab_size": 50,
    "initializer_range": 0.2,
    "pad_token_id": 0,
}
KEYS = [0, 1, 2]


def half_frozen() -> Any:
    torch.manual_seed(0)
    model = LlamaForSequenceClassification(LlamaConfig(**SIZES))
    freeze(model, "BOT50")
    return model


def batch(*lengths: int) -> dict[str, torch.Tensor]:
    drawn = torch.Generator().manual_seed(sum(lengths))
    ids = torch.zeros(len(lengths), max(lengths), dtype=torch.long)
    for row, length in enumerate(lengths):
        ids[row, :length] = torch.randint(3, 50, (length,), generator=drawn)
    return {"input_ids": ids, "attention_mask": (ids != 0).long()}


def assert_plain(model: Any, prefix: PrefixCache, inputs: dict[str, torch.Tensor]) -> None:
    plain = model(**inputs).logits
    with prefix.reuse(KEYS, inputs):
        torch.testing.assert_close(model(**inputs).logits, plain)


@pytest.mark.parametrize("assign", [False, True])
def test_weights_that_are_loaded_later_are_noticed(assign: bool) -> None:
    model = half_frozen()
    prefix, inputs = PrefixCache(model), batch(5, 7, 3)
    assert_plain(model, prefix, inputs)
    before = model(**inputs).logits
    model.load_state_dict({n: 1.5 * t for n, t in model.state_dict().items()}, assign=assign)
    assert not torch.allclose(model(**inputs).logits, before)
    assert_plain(model, prefix, inputs)


def test_adapters_that_are_added_later_are_refused() -> None:
    model = half_frozen()
    prefix, inputs = PrefixCache(model), batch(5, 7, 3)
    assert_plain(model, prefix, inputs)
    get_peft_model(model, LoraConfig(target_modules=["q_proj"], init_lora_weights=False))
    with pytest.raises(StrategyError, match="not there when PrefixCache was created trains now"):
        prefix.fill(KEYS, inputs)


@pytest.mark.parametrize("lengths", [(1, 1, 1), (5, 7, 3)])
def test_a_key_of_two_lengths_is_refused(lengths: tuple[int, ...]) -> None:
    model = half_frozen()
    prefix = PrefixCache(model)
    prefix.fill(KEYS, batch(*lengths))
    with pytest.raises(StrategyError, match=rf"the key 0 is .* {lengths[0]} tokens, .* with 4: give each"):
        prefix.fill(KEYS, batch(4, 6, 5))
    with pytest.raises(StrategyError, match="the key 9 is"):
        prefix.fill([9, 9, 9], batch(4, 6, 5))


def test_a_head_of_zeros_is_no_change_of_output() -> None:
    model = half_frozen()
    torch.nn.init.zeros_(model.score.weight)
    prefix, inputs = PrefixCache(model), batch(5, 7, 3)
    prefix.fill(KEYS, inputs)
    torch.nn.init.ones_(model.score.weight)
    assert_plain(model, prefix, inputs)


def test_a_head_of_zeros_does_not_hide_states_of_other_weights() -> None:
    model, inputs = half_frozen(), batch(5, 7, 3)
    torch.nn.init.zeros_(model.score.weight)
    states: dict[Any, torch.Tensor] = {}
    PrefixCache(model, states=states).fill(KEYS, inputs)
    with torch.no_grad():
        model.model.layers[0].mlp.down_proj.weight.mul_(2)
    with pytest.raises(StrategyError, match="the states are of other weights"):
        PrefixCache(model, states=states).fill(KEYS, inputs)


def test_nothing_is_computed_for_layers_with_dropout_in_training() -> None:
    model = BertForSequenceClassification(BertConfig(**SIZES))
    freeze(model, "BOT50")
    prefix, runs = PrefixCache(model.train()), []
    model.bert.encoder.layer[0].register_forward_hook(lambda *_: runs.append(1))
    counts = []
    for number in range(3):
        inputs = batch(4, 5, 6 + number)
        with prefix.reuse([f"{number} {key}" for key in KEYS], inputs):
            model(**inputs)
        counts.append(len(runs))
    assert counts[2] - counts[1] == counts[1] - counts[0] == 1


def test_the_layers_of_a_decoder_beside_an_encoder_are_refused() -> None:
    sizes = {f"{part}_{name}": 2 for part in ("encoder", "decoder") for name in ("layers", "attention_heads")}
    config = BartConfig(d_model=32, encoder_ffn_dim=64, decoder_ffn_dim=64, vocab_size=50, **sizes)
    model = BartForSequenceClassification(config)
    model.requires_grad_(False)
    model.model.decoder.layers[1].requires_grad_(True)
    with pytest.raises(StrategyError, match=r"the layers at model\.decoder\.layers of BartFor.* a decoder's"):
        PrefixCache(model, stack="model.decoder.layers")


@pytest.mark.parametrize(
    ("keys", "changed", "words"),
    [
        (KEYS, {"attention_mask": torch.zeros(3, 1, 7, 7)}, r"not \(3, 1, 7, 7\)"),
        (KEYS, {"attention_mask": {"full_attention": None}}, "not dict"),
        (KEYS, {"input_ids": torch.zeros(3, 7, device="meta")}, "meta device"),
        (torch.tensor(KEYS), {}, r"tolist\(\) of a tensor"),
        ([[0], [1], [2]], {}, "values that can be compared"),
        (KEYS[:2], {}, "2 keys are given for a batch of 3 examples"),
    ],
)
def test_odd_input_is_refused(keys: Any, changed: dict[str, Any], words: str) -> None:
    model = half_frozen()
    with pytest.raises(StrategyError, match=words):
        PrefixCache(model).fill(keys, batch(5, 7, 3) | changed)
