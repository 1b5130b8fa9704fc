"""FreezeCallback in real Trainers on tiny models, against loops written by hand and against itself resumed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import EarlyStoppingCallback, PreTrainedModel, Trainer, TrainerCallback, TrainingArguments

from lfreeze import AdaptiveFreezing, freeze
from lfreeze.blocks import model_parts
from lfreeze.callback import PROBE_FILE, FreezeCallback
from lfreeze.errors import StrategyError
from lfreeze.freeze_proof import FreezeProof, fingerprint
from lfreeze.kinds.adaptive import AdaptiveLow
from lfreeze.strategy import Strategy
from lfreeze.training.meter import optimiser_bytes
from tests.support.architectures import LAYERS, build

BATCH = 4


def tiny(name: str = "llama", seed: int = 0) -> PreTrainedModel:
    torch.manual_seed(seed)
    return build(name)


def examples(count: int = 64) -> list[dict[str, Any]]:
    ids = torch.randint(3, 99, (count, 6), generator=torch.Generator().manual_seed(1))
    return [
        {"input_ids": row, "attention_mask": torch.ones(6, dtype=torch.long), "labels": row[0] % 3}
        for row in ids
    ]


def arguments(folder: Path, **changes: Any) -> TrainingArguments:
    values = {
        "output_dir": str(folder),
        "max_steps": 6,
        "per_device_train_batch_size": BATCH,
        "learning_rate": 1e-2,
        "weight_decay": 0.1,
        "use_cpu": True,
        "report_to": [],
        "save_strategy": "no",
        "disable_tqdm": True,
        "logging_strategy": "no",
        "dataloader_pin_memory": False,
    }
    return TrainingArguments(**(values | changes))


def make(
    folder: Path,
    model: PreTrainedModel,
    *callbacks: TrainerCallback,
    optimizers: Any = (None, None),
    **changes: Any,
) -> Trainer:
    return Trainer(
        model,
        arguments(folder, **changes),
        train_dataset=examples(),
        eval_dataset=examples(8),
        callbacks=list(callbacks),
        optimizers=optimizers,
    )


class Recorder(TrainerCallback):
    """Records something after each optimiser step, before the gradients are dropped."""

    def __init__(self, look: Callable[[nn.Module, torch.optim.Optimizer], Any], event: str = "on_step_end"):
        self.seen: list[Any] = []
        setattr(
            self,
            event,
            lambda args, state, control, **kw: self.seen.append(look(kw["model"], kw["optimizer"])),
        )


def gradients(model: nn.Module, optimizer: torch.optim.Optimizer) -> set[str]:
    return {name for name, p in model.named_parameters() if p.grad is not None}


def prints(model: nn.Module) -> dict[str, int]:
    return {name: fingerprint(p) for name, p in model.named_parameters()}


def trainable(model: nn.Module) -> set[str]:
    return {name for name, p in model.named_parameters() if p.requires_grad}


def moved(before: dict[str, int], model: nn.Module) -> set[str]:
    return {name for name, value in prints(model).items() if value != before[name]}


@pytest.mark.parametrize("strategy", ["ALL", "BOT50", "TOP50", "INT33", "LoRA"])
def test_static_strategies_are_set_before_the_optimiser_is_made(tmp_path: Path, strategy: str) -> None:
    model, callback = tiny(), FreezeCallback(strategy, lora_dropout=0.0)
    recorder = Recorder(gradients, "on_pre_optimizer_step")
    trainer = make(tmp_path, model, callback, recorder)
    twin = tiny()
    plan = freeze(twin, strategy, lora_dropout=0.0)
    assert callback.plan == plan
    assert trainable(model) == trainable(twin)
    before = prints(model)
    trainer.train()
    held = [id(p) for group in trainer.optimizer.param_groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in model.parameters() if p.requires_grad)
    assert set().union(*recorder.seen) == trainable(model) == moved(before, model)
    assert plan.strategy in str(callback.plan)


def hand_written(model: PreTrainedModel, strategy: str, steps: int, accumulate: int, probe: int) -> None:
    """AdamW without the Trainer: its order of examples, its linear decay, its clipping."""
    order = torch.arange(steps * accumulate * BATCH).view(steps, -1)
    data = examples()
    adaptive = None
    if Strategy.parse(strategy).implementation.adaptive:
        adaptive = AdaptiveFreezing(model, strategy, probe_steps=probe, redraw_steps=probe)
    else:
        freeze(model, strategy)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0)
    model.train()
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 1e-2 * (1 - step / steps)
        chosen = [data[i] for i in order[step]]
        batch = {key: torch.stack([row[key] for row in chosen]) for key in chosen[0]}
        model(**batch).loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if adaptive is not None:
            adaptive.step(optimizer)


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("strategy", ["BOT50", "ADT-L50", "ADT-H25", "LISA50"])
def test_the_trainer_and_a_handwritten_loop_give_the_same_weights(
    tmp_path: Path, strategy: str, accumulate: int
) -> None:
    model, twin = tiny(), tiny()
    # Layers are drawn after the last step in a loop, which does not know that it is the last.
    callback = FreezeCallback(strategy, probe_steps=2, redraw_steps=2)
    make(
        tmp_path,
        model,
        callback,
        max_steps=5,
        weight_decay=0.0,
        train_sampling_strategy="sequential",
        gradient_accumulation_steps=accumulate,
    ).train()
    hand_written(twin, strategy, 5, accumulate, probe=2)
    assert callback.plan is not None
    assert trainable(model) == trainable(twin)
    for (name, ours), theirs in zip(model.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=2e-4, msg=name)


@pytest.mark.parametrize(
    "optim", ["adamw_torch", "adamw_torch_fused", "adafactor", "rmsprop", "adagrad", "sgd"]
)
def test_after_the_switch_frozen_layers_do_not_change_and_have_no_state(tmp_path: Path, optim: str) -> None:
    model, callback = tiny(), FreezeCallback("ADT-L50", probe_steps=3, freeze_embeddings="yes")
    marks = Recorder(lambda model, _: (trainable(model), prints(model)))
    sizes = Recorder(lambda _, optimizer: optimiser_bytes(optimizer.optimizer))
    grads = Recorder(gradients, "on_pre_optimizer_step")
    trainer = make(tmp_path, model, callback, marks, sizes, grads, max_steps=7, optim=optim)
    embedding = fingerprint(model.get_input_embeddings().weight)
    trainer.train()
    plan = callback.plan
    assert plan is not None
    assert plan.layer_changes is not None
    order = sorted(range(LAYERS), key=lambda i: plan.layer_changes[i])
    assert plan.frozen_layers == tuple(sorted(order[: LAYERS // 2]))
    assert all(marks.seen[i][0] == marks.seen[0][0] for i in range(2))
    at_switch, at_end = marks.seen[2], marks.seen[-1]
    frozen = {f"model.layers.{i}." for i in plan.frozen_layers}
    assert trainable(model) == {n for n in marks.seen[0][0] if not n.startswith(tuple(frozen))}
    assert {n for n in at_end[1] if at_end[1][n] != at_switch[1][n]} == trainable(model)
    assert embedding == fingerprint(model.get_input_embeddings().weight)
    assert [g == marks.seen[0][0] for g in grads.seen] == [True] * 3 + [False] * 4
    assert all(g == trainable(model) for g in grads.seen[3:])
    if optim.startswith("adamw"):
        # Two moments of four bytes by element, and one step count of four bytes by tensor.
        layers = model_parts(model).layers
        every = [p for n, p in model.named_parameters() if n in marks.seen[0][0]]
        left = [p for p in every if p.requires_grad]
        assert len(every) - len(left) == sum(len(list(layers[i].parameters())) for i in plan.frozen_layers)
        expected = [sum(2 * 4 * p.numel() + 4 for p in parameters) for parameters in (every, left)]
        assert sizes.seen == [expected[0]] * 2 + [expected[1]] * 5


def trained(
    folder: Path, strategy: str, resume: str | None = None, *, seed: int = 0, **changes: Any
) -> tuple[Trainer, FreezeCallback]:
    callback = FreezeCallback(strategy, probe_steps=3, redraw_steps=2, lora_dropout=0.0)
    values = {
        "save_strategy": "steps",
        "save_steps": 1,
        "max_steps": 6,
        "gradient_accumulation_steps": 2,
    } | changes
    trainer = make(folder, tiny(seed=seed), callback, **values)
    trainer.train(resume_from_checkpoint=resume)
    return trainer, callback


def same(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().items(), other.state_dict().items(), strict=True)
    return all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


@pytest.mark.parametrize(
    ("strategy", "steps"),
    [("BOT50", [2]), ("LoRA", [2]), ("ADT-L50", [2, 3, 4]), ("ADT-H25", [1, 5]), ("LISA50", [1, 2, 3])],
)
def test_resumed_and_uninterrupted_training_give_the_same_weights(
    tmp_path: Path, strategy: str, steps: list[int]
) -> None:
    trainer, uninterrupted = trained(tmp_path, strategy)
    for step in steps:
        checkpoint = tmp_path / f"checkpoint-{step}"
        assert (checkpoint / PROBE_FILE).exists() is (strategy.startswith("ADT") and step < 3)
        for restore in (False, True):
            resumed, part = trained(
                tmp_path / "again" if step >= 3 else tmp_path,
                strategy,
                str(checkpoint),
                save_strategy="no",
                restore_callback_states_from_checkpoint=restore,
            )
            assert same(trainer.model, resumed.model), (step, restore)
            current = next(c for c in resumed.callback_handler.callbacks if isinstance(c, FreezeCallback))
            assert (current is part) is not restore
            assert current.plan == uninterrupted.plan
            assert optimiser_bytes(resumed.optimizer) == optimiser_bytes(trainer.optimizer)
            assert len(resumed.optimizer.state) == sum(p.requires_grad for p in resumed.model.parameters())
    different, _ = trained(tmp_path / "other", strategy, max_steps=5, save_strategy="no")
    assert not same(trainer.model, different.model)


def test_layers_are_drawn_by_updates_and_keep_no_state(tmp_path: Path) -> None:
    """Under accumulation and weight decay; the optimiser lists every parameter, so that a resumed run fits it."""
    model, callback = tiny(), FreezeCallback("LISA75", redraw_steps=2, seed=4)
    marks = Recorder(lambda model, _: (trainable(model), prints(model)))
    grads = Recorder(gradients, "on_pre_optimizer_step")
    states = Recorder(lambda _, optimizer: {id(p) for p in optimizer.state})
    changes = {"max_steps": 7, "gradient_accumulation_steps": 2}
    trainer = make(tmp_path, model, callback, marks, grads, states, **changes)
    before, every = prints(model), trainable(model)
    assert every == set(before)
    trainer.train()
    assert [grads.seen[i] == grads.seen[i + 1] for i in range(6)] == [True, False] * 3
    for number in range(7):
        earlier = marks.seen[number - 1][1] if number else before
        assert {n for n, value in marks.seen[number][1].items() if value != earlier[n]} == grads.seen[number]
        names = {n for n in grads.seen[number] if n in marks.seen[number][0]}
        assert states.seen[number] == {id(p) for n, p in model.named_parameters() if n in names}
    assert callback.plan is not None
    assert len(callback.plan.frozen_layers) == 9
    assert trainable(model) == grads.seen[6]
    listed = {id(p) for group in trainer.optimizer.param_groups for p in group["params"]}
    assert listed == {id(p) for p in model.parameters()}
    with pytest.raises(
        StrategyError, match="LISA75 draws other layers after redraw_steps = 2; it must be between 1"
    ):
        make(tmp_path, tiny(), FreezeCallback("LISA75", redraw_steps=2), max_steps=2).train()


def test_the_probes_snapshot_is_recognised_by_its_content(tmp_path: Path) -> None:
    trainer, _ = trained(tmp_path / "run", "ADT-L50")
    moved_to = tmp_path / "kept" / "checkpoint-2"
    # A folder of the right name, but of another training.
    trained(tmp_path / "new", "ADT-L50", seed=1)
    shutil.copytree(tmp_path / "run" / "checkpoint-2", moved_to)
    resumed, _ = trained(tmp_path / "new", "ADT-L50", str(moved_to))
    assert same(trainer.model, resumed.model)


def test_unusable_checkpoints_are_refused(tmp_path: Path) -> None:
    trainer, _ = trained(tmp_path, "ADT-L50")
    checkpoint = tmp_path / "checkpoint-2"
    with pytest.raises(StrategyError, match=r"was trained with FreezeCallback .*ADT-L50"):
        trained(tmp_path, "ADT-H50", str(checkpoint))
    with pytest.raises(StrategyError, match="was trained with FreezeCallback"):
        make(tmp_path, tiny(), FreezeCallback("ADT-L50", probe_steps=4)).train(str(checkpoint))
    moved_to = tmp_path / "kept" / "checkpoint-2"
    shutil.move(checkpoint, moved_to)
    with pytest.raises(StrategyError, match=f"during its probe: this checkpoint's {PROBE_FILE}"):
        trained(tmp_path, "ADT-L50", str(moved_to))
    resumed, _ = trained(tmp_path, "ADT-L50", str(moved_to), resume_from_checkpoint=str(moved_to))
    assert same(trainer.model, resumed.model)
    (moved_to / PROBE_FILE).unlink()
    with pytest.raises(StrategyError, match=f"during its probe: this checkpoint's {PROBE_FILE}"):
        trained(tmp_path, "ADT-L50", str(moved_to), resume_from_checkpoint=str(moved_to))
    make(tmp_path / "plain", tiny(), save_strategy="steps", save_steps=1, max_steps=2).train()
    with pytest.raises(StrategyError, match="was saved without FreezeCallback"):
        trained(tmp_path / "plain", "ADT-L50", str(tmp_path / "plain" / "checkpoint-1"))


@pytest.mark.parametrize(
    ("strategy", "depth"), [("BOT50", 6), ("LoRA", 12), ("TOP50", 12), ("ADT-H50", None)]
)
def test_gradient_checkpointing_does_not_deepen_the_backward_pass(
    tmp_path: Path, strategy: str, depth: int | None
) -> None:
    model, twin = tiny("gemma"), tiny("gemma")
    options = {"freeze_embeddings": "yes"} if strategy.startswith("ADT") else {}
    callback = FreezeCallback(strategy, lora_dropout=0.0, probe_steps=2, **options)
    grads = Recorder(gradients, "on_pre_optimizer_step")
    trainer = make(tmp_path, model, callback, grads, max_steps=4, gradient_checkpointing=True)
    before = prints(model)
    trainer.train()
    assert model.is_gradient_checkpointing
    assert grads.seen[-1] == trainable(model)
    plan = callback.plan
    assert plan is not None
    assert depth is None or plan.backward_depth == depth
    assert moved(before, model) >= trainable(model)
    if depth is not None:
        assert moved(before, model) == trainable(model)
    proof = FreezeProof(model)
    handles = proof.observe_depth()
    trainer.compute_loss(
        model.train(), {k: torch.stack([e[k] for e in examples(4)]) for k in examples(1)[0]}
    ).backward()
    for handle in handles:
        handle.remove()
    assert proof.conclude(trainer.optimizer).backward_depth == plan.backward_depth
    # The same weights as without checkpointing.
    make(
        tmp_path, twin, FreezeCallback(strategy, lora_dropout=0.0, probe_steps=2, **options), max_steps=4
    ).train()
    for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
def test_reentrant_checkpointing_is_refused_where_it_would_lose_gradients(tmp_path: Path) -> None:
    reentrant = {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": True}}
    with pytest.raises(StrategyError, match=r'gradient_checkpointing_kwargs=\{"use_reentrant": False\}'):
        make(tmp_path, tiny(), FreezeCallback("BOT50"), **reentrant).train()
    model, grads = tiny(), Recorder(gradients, "on_pre_optimizer_step")
    make(tmp_path, model, FreezeCallback("TOP50"), grads, **reentrant).train()
    assert all(seen == trainable(model) for seen in grads.seen)


def test_a_callback_added_after_the_optimiser_is_refused(tmp_path: Path) -> None:
    for strategy in ("BOT50", "ADT-L50", "LoRA"):
        trainer = make(tmp_path, tiny())
        trainer.add_callback(FreezeCallback(strategy))
        with pytest.raises(StrategyError, match=r"pass it in callbacks=\[...\] to the Trainer's constructor"):
            trainer.train()
    trainer = Trainer(
        model_init=lambda: tiny(),
        args=arguments(tmp_path),
        train_dataset=examples(),
        callbacks=[FreezeCallback("BOT50")],
    )
    with pytest.raises(StrategyError, match="not model_init"):
        trainer.train()


def test_an_optimiser_holds_what_trains_and_may_hold_more(tmp_path: Path) -> None:
    model = tiny()
    optimizer = torch.optim.AdamW(list(model.parameters())[:-1], lr=1e-3)
    with pytest.raises(StrategyError, match=r"lacks 1 of the parameters that BOT50 trains \(score\.weight\)"):
        make(tmp_path, model, FreezeCallback("BOT50"), optimizers=(optimizer, None))
    model = tiny()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)
    trainer = make(tmp_path, model, FreezeCallback("BOT50"), optimizers=(optimizer, None))
    frozen = {n: p.detach().clone() for n, p in model.named_parameters() if not p.requires_grad}
    trainer.train()
    assert all(torch.equal(model.get_parameter(n), p) for n, p in frozen.items())
    model = tiny()
    freeze(model, "BOT50")
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    make(tmp_path, model, FreezeCallback("BOT50"), optimizers=(optimizer, None)).train()
    trainer = make(tmp_path, tiny(), FreezeCallback("BOT50"))
    trainer.model.requires_grad_(True)
    with pytest.raises(StrategyError, match="requires_grad flags have changed since BOT50 set them"):
        trainer.train()


class CountUpdates(TrainerCallback):
    """Counts the steps that changed a weight, and those of them in front of the freezing."""

    def __init__(self, freezing: FreezeCallback):
        self.freezing, self.updates, self.in_probe = freezing, 0, 0
        self.weight: torch.Tensor | None = None

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.weight = kwargs["model"].score.weight.detach().clone()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        assert self.weight is not None
        changed = not torch.equal(kwargs["model"].score.weight, self.weight)
        self.in_probe += changed and self.freezing.selected is None
        self.updates += changed


def test_steps_that_a_loss_scaler_skips_do_not_count(tmp_path: Path) -> None:
    callback = FreezeCallback("ADT-L50")
    counter = CountUpdates(callback)
    trainer = make(tmp_path, tiny(), callback, max_steps=40, save_strategy="steps", save_steps=1)
    trainer.callback_handler.callbacks.insert(0, counter)
    trainer.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)
    with pytest.warns(UserWarning, match="a step changed no weight"):
        trainer.train()
    assert counter.in_probe == 5
    assert counter.updates < 40
    files = sorted(
        tmp_path.glob("**/checkpoint-*/trainer_state.json"), key=lambda f: int(f.parent.name.split("-")[1])
    )
    states = [
        json.loads(f.read_text("utf-8"))["stateful_callbacks"]["FreezeCallback"]["attributes"] for f in files
    ]
    probing = [state["probe"]["updates"] for state in states if state["probe"]]
    assert probing == sorted(probing)
    assert (probing[0], probing[-1]) == (0, 4)


def test_training_that_ends_within_the_probe_is_reported(tmp_path: Path) -> None:
    trainer = make(tmp_path, tiny(), FreezeCallback("ADT-L50"), max_steps=6, learning_rate=0.0)
    with (
        pytest.warns(UserWarning, match="a step changed no weight"),
        pytest.warns(UserWarning, match="has frozen nothing: 0 steps changed a weight"),
    ):
        trainer.train()


def test_a_stack_and_an_example_are_options(tmp_path: Path) -> None:
    ids = {"input_ids": torch.tensor([[5, 6]])}
    callback = FreezeCallback("BOT50", stack="model.layers", example=ids)
    trainer = make(tmp_path, tiny(), callback, save_strategy="steps", save_steps=2)
    trainer.train()
    state = json.loads(next(tmp_path.glob("**/checkpoint-2/trainer_state.json")).read_text("utf-8"))
    assert state["stateful_callbacks"]["FreezeCallback"]["args"] == {
        "strategy": "BOT50",
        "stack": "model.layers",
    }


def test_trainings_that_cannot_freeze_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StrategyError, match="probe_steps = 6; it must be between 1 and 5"):
        make(tmp_path, tiny(), FreezeCallback("ADT-L50", probe_steps=6)).train()
    trainer = make(tmp_path, tiny())
    monkeypatch.setattr(trainer.args.distributed_state, "num_processes", 2)
    with pytest.raises(StrategyError, match="can freeze in one process only, not in 2"):
        FreezeCallback("ADT-L50").on_init_end(
            trainer.args, trainer.state, trainer.control, model=trainer.model
        )
    monkeypatch.undo()
    with pytest.raises(StrategyError, match="freezes no layer"):
        make(tmp_path, tiny(), FreezeCallback("ADT-L5"))
    with pytest.raises(StrategyError, match="unknown strategy"):
        FreezeCallback("BOTTOM")
    with pytest.raises(StrategyError, match="freeze_embeddings"):
        FreezeCallback("BOT50", freeze_embeddings="maybe")


def test_evaluation_early_stopping_and_the_best_model_work(tmp_path: Path) -> None:
    callback = FreezeCallback("ADT-L50", probe_steps=2)
    model = tiny()
    trainer = make(
        tmp_path,
        model,
        callback,
        EarlyStoppingCallback(10),
        save_strategy="steps",
        save_steps=1,
        save_total_limit=1,
        eval_strategy="steps",
        eval_steps=1,
        load_best_model_at_end=True,
        metric_for_best_model="loss",
    )
    trainer.train()
    best = Path(trainer.state.best_model_checkpoint)
    assert best.is_dir()
    kept = type(model).from_pretrained(best)
    assert same(kept, model)
    assert trainer.evaluate()["eval_loss"] == pytest.approx(trainer.state.best_metric)


def test_a_second_training_probes_again(tmp_path: Path) -> None:
    model, callback = tiny(), FreezeCallback("ADT-L50", probe_steps=2)
    marks = Recorder(lambda model, _: len(trainable(model)))
    trainer = make(tmp_path, model, callback, marks, max_steps=3, gradient_checkpointing=True)
    trainer.train()
    first, names = callback.plan, len(list(model.parameters()))
    before = prints(model)
    trainer.train()
    assert [seen == names for seen in marks.seen] == [True, False, False] * 2
    assert callback.plan is not None
    assert callback.plan.layer_changes != first.layer_changes
    assert moved(before, model) == set(before)
    static = FreezeCallback("BOT50")
    trainer = make(tmp_path, tiny(), static, max_steps=2)
    before = prints(trainer.model)
    trainer.train()
    trainer.train()
    assert moved(before, trainer.model) == trainable(trainer.model)


def test_frozen_weights_of_another_type_resume_equally(tmp_path: Path) -> None:
    runs = []
    for resume in (None, str(tmp_path / "checkpoint-3")):
        callback = FreezeCallback("ADT-L50", probe_steps=2, frozen_dtype=torch.bfloat16)
        trainer = make(tmp_path, tiny(), callback, bf16=True, save_strategy="steps", save_steps=1)
        trainer.train(resume_from_checkpoint=resume)
        runs.append(trainer)
    assert {p.dtype for p in runs[0].model.parameters()} == {torch.float32, torch.bfloat16}
    assert same(runs[0].model, runs[1].model)
    saved = json.loads((tmp_path / "checkpoint-3" / "trainer_state.json").read_text())
    assert saved["stateful_callbacks"]["FreezeCallback"]["args"]["frozen_dtype"] == "torch.bfloat16"
    with pytest.raises(StrategyError, match="reload the model"):
        runs[0].train()


@pytest.mark.parametrize(
    ("strategy", "values", "variables", "reason"),
    [
        ("BOT50", {"fsdp": True}, {}, "does not support FSDP: train the model unsharded"),
        ("BOT50", {}, {"ACCELERATE_USE_FSDP": "true"}, "does not support FSDP"),
        (
            "BOT50",
            {"deepspeed": {"zero_optimization": {"stage": 3}}},
            {},
            "ZeRO stage 3: train .* stage 0, 1 or 2",
        ),
        ("BOT50", {"deepspeed": "zero.json"}, {}, "ZeRO stage unknown"),
        (
            "BOT50",
            {},
            {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"},
            "ZeRO stage 3",
        ),
        (
            "ADT-L50",
            {"deepspeed": {"zero_optimization": {"stage": 1}}},
            {},
            "ADT-L50 cannot freeze under DeepSpeed",
        ),
    ],
)
def test_sharded_training_is_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    strategy: str,
    values: dict[str, Any],
    variables: dict[str, str],
    reason: str,
) -> None:
    trainer = make(tmp_path, tiny())
    vars(trainer.args).update(values)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(StrategyError, match=reason):
        FreezeCallback(strategy).on_init_end(
            trainer.args, trainer.state, trainer.control, model=trainer.model
        )
    assert all(p.requires_grad for p in trainer.model.parameters())


@pytest.mark.parametrize("config", [{}, {"zero_optimization": {"stage": 2}}])
def test_stages_that_leave_parameters_whole_are_accepted(tmp_path: Path, config: dict[str, Any]) -> None:
    trainer = make(tmp_path, tiny())
    trainer.args.deepspeed = config | {"train_batch_size": 4}
    FreezeCallback("BOT50").on_init_end(trainer.args, trainer.state, trainer.control, model=trainer.model)
    assert not trainer.model.model.layers[0].mlp.up_proj.weight.requires_grad


def test_a_controller_that_a_checkpoint_cannot_hold_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Plain:
        def step(self, optimizer: torch.optim.Optimizer) -> None:
            return None

    monkeypatch.setattr(AdaptiveLow, "controller", lambda *_: Plain())
    trainer = make(tmp_path, tiny(), FreezeCallback("ADT-L50"))
    with pytest.raises(StrategyError, match="cannot resume ADT-L50 from a checkpoint"):
        trainer.train()
