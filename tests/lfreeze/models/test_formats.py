"""Checkpoints that hold no whole model in full precision: adapters, quantised weights, damaged files."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from lfreeze import hub
from lfreeze.models.catalog import find_checkpoint, get_model, model_availability
from lfreeze.models.files import ModelError
from lfreeze.models.preflight import inspect_model
from lfreeze.recipe import Recipe
from tests.support.checkpoints import tokenizer_files, write_causal, write_minicpm


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_causal(tmp_path / "m")
    return tmp_path / "m"


def refusal(folder: Path, *, planned: bool = True) -> str:
    """The sentence with which a trial refuses a folder, and, if ``planned``, also a plan."""
    card = get_model(str(folder))
    with pytest.raises(ModelError) as caught:
        find_checkpoint(card)
    message = str(caught.value)
    assert message.startswith("model m: ")
    assert "\n" not in message
    if planned:
        with pytest.raises(ModelError) as in_plan:
            _ = card.config
        assert str(in_plan.value) == message
    return message


def configure(folder: Path, **values: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 32}}, "(gptq, 4 bits)"),
        ({"quantization_config": {"quant_method": "awq", "bits": 4}}, "(awq, 4 bits)"),
        ({"quantization_config": {"load_in_4bit": True}}, "(bitsandbytes, 4 bits)"),
        ({"quantization_config": {"load_in_8bit": True, "load_in_4bit": False}}, "(bitsandbytes, 8 bits)"),
        ({"quantization_config": {"quant_method": "fp8"}}, "(fp8)"),
        ({"quantization_config": {"modules": ["q_proj"]}}, "(by a method that is not named)"),
        ({"compression_config": {"quant_method": "compressed-tensors"}}, "(compressed-tensors)"),
        ({"quantization": {"bits": 4, "group_size": 64}}, "(by a method that is not named, 4 bits)"),
        ({"text_config": {"quantization_config": {"quant_method": "mxfp4"}}}, "(mxfp4)"),
    ],
)
def test_a_configuration_that_names_a_quantisation(
    folder: Path, values: dict[str, Any], expected: str
) -> None:
    configure(folder, **values)
    assert f"its checkpoint is quantised {expected}" in refusal(folder)


@pytest.mark.parametrize(
    ("file", "values", "expected"),
    [
        ("quantize_config.json", {"bits": 4, "group_size": 128}, "4 bits, quantize_config.json"),
        ("quant_config.json", {"w_bit": 4, "zero_point": True}, "4 bits, quant_config.json"),
    ],
)
def test_a_quantisation_that_a_file_of_its_own_names(
    folder: Path, file: str, values: dict[str, Any], expected: str
) -> None:
    (folder / file).write_text(json.dumps(values))
    assert expected in refusal(folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda t: {"model.layers.0.mlp.up_proj.qweight": torch.ones(4, 48, dtype=torch.int32)},
        lambda t: {"model.layers.0.mlp.up_proj.weight": torch.ones(768, 1, dtype=torch.uint8)},
        lambda t: {"model.layers.0.mlp.up_proj.weight": torch.ones(48, 32, dtype=torch.int8)},
    ],
)
def test_packed_integers_that_no_configuration_names(folder: Path, change: Callable[[Any], Any]) -> None:
    tensors = load_file(folder / "model.safetensors")
    save_file(tensors | change(tensors), folder / "model.safetensors", metadata={"format": "pt"})
    assert "quantised (the tensor model.layers.0.mlp.up_proj." in refusal(folder, planned=False)


@pytest.mark.parametrize(
    ("prefix", "tensor", "expected"),
    [
        ("", "model.layers.0.self_attn.q_proj.lora_A.default.weight", "an adapter that is not merged"),
        ("base_model.model.", "base_model.model.score.weight", "an adapter that is not merged"),
        ("", "model.layers.0.self_attn.q_proj.SCB", "is quantised (the tensor"),
        ("", "model.layers.0.self_attn.q_proj.weight_scale_inv", "is quantised (the tensor"),
    ],
)
@pytest.mark.parametrize("binary", [False, True])
def test_tensors_that_belong_to_part_of_a_model(
    folder: Path, recipe: Recipe, prefix: str, tensor: str, expected: str, binary: bool
) -> None:
    """As trainers write them that save a wrapped model, without the configuration of the wrapper."""
    file = folder / "model.safetensors"
    tensors = {prefix + name: value for name, value in load_file(file).items()} | {tensor: torch.ones(4)}
    if binary:
        file.unlink()
        torch.save(tensors, folder / "pytorch_model.bin")
    else:
        save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(ModelError) as caught:
        inspect_model(find_checkpoint(get_model(str(folder))), 3, [], recipe)
    assert expected in str(caught.value)


def test_gguf_alone(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "m-Q4_K_M.gguf")
    assert "quantised (GGUF, m-Q4_K_M.gguf)" in refusal(folder)


def test_what_is_not_quantised_stays_accepted(folder: Path) -> None:
    configure(folder, quantization_config=None, compression_config={})
    tensors = load_file(folder / "model.safetensors")
    constants = {
        "model.embeddings.position_ids": torch.arange(8)[None],
        "model.layers.0.attn.bias": torch.ones(1, 1, 8, 8, dtype=torch.uint8),
    }
    save_file(tensors | constants, folder / "model.safetensors", metadata={"format": "pt"})
    assert find_checkpoint(get_model(str(folder))).folder == folder


def test_an_adapter_is_named_with_its_base_model(folder: Path, tmp_path: Path) -> None:
    """As peft itself writes it, alone and with the tokenizer and configuration that trainers add."""
    base = AutoModelForCausalLM.from_pretrained(folder)
    adapter = tmp_path / "adapter" / "m"
    get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj"])).save_pretrained(adapter)
    expected = f"it is an adapter of the model {folder} (adapter_config.json, adapter_model.safetensors)"
    assert expected in refusal(adapter)
    for name, content in tokenizer_files().items():
        (adapter / name).write_bytes(content)
    (adapter / "config.json").write_bytes((folder / "config.json").read_bytes())
    assert expected in refusal(adapter)
    # The transformers library would load the base model in place of these weights.
    (adapter / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    assert expected in refusal(adapter)
    (adapter / "adapter_config.json").unlink()
    assert "it is an adapter (adapter_model.safetensors), not a complete model" in refusal(adapter)


@pytest.mark.parametrize(
    "files", [["adapter_config.json", "adapter_model.safetensors"], ["adapter_model.bin"]]
)
def test_a_repository_with_an_adapter_alone_is_not_downloaded(
    files: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        hub, "_download", lambda repo, revision, choose, kind: choose([*files, "tokenizer.json"])
    )
    card = get_model("someone/adapter")
    with pytest.raises(ModelError, match=r"^model someone/adapter: it is an adapter"):
        find_checkpoint(card)
    with pytest.raises(ModelError, match=r"^model someone/adapter: it is an adapter"):
        _ = card.config
    assert model_availability(card).problem


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"[" * 100_000, "is JSON that is nested too deeply"),
        (b'{"a": ' * 100_000, "is JSON that is nested too deeply"),
        (b'{"vocab_size": ' + b"1" * 5_000 + b"}", "is JSON with an integer of too many digits"),
        ("{}".encode("utf-16"), "is not JSON (it is not UTF-8 text)"),
        (b"", "is not JSON"),
    ],
)
def test_damaged_json(folder: Path, content: bytes, expected: str) -> None:
    for name, planned in (("tokenizer_config.json", False), ("config.json", True)):
        good = (folder / name).read_bytes()
        (folder / name).write_bytes(content)
        message = refusal(folder, planned=planned)
        (folder / name).write_bytes(good)
        assert f"{name} {expected}" in message
        assert len(message) < 300


def test_a_damaged_list_of_shards(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    (folder / "model.safetensors.index.json").write_text("[" * 100_000)
    assert "model.safetensors.index.json is JSON that is nested too deeply" in refusal(folder, planned=False)


def test_a_configuration_for_random_weights(tmp_path: Path) -> None:
    """Only the configuration is read, and only it can be damaged; quantised weights are not needed."""
    (tmp_path / "m").mkdir()
    card = dataclasses.replace(get_model(str(tmp_path / "m")), random=True)
    with pytest.raises(ModelError, match=r"lacks the file config\.json"):
        find_checkpoint(card)
    (tmp_path / "m" / "config.json").write_text("[" * 100_000)
    with pytest.raises(ModelError, match="nested too deeply"):
        find_checkpoint(card)
    (tmp_path / "m" / "config.json").write_text('{"quantization_config": {"bits": 4}}')
    assert find_checkpoint(card).folder is None


def test_sizes_that_no_model_can_have(folder: Path, recipe: Recipe) -> None:
    configure(folder, vocab_size=10**30)
    with pytest.raises(ModelError, match=r"^model m: .* has vocab_size = 10{30}, beyond 64 bits$") as caught:
        inspect_model(find_checkpoint(get_model(str(folder))), 3, [], recipe)
    assert "\n" not in str(caught.value)


def test_a_model_of_the_paper_is_read_as_before(tmp_path: Path) -> None:
    write_minicpm(tmp_path / "m")
    card = get_model(str(tmp_path / "m"))
    assert card.config == find_checkpoint(card).config
