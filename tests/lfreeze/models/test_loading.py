"""Checkpoints: what does not fit is refused, what changed is restored."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lfreeze.models.catalog import MODELS, Checkpoint, find_checkpoint, with_folder
from lfreeze.models.files import ModelError
from lfreeze.models.loading import BaseModel, load_tokenizer
from lfreeze.recipe import Recipe

CPU = torch.device("cpu")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A writable copy of tiny-gemma's folder."""
    return Path(shutil.copytree(MODELS["tiny-gemma"].config_file.parent, tmp_path / "model"))


def checkpoint_in(folder: Path) -> Checkpoint:
    return find_checkpoint(with_folder(MODELS["tiny-gemma"], folder))


def load(folder: Path, recipe: Recipe) -> BaseModel:
    return BaseModel(checkpoint_in(folder), 3, recipe, CPU)


def test_reset_restores_every_bit(copy: Path, recipe: Recipe) -> None:
    base = load(copy, recipe)
    model = base.reset(1)
    stored = load_file(copy / "model.safetensors")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
            parameter.requires_grad_(False)
    model = base.reset(1)
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad
        if name != "score.weight":
            assert torch.equal(parameter, stored[name]), name


def test_the_head_depends_on_the_seed_alone(copy: Path, recipe: Recipe) -> None:
    base = load(copy, recipe)
    heads = [base.reset(seed).score.weight.detach().clone() for seed in (1, 2, 1)]
    assert torch.equal(heads[0], heads[2])
    assert not torch.equal(heads[0], heads[1])
    assert heads[0].std().item() == pytest.approx(base.model.config.initializer_range, rel=0.3)


def test_weights_stored_in_lower_precision_are_restored(copy: Path, recipe: Recipe) -> None:
    base = load(copy, recipe)
    layer = base.reset(1).model.layers[0].mlp.up_proj
    layer.weight.data = layer.weight.data.to(torch.bfloat16)
    base.reset(1)
    assert layer.weight.dtype == torch.float32
    assert torch.equal(
        layer.weight, load_file(copy / "model.safetensors")["model.layers.0.mlp.up_proj.weight"]
    )


def test_a_checkpoint_that_lacks_a_tensor_is_refused(copy: Path, recipe: Recipe) -> None:
    tensors = load_file(copy / "model.safetensors")
    del tensors["model.layers.3.mlp.up_proj.weight"]
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks the tensor model\.layers\.3\.mlp\.up_proj\.weight"):
        load(copy, recipe)


def test_a_tensor_of_another_shape_is_refused(copy: Path, recipe: Recipe) -> None:
    tensors = load_file(copy / "model.safetensors")
    tensors["model.norm.weight"] = torch.zeros(3)
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        ModelError, match=r"norm\.weight has the shape \(3,\), its configuration requires \(64,\)"
    ):
        load(copy, recipe)


def test_missing_files_are_named(copy: Path) -> None:
    (copy / "tokenizer.json").unlink()
    (copy / "tokenizer_config.json").unlink()
    with pytest.raises(ModelError, match=r"lacks the file tokenizer\.json"):
        checkpoint_in(copy)


def test_a_tokenizer_without_a_pad_token_is_refused(copy: Path) -> None:
    file = copy / "tokenizer_config.json"
    values = json.loads(file.read_text())
    values.pop("pad_token")
    file.write_text(json.dumps(values))
    with pytest.raises(ModelError, match="has no pad token"):
        load_tokenizer(checkpoint_in(copy))
