"""How many tokens a model has positions for, against what the model itself computes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import CONFIG_MAPPING, AutoModelForSequenceClassification

from lfreeze.data.encoding import EncodedSplit, EncodedTask
from lfreeze.data.encoding_cache import encoded
from lfreeze.data.loading import load_task
from lfreeze.data.positions import require_positions
from lfreeze.models.catalog import find_checkpoint, get_model
from lfreeze.models.files import ModelError
from lfreeze.recipe import Recipe
from tests.conftest import with_values
from tests.support.checkpoints import write_causal

PAD, TOKEN = 1, 5
SIZES: dict[str, Any] = {
    "vocab_size": 60,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 20,
    "pad_token_id": PAD,
    "num_labels": 3,
}
# Tables of the size 20: all rows used, two in front of the first position, or further rows for them.
LEARNED = {"bert": 20, "gpt2": 20, "electra": 20, "roberta": 18, "mpnet": 18, "opt": 20, "gptj": 20}
ROTARY = ("llama", "phi", "modernbert")


def config_of(kind: str) -> Any:
    sizes = dict(SIZES)
    if kind == "opt":
        sizes |= {"ffn_dim": 16, "word_embed_proj_dim": 16}
    else:
        sizes |= {"intermediate_size": 16}
    if kind == "gptj":
        sizes |= {"rotary_dim": 4}
    return CONFIG_MAPPING[kind](**sizes)


def on_meta(kind: str) -> Any:
    with torch.device("meta"):
        return AutoModelForSequenceClassification.from_config(config_of(kind))


def texts(*lengths: int) -> EncodedTask:
    split = EncodedSplit(tuple((TOKEN,) * n for n in lengths), (0,) * len(lengths))
    return EncodedTask(split, split, PAD)


def computes(model: Any, n: int, padding: int = 0) -> bool:
    ids = torch.tensor([[TOKEN] * n + [PAD] * padding])
    try:
        with torch.no_grad():
            model(input_ids=ids, attention_mask=(ids != PAD).long())
    except (IndexError, RuntimeError):
        return False
    return True


@pytest.mark.parametrize(("kind", "limit"), LEARNED.items())
def test_texts_beyond_the_positions_are_refused(kind: str, limit: int, recipe: Recipe) -> None:
    real = AutoModelForSequenceClassification.from_config(config_of(kind)).eval()
    assert [computes(real, n) for n in (limit, limit + 1)] == [True, False]
    require_positions("m", on_meta(kind), texts(3, limit), recipe)
    for longest in (limit + 1, 64):
        with pytest.raises(ModelError) as caught:
            require_positions("m", on_meta(kind), texts(3, longest), recipe)
        assert str(caught.value) == (
            f"model m: its texts have up to {longest} tokens, but it has positions for {limit}: "
            f"set max_length to at most {limit}"
        )


@pytest.mark.parametrize("kind", ROTARY)
def test_rotary_positions_do_not_end(kind: str, recipe: Recipe) -> None:
    require_positions("m", on_meta(kind), texts(64), recipe)


def test_padding_needs_positions_where_the_model_counts_it(recipe: Recipe) -> None:
    """RoBERTa gives padding no position of its own: the texts alone decide there."""
    padded = with_values(recipe, padding="max_length", max_length=20)
    for kind in ("bert", "roberta"):
        require_positions("m", on_meta(kind), texts(8), padded)
    longer = with_values(padded, max_length=30)
    with pytest.raises(ModelError, match="are padded to 30 tokens, but it has positions for 20"):
        require_positions("m", on_meta("bert"), texts(8), longer)
    require_positions("m", on_meta("roberta"), texts(8), longer)
    real = AutoModelForSequenceClassification.from_config(config_of("roberta")).eval()
    assert computes(real, 8, padding=22)
    with pytest.raises(ModelError, match="are padded to 30 tokens, but it has positions for 18"):
        require_positions("m", on_meta("roberta"), texts(19), longer)


def test_a_tokenizer_without_a_token_for_a_text_is_refused(tmp_path: Path) -> None:
    """Words that are not in the vocabulary vanish where there is no token for them."""
    write_causal(tmp_path / "m")
    words = Tokenizer(
        models.WordPiece({"<pad>": 0, "<unk>": 1}, unk_token="<unk>", max_input_chars_per_word=0)
    )
    silent = json.loads(words.to_str())
    silent["model"] = {"type": "BPE", "vocab": {"<pad>": 0}, "merges": []}
    (tmp_path / "m" / "tokenizer.json").write_text(json.dumps(silent))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<pad>"}
    (tmp_path / "m" / "tokenizer_config.json").write_text(json.dumps(config))
    data = load_task("tiny-cb", 4, 0, max_validation_examples=4)
    with pytest.raises(ModelError, match=r"produces no token for the example '\d+' of the task tiny-cb"):
        encoded(data, find_checkpoint(get_model(str(tmp_path / "m"))), 64, "auto")
