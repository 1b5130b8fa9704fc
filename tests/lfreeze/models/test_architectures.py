"""Checkpoints of other architectures: where heads start, how pairs arrive, and which attention computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from lfreeze.data.encoding import collate, encode_task, separator
from lfreeze.data.encoding_cache import encoded
from lfreeze.data.loading import load_task
from lfreeze.models.catalog import MODELS, Checkpoint, find_checkpoint, get_model
from lfreeze.models.loading import BaseModel, load_tokenizer
from lfreeze.models.preflight import inspect_model
from lfreeze.recipe import Recipe
from lfreeze.strategy import Strategy
from lfreeze.training.forward import classification_logits
from lfreeze.training.loop import train

CPU = torch.device("cpu")
SIZES: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4, "vocab_size": 489,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2,
    "max_position_embeddings": 128,
}  # fmt: skip


TOKENIZER = hf.AutoTokenizer.from_pretrained(MODELS["tiny-gemma"].config_file.parent)


def saved(folder: Path, model: hf.PreTrainedModel) -> Checkpoint:
    """A model's files with the tokenizer of the tiny models."""
    model.save_pretrained(folder)
    TOKENIZER.save_pretrained(folder)
    return find_checkpoint(get_model(str(folder)))


def classifier(checkpoint: Checkpoint, recipe: Recipe, n_labels: int = 3, seed: int = 1) -> Any:
    return BaseModel(checkpoint, n_labels, recipe, CPU).reset(seed)


MODERN = (
    hf.ModernBertForMaskedLM,
    hf.ModernBertModel,
    hf.ModernBertForSequenceClassification,
)


@pytest.mark.parametrize("model_class", MODERN)
def test_a_new_head_starts_as_its_architecture_starts_it(
    tmp_path: Path, recipe: Recipe, model_class: Any
) -> None:
    torch.manual_seed(0)
    checkpoint = saved(tmp_path / "m", model_class(hf.ModernBertConfig(**SIZES, num_labels=3)))
    model = classifier(checkpoint, recipe)
    fresh = hf.ModernBertForSequenceClassification(hf.ModernBertConfig(**SIZES, num_labels=3))
    assert torch.equal(model.head.norm.weight, fresh.head.norm.weight)
    # 96 draws of the architecture's own deviation.
    ratio = model.classifier.weight.detach().std() / fresh.classifier.weight.detach().std()
    assert 0.7 < float(ratio) < 1.4
    ids = torch.randint(6, 400, (8, 12), generator=torch.Generator().manual_seed(0))
    logits = model(input_ids=ids).logits
    torch.nn.functional.cross_entropy(logits, torch.arange(8) % 3).backward()
    assert float(logits.detach().std(0).max()) > 0
    assert all(float(p.grad.abs().max()) > 0 for p in model.model.layers.parameters())


def test_heads_depend_on_the_seed_alone(tmp_path: Path, recipe: Recipe) -> None:
    torch.manual_seed(0)
    checkpoint = saved(tmp_path / "m", hf.ModernBertModel(hf.ModernBertConfig(**SIZES)))

    base = BaseModel(checkpoint, 3, recipe, CPU)

    def head(seed: int) -> dict[str, torch.Tensor]:
        return {n: p.detach().clone() for n, p in base.reset(seed).named_parameters()}

    first, before = head(1), torch.get_rng_state()
    again, other = head(1), head(2)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[n], again[n]) for n in first)
    assert {n for n in first if not torch.equal(first[n], other[n])} == {
        "head.dense.weight",
        "classifier.weight",
    }


def test_a_checkpoints_own_head_of_this_width_is_redrawn(tmp_path: Path, recipe: Recipe) -> None:
    """A task with three labels must not start from a trained head where one with two starts anew."""
    torch.manual_seed(0)
    stored = hf.RobertaForSequenceClassification(hf.RobertaConfig(**SIZES, num_labels=3))
    with torch.no_grad():
        stored.classifier.out_proj.bias.fill_(7)
    checkpoint = saved(tmp_path / "m", stored)
    for n_labels in (2, 3):
        model = classifier(checkpoint, recipe, n_labels)
        assert not model.classifier.out_proj.bias.any()
        assert model.classifier.out_proj.weight.shape == (n_labels, 32)
        assert torch.equal(model.classifier.dense.weight, stored.classifier.dense.weight)
    assert not torch.equal(model.classifier.out_proj.weight, stored.classifier.out_proj.weight)


def test_the_pooler_of_a_checkpoint_is_kept(tmp_path: Path, recipe: Recipe) -> None:
    torch.manual_seed(0)
    stored = hf.BertModel(hf.BertConfig(**SIZES))
    model = classifier(saved(tmp_path / "m", stored), recipe)
    assert torch.equal(model.bert.pooler.dense.weight, stored.pooler.dense.weight)


def byte_pairs(**special: str) -> hf.PreTrainedTokenizerFast:
    """A tokenizer of bytes that adds no tokens of its own."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=280, special_tokens=["<pad>", "</s>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(["a"], trainer)
    return hf.PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", **special)


def test_pairs_without_special_tokens_get_a_separator() -> None:
    tokenizer = byte_pairs(eos_token="</s>")
    assert (
        tokenizer("It rains. He", " runs.")["input_ids"] == tokenizer("It rains.", " He runs.")["input_ids"]
    )
    assert separator(tokenizer, "auto") == "\n"
    assert separator(tokenizer, "none") == ""
    data = load_task("tiny-cb", 4, 0, max_validation_examples=2)
    example = data.train[0]
    for setting, between in (("auto", "\n"), ("none", "")):
        ids = encode_task(data, tokenizer, 512, pair_separator=setting).train.input_ids[0]
        assert tokenizer.decode(ids) == f"{example.first}{between}{example.second}"


def test_a_tokenizer_that_drops_line_breaks_separates_with_its_end_of_text() -> None:
    words = Tokenizer(models.WordLevel({"<pad>": 0, "</s>": 1, "a": 2, "b": 3}, unk_token="<pad>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = hf.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="</s>")
    assert separator(tokenizer, "auto") == "</s>"
    assert tokenizer("a", "</s>b")["input_ids"] == [2, 1, 3]


def test_a_tokenizer_with_a_separator_keeps_its_own() -> None:
    assert separator(TOKENIZER, "auto") == ""


def bert_checkpoint(folder: Path) -> Checkpoint:
    pieces = [p + chr(c) for p in ("", "##") for c in range(97, 123)]
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *pieces, *".,?!'-"]
    torch.manual_seed(0)
    sizes = SIZES | {"vocab_size": len(words), "initializer_range": 0.2, "max_position_embeddings": 256}
    model = hf.BertForMaskedLM(hf.BertConfig(**sizes))
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(words), "utf-8")
    hf.BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    return find_checkpoint(get_model(str(folder)))


def test_token_types_reach_a_model_that_uses_them(tmp_path: Path, recipe: Recipe) -> None:
    """Against transformers' own tokenizer and model; from the cache too."""
    checkpoint = bert_checkpoint(tmp_path / "bert")
    tokenizer, data = load_tokenizer(checkpoint), load_task("tiny-cb", 40, 0, max_validation_examples=8)
    model = classifier(checkpoint, recipe).eval()
    rows = data.validation[:2]
    pairs = tokenizer([e.first for e in rows], [e.second for e in rows], return_tensors="pt", padding=True)
    assert pairs["token_type_ids"].unique().tolist() == [0, 1]
    for task in (
        encode_task(data, tokenizer, 128),
        *(encoded(data, checkpoint, 128, "auto") for _ in range(2)),
    ):
        batch = collate(task.validation, [0, 1], task.pad_token_id)
        assert torch.equal(batch.token_types, pairs["token_type_ids"])
        with torch.no_grad():
            torch.testing.assert_close(classification_logits(model, batch, recipe), model(**pairs).logits)
            without = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
        assert not torch.allclose(without, model(**pairs).logits)


@pytest.mark.parametrize(
    "make",
    [
        lambda: hf.RobertaForMaskedLM(hf.RobertaConfig(**SIZES, type_vocab_size=1)),
        lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**SIZES)),
    ],
)
def test_a_model_without_token_types_does_not_get_them(tmp_path: Path, recipe: Recipe, make: Any) -> None:
    model = classifier(saved(tmp_path / "m", make()), recipe).eval()
    task = load_task("tiny-cb", 40, 0, max_validation_examples=8)
    tokenizer = load_tokenizer(find_checkpoint(get_model(str(tmp_path / "m"))))
    batch = collate(encode_task(task, tokenizer, 64).validation, [0, 1], 0)
    types = torch.ones_like(batch.input_ids)
    with torch.no_grad():
        plain = classification_logits(model, batch, recipe)
        batch = type(batch)(batch.input_ids, batch.attention_mask, batch.labels, types)
        assert torch.equal(classification_logits(model, batch, recipe), plain)


def test_a_model_that_reads_the_last_position_is_padded_on_the_left(tmp_path: Path, recipe: Recipe) -> None:
    torch.manual_seed(0)
    config = hf.XLNetConfig(
        vocab_size=489, d_model=32, n_layer=4, n_head=4, d_inner=48, initializer_range=0.3
    )
    checkpoint = saved(tmp_path / "m", hf.XLNetLMHeadModel(config))
    model = classifier(checkpoint, recipe).eval()
    task = encoded(load_task("tiny-cb", 40, 0, max_validation_examples=8), checkpoint, 64, "auto")
    lengths = sorted(range(8), key=lambda i: len(task.validation.input_ids[i]))
    short, long = lengths[0], lengths[-1]
    assert len(task.validation.input_ids[short]) < len(task.validation.input_ids[long])
    with torch.no_grad():
        alone = classification_logits(model, collate(task.validation, [short], task.pad_token_id), recipe)
        beside = classification_logits(
            model, collate(task.validation, [short, long], task.pad_token_id), recipe
        )
    torch.testing.assert_close(beside[:1], alone, rtol=1e-4, atol=1e-5)


OTHERS: dict[str, Any] = {
    "pythia": (hf.GPTNeoXForCausalLM, hf.GPTNeoXConfig, {}, "sdpa"),
    "deberta": (hf.DebertaV2ForMaskedLM, hf.DebertaV2Config, {}, "eager"),
    "bloom": (hf.BloomForCausalLM, hf.BloomConfig, {"n_layer": 4, "n_head": 4}, "eager"),
    "rembert": (hf.RemBertForMaskedLM, hf.RemBertConfig, {}, "eager"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_models_that_transformers_loads_are_accepted(tmp_path: Path, recipe: Recipe, name: str) -> None:
    model_class, config_class, changes, attention = OTHERS[name]
    torch.manual_seed(0)
    checkpoint = saved(tmp_path / "m", model_class(config_class(**(SIZES | changes))))
    inspect_model(checkpoint, 3, [Strategy.parse(s) for s in ("ALL", "BOT50")], recipe)
    base = BaseModel(checkpoint, 3, recipe, CPU)
    assert base.attention == attention
    task = encoded(load_task("tiny-cb", 40, 0, max_validation_examples=8), checkpoint, 64, "auto")
    record = train(base.reset(1), task, recipe, Strategy.parse("BOT50"), 1, CPU)
    assert record.proof.holds
    assert record.proof.backward_depth == record.plan.backward_depth == 2


@pytest.mark.parametrize("kind", ["bert", "gemma", "packaged"])
def test_another_number_of_labels_changes_the_head_alone(tmp_path: Path, recipe: Recipe, kind: str) -> None:
    """As if it had been loaded with that number; bert has a bias and a pooler, and this one a head of its own."""
    if kind == "bert":
        made = hf.BertForSequenceClassification(hf.BertConfig(**SIZES, num_labels=2))
    else:
        made = hf.GemmaForCausalLM(hf.GemmaConfig(**SIZES, head_dim=16, num_key_value_heads=1))
    checkpoint = find_checkpoint(get_model("tiny-phi")) if kind == "packaged" else saved(tmp_path / "m", made)
    changed = BaseModel(checkpoint, 3, recipe, torch.device("cpu"))
    before = {name: p for name, p in changed.model.named_parameters() if p.shape[0] != 3}
    changed.reset(5)
    assert changed.set_labels(2)
    fresh = BaseModel(checkpoint, 2, recipe, torch.device("cpu"))
    state, expected = changed.reset(7).state_dict(), fresh.reset(7).state_dict()
    assert list(state) == list(expected)
    assert all(torch.equal(state[name], value) for name, value in expected.items())
    now = dict(changed.model.named_parameters())
    assert all(now[name] is parameter for name, parameter in before.items())
    with torch.no_grad():
        assert changed.model(input_ids=torch.tensor([[5, 6]])).logits.shape == (1, 2)
