"""Checkpoints as the hub and other people store them: what loads, and what is refused before any device time."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import pickle
import time
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import BartConfig, BartForSequenceClassification

from lfreeze.data.encoding_cache import encoded
from lfreeze.data.loading import load_task
from lfreeze.errors import InputError
from lfreeze.models.catalog import EOS, MODELS, Checkpoint, find_checkpoint, get_model, with_folder
from lfreeze.models.files import ModelError
from lfreeze.models.loading import BaseModel, load_tokenizer
from lfreeze.models.preflight import inspect_model
from lfreeze.recipe import Recipe
from lfreeze.strategy import Strategy, paper_strategies
from tests.conftest import with_values
from tests.lfreeze.models.test_minicpm import reference
from tests.support.checkpoints import MINICPM, tokenizer_files, write, write_causal, write_minicpm

CPU = torch.device("cpu")


def of(folder: Path, **changes: Any) -> Checkpoint:
    return find_checkpoint(dataclasses.replace(get_model(str(folder)), **changes))


def refusal(checkpoint: Checkpoint, recipe: Recipe, strategies: tuple[str, ...] = ("ALL", "BOT50")) -> str:
    with pytest.raises(InputError) as caught:
        inspect_model(checkpoint, 3, [Strategy.parse(s) for s in strategies], recipe)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "changes", [{}, {"num_key_value_heads": 2}, {"rope_scaling": {"type": "dynamic", "factor": 4.0}}]
)
def test_a_minicpm_of_the_hub_computes_minicpms_equations(
    tmp_path: Path, recipe: Recipe, dtype: torch.dtype, changes: dict[str, Any]
) -> None:
    """Its remote code, which would end this process, is in the same folder; the side of the padding changes nothing."""
    stored = write_minicpm(tmp_path / "minicpm", dtype, **changes)
    checkpoint = find_checkpoint(with_folder(MODELS["minicpm-2b-128k"], tmp_path / "minicpm"))
    inspect_model(checkpoint, 3, [Strategy.parse(s) for s in paper_strategies() if s != "INT25"], recipe)
    model = BaseModel(checkpoint, 3, recipe, CPU).reset(7).eval()
    assert next(model.parameters()).dtype == torch.float32
    ids = torch.randint(4, 290, (11,), generator=torch.Generator().manual_seed(3))
    hidden, _ = reference(MINICPM | changes, {n: t.float() for n, t in stored.items()}, ids)
    expected = (hidden[-1] @ model.score.weight.T)[None]
    padding = torch.full((4,), load_tokenizer(checkpoint).pad_token_id)
    for parts in ([ids], [ids, padding], [padding, ids]):
        mask = torch.cat([torch.full((len(p),), int(p is ids)) for p in parts])
        with torch.no_grad():
            logits = model(input_ids=torch.cat(parts)[None], attention_mask=mask[None]).logits
        torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["llama", "gemma", "phi"])
def test_shards_and_one_file_give_the_same_weights(tmp_path: Path, recipe: Recipe, kind: str) -> None:
    write_causal(tmp_path / "one", kind)
    write_causal(tmp_path / "many", kind, shards="20KB")
    assert len(list((tmp_path / "many").glob("*.safetensors"))) > 2
    models = [BaseModel(of(tmp_path / n), 3, recipe, CPU).reset(1) for n in ("one", "many")]
    for (name, one), (_, many) in zip(*(m.named_parameters() for m in models), strict=True):
        assert torch.equal(one, many), name
    next((tmp_path / "many").glob("*-00002-*.safetensors")).unlink()
    with pytest.raises(ModelError, match=r"lacks the file model-00002-of-\d+\.safetensors, which"):
        of(tmp_path / "many")


@pytest.mark.parametrize("zipped", [True, False])
def test_a_checkpoint_that_has_only_a_bin(tmp_path: Path, recipe: Recipe, zipped: bool) -> None:
    folder = tmp_path / "old"
    write_causal(folder)
    stored = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(stored, folder / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    base = BaseModel(of(folder), 3, recipe, CPU)
    model = base.reset(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2.0)
    model = base.reset(1)
    for name, parameter in model.named_parameters():
        assert name == "score.weight" or torch.equal(parameter, stored[name]), name


def test_a_bin_that_would_run_code_is_refused(tmp_path: Path, recipe: Recipe) -> None:
    class Attack:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "was-here",))

    folder = tmp_path / "old"
    write_causal(folder)
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"model.norm.weight": Attack()}))
    assert "does not load" in refusal(of(folder), recipe)
    assert not (tmp_path / "was-here").exists()


def test_a_truncated_file_is_refused(tmp_path: Path, recipe: Recipe) -> None:
    write_causal(tmp_path / "m")
    file = tmp_path / "m" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    assert "does not load" in refusal(of(tmp_path / "m"), recipe)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda t: t.pop("model.layers.2.mlp.up_proj.weight"), "lacks the tensor model.layers.2.mlp.up_proj"),
        (
            lambda t: t.update({"model.layers.0.mlp.more": torch.ones(2)}),
            "has the tensor model.layers.0.mlp.more",
        ),
        (
            lambda t: t.update({"model.layers.4.mlp.up_proj.weight": torch.ones(2)}),
            "has the tensor model.layers.4",
        ),
        (lambda t: t.update({"visual.weight": torch.ones(2)}), "has the tensor visual.weight"),
        (
            lambda t: t.update({"model.norm.weight": torch.ones(3)}),
            "model.norm.weight has the shape (3,), its configuration requires (32,)",
        ),
    ],
)
def test_tensors_that_do_not_fit(tmp_path: Path, recipe: Recipe, change: Any, expected: str) -> None:
    write_causal(tmp_path / "m")
    tensors = load_file(tmp_path / "m" / "model.safetensors")
    change(tensors)
    save_file(tensors, tmp_path / "m" / "model.safetensors", metadata={"format": "pt"})
    assert expected in refusal(of(tmp_path / "m"), recipe)


def test_heads_of_other_tasks_are_left_out(tmp_path: Path, recipe: Recipe) -> None:
    """A language model's head, one of another number of labels, and constants that old versions saved."""
    write_causal(tmp_path / "m")
    tensors = load_file(tmp_path / "m" / "model.safetensors")
    assert "lm_head.weight" in tensors
    tensors |= {
        "score.weight": torch.ones(7, 32),
        "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4),
    }
    save_file(tensors, tmp_path / "m" / "model.safetensors", metadata={"format": "pt"})
    inspect_model(of(tmp_path / "m"), 3, [Strategy.parse("ALL")], recipe)
    assert BaseModel(of(tmp_path / "m"), 3, recipe, CPU).reset(1).score.weight.shape == (3, 32)


def test_architectures_that_cannot_be_used(tmp_path: Path, recipe: Recipe) -> None:
    tensors = {"w": torch.ones(2)}
    unknown = {"model_type": "surprise", "auto_map": {"AutoConfig": "code.Config"}}
    write(tmp_path / "unknown", unknown, tensors, tokenizer_files())
    (tmp_path / "unknown" / "code.py").write_text("raise SystemExit\n")
    assert "no architecture 'surprise', and code from a checkpoint is never run" in refusal(
        of(tmp_path / "unknown"), recipe
    )
    write(tmp_path / "image", {"model_type": "vit"}, tensors, tokenizer_files())
    assert "no sequence classifier of the architecture 'vit'" in refusal(of(tmp_path / "image"), recipe)
    config = BartConfig(
        vocab_size=300,
        d_model=16,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
    )
    BartForSequenceClassification(config).save_pretrained(tmp_path / "bart")
    for name, content in tokenizer_files().items():
        (tmp_path / "bart" / name).write_bytes(content)
    message = refusal(of(tmp_path / "bart"), recipe)
    assert message.startswith("model bart: BartForSequenceClassification has more than one stack of layers")


def test_damaged_configurations(tmp_path: Path, recipe: Recipe) -> None:
    write_causal(tmp_path / "m")
    file = tmp_path / "m" / "config.json"
    values = json.loads(file.read_text())
    for content, expected in (
        ("{", "is not JSON"),
        ("[]", "is not a JSON object"),
        (json.dumps(values | {"num_hidden_layers": "many"}), "is not valid"),
    ):
        file.write_text(content)
        with pytest.raises(ModelError, match=expected) as caught:
            inspect_model(of(tmp_path / "m"), 3, [Strategy.parse("ALL")], recipe)
        assert "\n" not in str(caught.value)


def test_requirements_of_strategies(tmp_path: Path, recipe: Recipe) -> None:
    write_causal(tmp_path / "m")
    assert "freezes no layer of a model with 4 layers" in refusal(of(tmp_path / "m"), recipe, ("BOT20",))
    wrong = with_values(recipe, lora_targets=("query",))
    message = refusal(of(tmp_path / "m"), wrong, ("LoRA",))
    assert "'query' is no linear map of the model m; it has q_proj, k_proj, v_proj, o_proj" in message


def test_pad_tokens(tmp_path: Path) -> None:
    write_causal(tmp_path / "m", pad=False)
    with pytest.raises(
        ModelError, match=r"no pad token; choose .* --pad-token m=TOKEN, .* --pad-token m=eos"
    ):
        load_tokenizer(of(tmp_path / "m"))
    assert load_tokenizer(of(tmp_path / "m", pad_token=EOS)).pad_token == "</s>"
    assert load_tokenizer(of(tmp_path / "m", pad_token="<unk>")).pad_token_id == 0
    with pytest.raises(ModelError, match="'<none>' is not in its tokenizer's vocabulary"):
        load_tokenizer(of(tmp_path / "m", pad_token="<none>"))
    assert of(tmp_path / "m", pad_token=EOS).tokenizer_hash != of(tmp_path / "m").tokenizer_hash
    for model in ("phi-2", "minicpm-2b-128k", "smollm2-135m"):
        card = with_folder(MODELS[model], tmp_path / "m")
        assert load_tokenizer(find_checkpoint(card)).pad_token_id == 2


def test_a_tokenizer_that_is_code_is_not_run(tmp_path: Path) -> None:
    write_causal(tmp_path / "m")
    file = tmp_path / "m" / "tokenizer_config.json"
    config = json.loads(file.read_text())
    own = {"tokenizer_class": "OwnTokenizer", "auto_map": {"AutoTokenizer": ["own.OwnTokenizer", None]}}
    file.write_text(json.dumps(config | own))
    (tmp_path / "m" / "own.py").write_text("raise SystemExit\n")
    assert load_tokenizer(of(tmp_path / "m")).pad_token == "<pad>"
    (tmp_path / "m" / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match="custom code, which is never run"):
        load_tokenizer(of(tmp_path / "m"))


def test_a_sentencepiece_tokenizer_without_a_json(tmp_path: Path) -> None:
    """As MiniCPM's repository may hold it: the model file alone."""
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a man sleeps", "no cat sings", "every dog runs"] * 20),
        model_writer=written,
        vocab_size=40,
        model_type="bpe",
        pad_id=-1,
        minloglevel=2,
    )
    write_minicpm(tmp_path / "m")
    (tmp_path / "m" / "tokenizer.json").unlink()
    (tmp_path / "m" / "tokenizer.model").write_bytes(written.getvalue())
    config = {
        "tokenizer_class": "LlamaTokenizer",
        "add_bos_token": True,
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
    }
    (tmp_path / "m" / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = load_tokenizer(of(tmp_path / "m", pad_token=EOS))
    known = sentencepiece.SentencePieceProcessor(model_proto=written.getvalue())
    expected = [known.bos_id(), *known.encode("a man sleeps")]
    assert tokenizer("a man sleeps")["input_ids"] == expected


def test_token_ids_beyond_the_embeddings_are_refused(tmp_path: Path) -> None:
    write_minicpm(tmp_path / "m", vocab_size=100)
    data = load_task("tiny-cb", 50, 0, max_validation_examples=20)
    with pytest.raises(ModelError, match=r"produces the token id \d+, but its embeddings end at 99"):
        encoded(data, of(tmp_path / "m"), 64, "auto")


def test_cached_encodings_are_reused_and_never_read_partially(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LFREEZE_CACHE", str(tmp_path / "cache"))
    write_causal(tmp_path / "m")
    data = load_task("tiny-cb", 50, 0, max_validation_examples=20)
    first = encoded(data, of(tmp_path / "m"), 64, "auto")
    (file,) = (tmp_path / "cache" / "encoded").iterdir()
    written = file.stat().st_mtime_ns
    assert encoded(data, of(tmp_path / "m"), 64, "auto") == first
    assert file.stat().st_mtime_ns == written
    file.write_bytes(file.read_bytes()[:-50])
    assert encoded(data, of(tmp_path / "m"), 64, "auto") == first
    assert encoded(data, of(tmp_path / "m"), 8, "auto") != first
    assert len(list((tmp_path / "cache" / "encoded").iterdir())) == 2
    monkeypatch.setenv("LFREEZE_CACHE", "/proc/nowhere")
    assert encoded(data, of(tmp_path / "m"), 64, "auto") == first


def test_changed_encodings_are_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of the cache that is valid in itself, with other token ids; and what a killed process left."""
    monkeypatch.setenv("LFREEZE_CACHE", str(tmp_path / "cache"))
    write_causal(tmp_path / "m")
    data = load_task("tiny-cb", 50, 0, max_validation_examples=20)
    first = encoded(data, of(tmp_path / "m"), 64, "auto")
    (file,) = (tmp_path / "cache" / "encoded").iterdir()
    with safe_open(file, "pt") as opened:
        metadata = opened.metadata()
    tensors = load_file(file)
    tensors["train.ids"] = tensors["train.ids"].flip(0).contiguous()
    leftovers = {age: file.with_name(f".{age}.tmp") for age in (60, 7200)}
    for age, leftover in leftovers.items():
        leftover.touch()
        os.utime(leftover, (time.time() - age,) * 2)
    for changed in ({}, metadata):
        save_file(tensors, file, changed)
        assert encoded(data, of(tmp_path / "m"), 64, "auto") == first
    assert [leftover.exists() for leftover in leftovers.values()] == [True, False]


def test_random_weights_are_the_same_everywhere_and_after_each_trial(recipe: Recipe) -> None:
    card = dataclasses.replace(MODELS["tiny-gemma"], random=True)
    checkpoint = find_checkpoint(card)
    assert checkpoint.weights_hash != find_checkpoint(MODELS["tiny-gemma"]).weights_hash
    base = BaseModel(checkpoint, 3, recipe, CPU)
    first = {n: p.detach().clone() for n, p in base.reset(1).named_parameters()}
    trained = find_checkpoint(MODELS["tiny-gemma"])
    shapes = {n: p.shape for n, p in BaseModel(trained, 3, recipe, CPU).model.named_parameters()}
    assert {n: p.shape for n, p in first.items()} == shapes
    with torch.no_grad():
        for parameter in base.model.parameters():
            parameter.add_(1.0)
    for name, parameter in base.reset(1).named_parameters():
        assert torch.equal(parameter, first[name]), name
    assert torch.equal(first["model.norm.weight"], torch.zeros(64))
    deviation = first["model.layers.3.mlp.up_proj.weight"].std().item()
    assert deviation == pytest.approx(base.model.config.initializer_range, rel=0.05)
    again = BaseModel(checkpoint, 3, recipe, CPU).reset(1)
    ids = torch.arange(12)[None] + 5
    with torch.no_grad():
        assert torch.equal(again.eval()(input_ids=ids).logits, base.reset(1).eval()(input_ids=ids).logits)
