"""The order of training and the shape of batches."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lfreeze.data.encoding import EncodedSplit, collate, encode_task, training_order
from lfreeze.data.encoding_cache import encoded
from lfreeze.data.loading import load_task
from lfreeze.data.tasks import Example, TaskData
from lfreeze.models.catalog import find_checkpoint, get_model
from lfreeze.models.loading import load_tokenizer


def single_texts(*texts: str) -> TaskData:
    """A task of single texts in place of the pairs of one."""
    pairs = load_task("tiny-cb", 4, 0, max_validation_examples=2)
    rows = tuple(Example(str(i), text, None, i % 3) for i, text in enumerate(texts))
    task = replace(pairs.task, name="single", fields=("text",))
    return replace(pairs, task=task, train=rows, validation=rows[:2], fingerprint="-".join(texts))


def test_single_texts_are_encoded_alone() -> None:
    checkpoint = find_checkpoint(get_model("tiny-gemma"))
    tokenizer, texts = load_tokenizer(checkpoint), ("Every dog barks.", "No cat", "a " * 40)
    task = encoded(single_texts(*texts), checkpoint, 16, "auto")
    alone = [tokenizer(text)["input_ids"] for text in texts]
    # Truncation keeps the last token, which ends every text.
    assert task.train.input_ids == tuple((*ids[:-1][:15], ids[-1]) for ids in alone)
    assert task.train.labels == (0, 1, 2)
    assert task.validation.input_ids == task.train.input_ids[:2]
    assert len(task.train.input_ids[2]) == 16


@pytest.mark.parametrize("second", [None, ""])
def test_a_single_text_has_no_second_token_type(second: str | None) -> None:
    """BERT's separator after the first text ends a single text; an empty second text adds another."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"[CLS]": 0, "[SEP]": 1, "a": 2, "b": 3}, unk_token="a"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.BertProcessing(("[SEP]", 1), ("[CLS]", 0))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="a")
    data = single_texts("a b", "b")
    rows = tuple(replace(example, second=second) for example in data.train)
    ids = encode_task(replace(data, train=rows), tokenizer, 8).train.input_ids
    end = (1,) if second is None else (1, 1)
    assert ids == ((0, 2, 3, *end), (0, 3, *end))


def test_every_epoch_sees_every_example_once() -> None:
    order = training_order(10, 35, seed=3)
    assert len(order) == 35
    epochs = [order[i : i + 10] for i in (0, 10, 20)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_the_order_depends_on_the_seed_alone() -> None:
    assert training_order(50, 60, 1) == training_order(50, 60, 1)
    assert training_order(50, 60, 1) != training_order(50, 60, 2)
    assert training_order(50, 60, 1)[:20] == training_order(50, 20, 1)


def test_batches_are_padded_on_the_right() -> None:
    split = EncodedSplit(((5, 6, 7), (8,)), (1, 0))
    batch = collate(split, [1, 0], pad_token_id=9)
    assert batch.input_ids.tolist() == [[8, 9, 9], [5, 6, 7]]
    assert batch.attention_mask.tolist() == [[1, 0, 0], [1, 1, 1]]
    assert batch.labels.tolist() == [0, 1]
    assert batch.tokens == 6
    assert collate(split, [0], 9, length=5).input_ids.tolist() == [[5, 6, 7, 9, 9]]
