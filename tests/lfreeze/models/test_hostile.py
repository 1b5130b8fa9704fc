"""Models made to hang, to take all memory or to end in a traceback: each is refused in one sentence."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lfreeze.errors import InputError
from lfreeze.model_shape import ModelShape
from lfreeze.models.attempt import Limits, attempt_config, attempt_tokenizer
from lfreeze.models.catalog import MODELS, Checkpoint, find_checkpoint, get_model
from lfreeze.models.checkpoint_check import require_finite
from lfreeze.models.files import ModelError
from lfreeze.models.loading import load_tokenizer
from tests.support.checkpoints import write_causal

LIMITS = Limits(cpu_seconds=2, wall_seconds=240, memory_bytes=512 << 20)


def of(folder: Path) -> Checkpoint:
    return find_checkpoint(get_model(str(folder)))


def with_values(folder: Path, file: str = "config.json", **changes: Any) -> None:
    values = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(values | changes))


def enlarging(factor: int, times: int) -> dict[str, Any]:
    """A normaliser that makes a text ``factor ** times`` times as long."""
    replace = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * factor}
    return {"type": "Sequence", "normalizers": [replace] * times}


def split(expression: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": False}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"normalizer": enlarging(2000, 1), "pre_tokenizer": split(r"a*(?=b)|a*\d")},
            "encoding the texts takes longer than 2 seconds",
        ),
        ({"normalizer": enlarging(1000, 4)}, "encoding the texts ends the process"),
        ({"pre_tokenizer": split("^(a+)+$|^(a|a)*$|^(.*)*b$")}, "encoding the texts fails: PanicException"),
    ],
)
def test_a_tokenizer_ends_its_own_process_only(changes: Any, message: str, tmp_path: Path) -> None:
    write_causal(tmp_path / "model")
    with_values(tmp_path / "model", "tokenizer.json", **changes)
    pairs = [("a man", "sleeps"), ("b",), ("a" * 40 + "!", "b")]
    with pytest.raises(ModelError, match=f"^model model: {message}") as caught:
        attempt_tokenizer(of(tmp_path / "model"), pairs, LIMITS)
    assert "\n" not in str(caught.value)
    # What is known is not tried again.
    before = time.process_time()
    with pytest.raises(ModelError, match=message):
        attempt_tokenizer(of(tmp_path / "model"), pairs, LIMITS)
    assert time.process_time() - before < 0.1


def test_a_model_that_is_never_built(tmp_path: Path) -> None:
    write_causal(tmp_path / "model")
    config = tmp_path / "model" / "config.json"
    attempt_config("m", config)
    with_values(tmp_path / "model", num_hidden_layers=10**4)
    with pytest.raises(ModelError, match=r"building it from its config.json takes longer than 2 seconds"):
        attempt_config("m", config, LIMITS)


@pytest.mark.parametrize("content", [b"\xff\xfe{}", b"{", b"[]", b'{"model": 3}'])
def test_a_tokenizer_that_is_none(content: bytes, tmp_path: Path) -> None:
    write_causal(tmp_path / "model")
    (tmp_path / "model" / "tokenizer.json").write_bytes(content)
    with pytest.raises(ModelError, match=r"^model model: its tokenizer does not load: "):
        load_tokenizer(of(tmp_path / "model"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_hidden_layers": 10**9}, "num_hidden_layers = 1000000000, which is not from 0 to 10,000"),
        ({"text_config": {"n_layer": -1}}, "n_layer = -1, which is not from 0"),
        ({"depths": [2, 10**9]}, "depths = 1000000000, which is not from 0"),
        ({"num_local_experts": 10**9}, "num_local_experts = 1000000000, which"),
        ({"num_labels": 10**9}, "num_labels = 1000000000, which"),
        ({"vocab_size": 2**63}, "vocab_size = 9223372036854775808, beyond 64 bits"),
        ({"vocab_size": 10**4000}, "vocab_size = 10*... beyond 64 bits|vocab_size = 1000"),
        (
            {"architectures": "LlamaForCausalLM"},
            "architectures = 'LlamaForCausalLM', which is no list of texts",
        ),
        ({"architectures": [3]}, r"architectures = \[3\], which is no list of texts"),
        ({"model_type": ["llama"]}, r"model_type = \['llama'\], which is no text"),
    ],
)
def test_values_that_no_model_has(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    write_causal(tmp_path / "model")
    with_values(tmp_path / "model", **changes)
    for read in (lambda: of(tmp_path / "model"), lambda: get_model(str(tmp_path / "model")).config):
        with pytest.raises(ModelError, match=message) as caught:
            read()
        assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "changes",
    [
        {"num_attention_heads": 0},
        {"num_attention_heads": 10**6},
        {"num_attention_heads": "4"},
        {"num_key_value_heads": -1},
        {"num_key_value_heads": [1]},
        {"head_dim": "wide"},
        {"hidden_size": 2**40},
        {"num_hidden_layers": 0},
        {"vocab_size": True},
        {"model_type": ["llama"]},
        {"model_type": "opt", "ffn_dim": 64, "max_position_embeddings": "many"},
    ],
)
def test_closed_forms_refuse_sizes_that_are_none(changes: dict[str, Any]) -> None:
    config = {
        "model_type": "llama",
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "vocab_size": 300,
    }
    assert ModelShape.from_config(config).n_layers == 4
    with pytest.raises(InputError):
        ModelShape.from_config(config | changes)


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "tokenizer.json", "other.bin"])
def test_a_pipe_is_no_file_of_a_model(file: str, tmp_path: Path) -> None:
    """Opening a pipe that nobody writes to never ends."""
    write_causal(tmp_path / "model")
    (tmp_path / "model" / file).unlink(missing_ok=True)
    os.mkfifo(tmp_path / "model" / file)
    with pytest.raises(ModelError, match=f"{file} is a pipe or a device, not a file"):
        of(tmp_path / "model")
    with pytest.raises(ModelError, match="is a pipe or a device"):
        _ = get_model(str(tmp_path / "model")).config


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_weights_that_are_no_numbers(value: float, dtype: torch.dtype, tmp_path: Path) -> None:
    write_causal(tmp_path / "model")
    require_finite(of(tmp_path / "model"))
    path = tmp_path / "model" / "model.safetensors"
    tensors = {name: tensor.to(dtype) for name, tensor in load_file(path).items()}
    tensors["model.layers.2.mlp.up_proj.weight"][1, 2] = value
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"the tensor model.layers.2.mlp.up_proj.weight in .* not finite"):
        require_finite(of(tmp_path / "model"))


def test_models_of_this_package_and_of_a_commit_are_known() -> None:
    assert {name for name, card in MODELS.items() if not card.known} == {"minicpm-2b-128k"}
    assert not get_model("google/gemma-2b@main").known
