"""The roles of a model's parts, on many architectures, against names written down by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, T5Config, T5ForSequenceClassification

from lfreeze import freeze
from lfreeze.blocks import model_parts
from lfreeze.errors import StrategyError
from tests.support.architectures import ARCHITECTURES, LAYERS, build


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_roles(name: str) -> None:
    _, _, embeddings, layers, norms = ARCHITECTURES[name]
    model = build(name)
    parts = model_parts(model)
    names = {id(p): n for n, p in model.named_parameters()}
    roles: dict[str, str] = {}
    for role in ("embeddings", "norm", "head"):
        roles |= {names[id(p)]: role for p in getattr(parts, role)}
    for index, layer in enumerate(parts.layers):
        for parameter in layer.parameters():
            assert names[id(parameter)].startswith(f"{layers}{index}.")
            roles[names[id(parameter)]] = "layer"
    assert len(parts.layers) == LAYERS
    assert set(roles) == set(names.values())
    for parameter, role in roles.items():
        expected = "head"
        for prefixes, label in ((embeddings, "embeddings"), ((layers,), "layer"), (norms, "norm")):
            if parameter.startswith(tuple(prefixes)):
                expected = label
        assert role == expected, parameter


@pytest.mark.parametrize("name", ["gemma", "bert", "gpt2", "mixtral"])
def test_layers_are_in_forward_order(name: str) -> None:
    model, order = build(name).eval(), []
    for index, layer in enumerate(model_parts(model).layers):
        layer.register_forward_hook(lambda *_, index=index: order.append(index))
    model(input_ids=torch.tensor([[3, 4, 5]]))
    assert order == list(range(LAYERS))


def test_a_tied_output_head_belongs_to_the_embeddings() -> None:
    model = GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=3, n_head=2, vocab_size=50))
    parts = model_parts(model)
    assert any(p is model.lm_head.weight for p in parts.embeddings)
    assert not parts.head


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Sequential(nn.Linear(3, 3)), "Sequential has no recognisable transformer layers"),
        (
            nn.ModuleDict({"layers": nn.ModuleList(nn.Linear(4, 4) for _ in range(2))}),
            "does not run on a made-up input",
        ),
        (
            T5ForSequenceClassification(
                T5Config(d_model=32, num_layers=2, vocab_size=50, d_kv=8, num_heads=2, d_ff=32)
            ),
            "more than one stack of layers",
        ),
    ],
)
def test_models_without_clear_roles_are_refused(model: nn.Module, message: str) -> None:
    with pytest.raises(StrategyError, match=message) as caught:
        freeze(model, "BOT50")
    assert "\n" not in str(caught.value)
