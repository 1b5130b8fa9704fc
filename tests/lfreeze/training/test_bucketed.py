"""A Trainer with micro-batches against the plain one, on the same batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import Trainer, TrainingArguments

from lfreeze import BucketedTraining, FreezeCallback
from lfreeze.data.encoding import collate
from lfreeze.training.bucketed import split_batch
from tests.lfreeze.training.test_loop import make_data, make_model


class _InOrder(Trainer):
    def _get_train_sampler(self, train_dataset: Any = None) -> torch.utils.data.Sampler:
        return torch.utils.data.SequentialSampler(self.train_dataset)


class _Bucketed(BucketedTraining, _InOrder):
    # Texts this short are worth splitting only where a launch costs little.
    launch_tokens = 2


class _Wrapped(nn.Module):
    """A model with a loss of its own."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def losses(self, input_ids: Any, attention_mask: Any, labels: Any) -> torch.Tensor:
        logits = self.model(input_ids=input_ids, attention_mask=attention_mask).logits
        return nn.functional.cross_entropy(logits, labels, reduction="none")


class _Mean(_Wrapped):
    """Its loss is a mean, and it does not know the number of items."""

    def forward(self, input_ids: Any, attention_mask: Any, labels: Any) -> dict[str, torch.Tensor]:
        return {"loss": self.losses(input_ids, attention_mask, labels).mean()}


class _Sum(_Wrapped):
    """Its loss is a sum over the number of items of the whole batch, as that of transformers' language models."""

    def forward(
        self, input_ids: Any, attention_mask: Any, labels: Any, num_items_in_batch: Any = None, **kwargs: Any
    ) -> dict[str, torch.Tensor]:
        return {"loss": self.losses(input_ids, attention_mask, labels).sum() / num_items_in_batch}


def _run(
    kind: type[Trainer], model: nn.Module, folder: Path, **settings: Any
) -> tuple[list[float], list[float], int]:
    """Losses and gradient norms by step, and the number of tokens computed."""
    data, tokens = make_data(48), 0

    def together(items: list[dict[str, int]]) -> dict[str, torch.Tensor]:
        batch = collate(data.train, [item["index"] for item in items], data.pad_token_id)
        return {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask, "labels": batch.labels}

    def count(module: nn.Module, arguments: Any, keywords: dict[str, Any]) -> None:
        nonlocal tokens
        tokens += keywords["input_ids"].numel()

    model.register_forward_pre_hook(count, with_kwargs=True)
    trainer = kind(
        model=model,
        args=TrainingArguments(
            output_dir=str(folder), per_device_train_batch_size=8, max_steps=3, learning_rate=1e-3, logging_steps=1,
            report_to=[], use_cpu=True, remove_unused_columns=False, save_strategy="no", **settings,
        ),
        train_dataset=[{"index": i} for i in range(48)],
        data_collator=together,
        callbacks=[FreezeCallback("BOT50")] if not isinstance(model, _Wrapped) else [],
    )  # fmt: skip
    trainer.train()
    logged = [entry for entry in trainer.state.log_history if "grad_norm" in entry]
    return [e["loss"] for e in logged], [e["grad_norm"] for e in logged], tokens


@pytest.mark.parametrize("accumulated", [1, 2])
@pytest.mark.parametrize("wrapper", [None, _Mean, _Sum])
def test_losses_and_gradients_are_those_of_the_whole_batch(
    accumulated: int, wrapper: type[_Wrapped] | None, tmp_path: Path
) -> None:
    results = []
    for kind in (_InOrder, _Bucketed):
        model = make_model().train()
        wrapped = wrapper(model) if wrapper else model
        results.append(_run(kind, wrapped, tmp_path, gradient_accumulation_steps=accumulated))
    (losses, norms, tokens), (bucketed_losses, bucketed_norms, bucketed_tokens) = results
    assert len(losses) == 3
    # The Trainer rounds what it logs.
    assert bucketed_losses == pytest.approx(losses, rel=1e-3)
    assert bucketed_norms == pytest.approx(norms, rel=1e-3)
    assert bucketed_tokens < 0.85 * tokens


@pytest.mark.parametrize("dtype", [torch.long, torch.bool, torch.float32])
@pytest.mark.parametrize("left", [False, True])
def test_every_example_is_in_one_part_and_loses_padding_alone(left: bool, dtype: torch.dtype) -> None:
    lengths = [3, 9, 2, 9]
    mask = torch.zeros(4, 10, dtype=dtype)
    ids = torch.zeros(4, 10, dtype=torch.long)
    for row, n in enumerate(lengths):
        where = slice(10 - n, 10) if left else slice(0, n)
        mask[row, where], ids[row, where] = 1, torch.arange(1, n + 1) + 10 * row
    parts = split_batch(
        {"input_ids": ids, "attention_mask": mask, "labels": torch.arange(4), "flag": True}, 1
    )
    assert sum(share for _, share in parts) == pytest.approx(1)
    assert torch.cat([part["labels"] for part, _ in parts]).sort().values.tolist() == [0, 1, 2, 3]
    for part, _ in parts:
        assert part["flag"] is True
        for row, label in enumerate(part["labels"].tolist()):
            own = part["input_ids"][row][part["attention_mask"][row].bool()]
            assert own.tolist() == (torch.arange(1, lengths[label] + 1) + 10 * label).tolist()
    assert sum(part["input_ids"].numel() for part, _ in parts) == 2 * 3 + 2 * 9


@pytest.mark.parametrize(
    "mask", [None, torch.tensor([[1, 0, 1, 0]]).repeat(4, 1), torch.rand(4, 4), torch.ones(4, 1, 4, 4)]
)
def test_a_batch_with_another_mask_is_trained_whole(mask: torch.Tensor | None) -> None:
    inputs = {"input_ids": torch.ones(4, 4), "attention_mask": mask}
    assert split_batch(inputs, 0) == [(inputs, 1.0)]
