"""The order of training and the shape of batches."""

from __future__ import annotations

from lfreeze.data.encoding import EncodedSplit, collate, training_order


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
