"""The tokenizer and the three models as shipped, and the script that makes them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from lfreeze.models.minicpm import GraniteForSequenceClassification, granite_config
from lfreeze.tiny import pretrain
from lfreeze.tiny.architectures import TINY_MODELS
from lfreeze.tiny.corpus import description, dialogue
from lfreeze.tiny.draws import Draws
from lfreeze.tiny.grammar import third_person
from lfreeze.tiny.lexicon import NAMES, NOUNS, VERBS
from lfreeze.tiny.tasks import TINY_TASKS, examples
from lfreeze.tiny.tokenizer import BOS, EOS, SEP

each_model = pytest.mark.parametrize("name", TINY_MODELS)


def read(name: str, file: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((pretrain.WEIGHTS / name / file).read_text("utf-8"))
    return loaded


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(pretrain.WEIGHTS / "tiny-gemma", local_files_only=True)


@pytest.mark.parametrize(
    "text",
    [
        "every dog runs .",
        "Grüße, 世界!",
        "🦊🦊 \u200d a\tb\r\nc",
        " two  spaces ",
        "\x00\x7f",
        "e\u0301",
        "<not a tag>",
    ],
)
def test_any_text_survives_the_tokenizer(tokenizer: Any, text: str) -> None:
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text


def test_a_pair_has_special_tokens_and_is_truncated_to_the_given_length(tokenizer: Any) -> None:
    ids = tokenizer("every dog runs .", "some poodle moves .", truncation=True, max_length=128)["input_ids"]
    words = [BOS, "every", "Ġdog", "Ġruns", "Ġ.", SEP, "some", "Ġpoodle", "Ġmoves", "Ġ.", EOS]
    assert tokenizer.convert_ids_to_tokens(ids) == words
    cut = tokenizer("every dog runs . " * 100, "no cat runs .", truncation=True, max_length=128)["input_ids"]
    assert len(cut) == 128
    assert tokenizer.convert_ids_to_tokens(cut)[-6:] == [SEP, "no", "Ġcat", "Ġruns", "Ġ.", EOS]


def test_the_languages_words_are_one_token_each(tokenizer: Any) -> None:
    words = [*NOUNS, *VERBS, *map(third_person, VERBS), *NAMES]
    assert all(len(tokenizer(f" {word}", add_special_tokens=False)["input_ids"]) == 1 for word in words)


@each_model
def test_special_tokens_are_distinct_and_match_the_configurations(name: str) -> None:
    loaded, config = AutoTokenizer.from_pretrained(pretrain.WEIGHTS / name), read(name, "config.json")
    ids = [loaded.pad_token_id, loaded.bos_token_id, loaded.eos_token_id]
    assert ids == [config["pad_token_id"], config["bos_token_id"], config["eos_token_id"]]
    assert len({*ids}) == 3
    assert config["vocab_size"] == len(loaded)


def test_texts_of_every_task_are_short(tokenizer: Any) -> None:
    for name, task in TINY_TASKS.items():
        rows = examples(name, "validation", range(200))
        texts = tokenizer(*([row[field] for row in rows] for field in task.fields))
        assert max(map(len, texts["input_ids"])) <= 40


@each_model
def test_weights_match_their_record_and_are_small(name: str) -> None:
    weights, record = pretrain.WEIGHTS / name / "model.safetensors", read(name, "pretraining.json")
    assert hashlib.sha256(weights.read_bytes()).hexdigest() == record["sha256"]
    assert weights.stat().st_size <= 2_000_000
    with safe_open(weights, framework="pt") as file:
        assert file.metadata() == {"format": "pt"}
        shapes = [file.get_slice(tensor).get_shape() for tensor in file.keys()]  # noqa: SIM118
    assert sum(torch.Size(shape).numel() for shape in shapes) == record["parameters"]
    assert record["final_loss"] < record["first_loss"] / 3


@each_model
def test_weights_fill_a_classifier_except_its_head(name: str) -> None:
    folder = pretrain.WEIGHTS / name
    options: dict[str, Any] = {"dtype": torch.float32, "num_labels": 3, "output_loading_info": True}
    if name == "tiny-minicpm":
        del options["num_labels"]
        config = granite_config(read(name, "config.json"))
        config.num_labels = 3
        model, info = GraniteForSequenceClassification.from_pretrained(folder, config=config, **options)
    else:
        model, info = AutoModelForSequenceClassification.from_pretrained(folder, **options)
    assert set(info["missing_keys"]) == {"score.weight"}
    assert not info["unexpected_keys"]
    assert not info["mismatched_keys"]
    assert model.config.num_hidden_layers == 8
    assert model(input_ids=torch.tensor([[1, 300, 2]])).logits.shape == (1, 3)


def test_documents_depend_on_their_draws_alone_and_end_in_an_answer() -> None:
    assert [dialogue(Draws("a", 3)), description(Draws("a", 4))] == [
        dialogue(Draws("a", 3)),
        description(Draws("a", 4)),
    ]
    draws = Draws("answers")
    assert {dialogue(draws)[-1] for _ in range(100)} == {"yes", "no", "maybe"}


@each_model
def test_pretraining_is_deterministic_and_writes_every_file(name: str, tmp_path: Path) -> None:
    settings = pretrain.Settings(steps=3, batch_size=8)
    tokenizer = pretrain.make_tokenizer(settings)
    for run in ("one", "two"):
        model, numbers = pretrain.pretrain(name, tokenizer, settings)
        pretrain.save(name, model, tokenizer, numbers, settings, tmp_path / run)
    one, two = tmp_path / "one" / name, tmp_path / "two" / name
    assert (one / "model.safetensors").read_bytes() == (two / "model.safetensors").read_bytes()
    for file in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        assert (one / file).read_bytes() == (two / file).read_bytes()
        assert (one / file).read_bytes() == (pretrain.WEIGHTS / name / file).read_bytes()


def test_an_unknown_model_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        pretrain.main(["--models", "tiny-llama"])
    assert (
        "unknown tiny model 'tiny-llama'; known are tiny-gemma, tiny-phi, tiny-minicpm"
        in capsys.readouterr().err
    )
