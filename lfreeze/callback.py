"""Freezing for ``transformers.Trainer`` and for trainers built on it, such as TRL's."""

from __future__ import annotations

import json
import os
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from lfreeze.errors import StrategyError
from lfreeze.freeze_proof import fingerprint
from lfreeze.freezing import as_strategy, describe, prepare, set_trainable
from lfreeze.optimizers import ParameterLists, require_held
from lfreeze.plan import FreezePlan, ResumableController, parse_options
from lfreeze.strategy import Strategy

PROBE_FILE = "freeze_probe.safetensors"

# The plan that was set on each model before its optimiser was created. Not an attribute of the callback:
# restore_callback_states_from_checkpoint replaces the callback that set it with a new one.
_prepared: WeakKeyDictionary[nn.Module, FreezePlan] = WeakKeyDictionary()


class FreezeCallback(TrainerCallback, ExportableState):
    """Freezes a Trainer's model by a strategy's name.

    ```python
    trainer = Trainer(model, args, train_dataset=data, callbacks=[FreezeCallback("BOT50")])
    trainer.train()
    ```

    Static strategies and LoRA are set when the Trainer is created, before it creates its optimiser.
    Adaptive ones train every layer for ``probe_steps`` updates that change a weight, then select and
    freeze layers (§3.2 of the paper); a checkpoint saved before that
    contains the weights to compare with as ``freeze_probe.safetensors``. LISA freezes drawn layers when
    training begins, and others after every ``redraw_steps`` updates. Training resumed from a
    checkpoint continues as if it had not been interrupted. A second ``train()`` selects again.

    Attributes:
        plan: what trains now; None until the Trainer is created.

    Args:
        strategy: such as ``"BOT50"``, ``"ADT-L50"`` or ``"LoRA"``.
        options: those of ``lfreeze.plan.FreezeOptions``.

    Raises:
        StrategyError: the constructor raises it for an unknown strategy or option value; creating the
            Trainer for a strategy that does not fit the model, a custom optimiser that lacks what
            trains, FSDP, ZeRO-3, or an adaptive strategy under DeepSpeed or in several processes; ``train()``
            for a callback added after the Trainer was created, ``model_init``, re-entrant gradient
            checkpointing over frozen embeddings, training no longer than the probe or the first draw, or a
            checkpoint of another callback.
    """

    def __init__(self, strategy: str | Strategy, **options: Any):
        self._strategy = as_strategy(strategy)
        # trainer_state.json stores the type as text.
        if isinstance(options.get("frozen_dtype"), str):
            options["frozen_dtype"] = getattr(torch, options["frozen_dtype"].removeprefix("torch."))
        self._arguments, self._options = options, parse_options(options)
        self._controller: ResumableController | None = None
        self.plan: FreezePlan | None = None
        self.selected: dict[str, list[Any]] | None = None
        self.probe: dict[str, Any] | None = None

    def state(self) -> dict[str, Any]:
        """The arguments of this callback and the state of its selection, for trainer_state.json."""
        # An example is needed only until the order of execution is observed.
        arguments = {k: v for k, v in self._arguments.items() if k != "example"}
        options = {k: str(v) if isinstance(v, torch.dtype) else v for k, v in arguments.items()}
        return {
            "args": {"strategy": self._strategy.name, **options},
            "attributes": {"selected": self.selected, "probe": self.probe},
        }

    def on_init_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        model, optimizer, name = kwargs["model"], kwargs.get("optimizer"), self._strategy.name
        _refuse_sharding(args, self._strategy)
        if self._strategy.implementation.adaptive and args.world_size > 1:
            raise StrategyError(f"strategy {name} can freeze in one process only, not in {args.world_size}")
        _release_inputs(model)
        self.plan = _prepared[model] = prepare(model, self._strategy, self._options)
        self._strategy.frozen_count(self.plan.n_layers)
        if optimizer is not None:
            require_held(model, [optimizer], name)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        model, optimizer, strategy = kwargs["model"], kwargs["optimizer"], self._strategy
        before = _prepared.get(model)
        if before is None or before.strategy != strategy.name:
            raise StrategyError(
                f"FreezeCallback({strategy.name!r}) was added after this model's optimiser was created: pass it in "
                "callbacks=[...] to the Trainer's constructor, together with a model, not model_init"
            )
        if self._options.frozen_dtype is not None and self.plan and self.plan.layer_changes is not None:
            raise StrategyError(
                f"strategy {strategy.name} has stored frozen layers in {self._options.frozen_dtype}, which cannot "
                "train again: reload the model before another train()"
            )
        _release_inputs(model)
        if strategy.implementation.adaptive:
            self.plan = prepare(model, strategy, self._options)
        else:
            self.plan = describe(model, strategy, self._options.stack)
        if self.plan != before:
            raise StrategyError(
                f"requires_grad flags have changed since {strategy.name} set them: leave them as the callback sets them"
            )
        if not _uses("DeepSpeed", args.deepspeed):
            # DeepSpeed's optimiser holds flat copies.
            require_held(model, [optimizer], strategy.name)
        if self.plan.embeddings_frozen and _is_reentrant(model):
            raise StrategyError(
                "re-entrant gradient checkpointing gives no gradient to layers above frozen embeddings: "
                'set gradient_checkpointing_kwargs={"use_reentrant": False}'
            )
        saved = self._saved(state) if state.global_step else {"selected": None, "probe": None}
        self.selected, self.probe = saved["selected"], saved["probe"]
        self._controller = None
        if self.selected:
            plan = set_trainable(model, strategy, self.selected["layers"], self._options)
            self.plan = replace(plan, layer_changes=tuple(self.selected["changes"]))
        else:
            self._begin_probe(args, state, model)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        redraws = self._strategy.implementation.redraws
        # Layers that are drawn after the last step would not train.
        if self._controller is None or (redraws and state.global_step >= state.max_steps):
            return
        optimizer = kwargs["optimizer"]
        lists = ParameterLists([optimizer])
        plan = self._controller.step(optimizer)
        # Frozen parameters stay listed, without gradient and state: optimisers skip parameters without
        # a gradient, and a resumed run loads its state into an optimiser that lists all of them.
        lists.restore()
        if plan is None or redraws:
            assert self.probe is not None
            self.probe["updates"] = self._controller.updates
            self.plan = plan or self.plan
            return
        assert plan.layer_changes is not None
        self.plan, self._controller, self.probe = plan, None, None
        self.selected = {"layers": list(plan.frozen_layers), "changes": list(plan.layer_changes)}

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._controller is not None and not self._strategy.implementation.redraws:
            warnings.warn(
                f"{self._strategy.name} has frozen nothing: {self._controller.updates} steps changed a weight, "
                f"and its probe takes {self._options.probe_steps}",
                stacklevel=2,
            )

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        tensors = self._controller.state_tensors() if self._controller is not None else {}
        if tensors and args.should_save:
            save_file(tensors, _checkpoint(args.output_dir, state) / PROBE_FILE)

    def _begin_probe(self, args: TrainingArguments, state: TrainerState, model: nn.Module) -> None:
        """Take the snapshot to compare with, which a resumed run reads from the checkpoint; or draw layers."""
        controller = self._strategy.implementation.controller(model, self._strategy, self._options)
        if controller is None:
            return
        if not isinstance(controller, ResumableController):
            raise StrategyError(
                f"FreezeCallback cannot resume {self._strategy.name} from a checkpoint: "
                "train with it in your own loop"
            )
        redraws = self._strategy.implementation.redraws
        name, does = ("redraw_steps", "draws other layers") if redraws else ("probe_steps", "freezes")
        steps = getattr(self._options, name)
        if not 0 < steps < state.max_steps:
            raise StrategyError(
                f"strategy {self._strategy.name} {does} after {name} = {steps}; "
                f"it must be between 1 and {state.max_steps - 1}, one less than the steps of this training"
            )
        snapshot = controller.state_tensors()
        if state.global_step:
            tensors = self._read_probe(args, state) if snapshot else {}
            # Checkpoints of version 0.2 count every step.
            controller.resume(tensors, (self.probe or {}).get("updates", state.global_step))
        else:
            self.probe = {"output_dir": args.output_dir, "fingerprint": _fingerprint(snapshot)}
        self._controller = controller
        self.plan = getattr(controller, "plan", self.plan)

    def _read_probe(self, args: TrainingArguments, state: TrainerState) -> dict[str, torch.Tensor]:
        """The snapshot in the checkpoint, recognised by its fingerprint: Trainer does not name the folder."""
        assert self.probe is not None
        folders = [_checkpoint(folder, state) for folder in (args.output_dir, self.probe["output_dir"])]
        if isinstance(args.resume_from_checkpoint, str):
            folders.append(Path(args.resume_from_checkpoint))
        for path in [folder / PROBE_FILE for folder in folders if (folder / PROBE_FILE).is_file()]:
            tensors: dict[str, torch.Tensor] = load_file(path)
            if _fingerprint(tensors) == self.probe["fingerprint"]:
                return tensors
        raise StrategyError(
            f"cannot resume {self._strategy.name} during its probe: this checkpoint's {PROBE_FILE} is not in "
            f"{' or '.join(map(str, dict.fromkeys(folders)))}; "
            "name its folder in TrainingArguments(resume_from_checkpoint=...) too"
        )

    def _saved(self, state: TrainerState) -> dict[str, Any]:
        saved: dict[str, dict[str, Any]] | None = state.stateful_callbacks.get(type(self).__name__)
        if saved is None:
            raise StrategyError(
                "the checkpoint was saved without FreezeCallback: resume it without the callback"
            )
        own = json.loads(json.dumps(self.state()["args"]))
        if saved["args"] != own:
            raise StrategyError(f"the checkpoint was trained with FreezeCallback {saved['args']}, not {own}")
        return saved["attributes"]


def _refuse_sharding(args: TrainingArguments, strategy: Strategy) -> None:
    """Refuse what distributes parameters over processes; ZeRO-1 and ZeRO-2 leave them whole.

    Raises:
        StrategyError: FSDP, ZeRO-3, or an adaptive strategy under DeepSpeed.
    """
    if _uses("FSDP", args.fsdp):
        raise StrategyError("FreezeCallback does not support FSDP: train the model unsharded")
    if not _uses("DeepSpeed", args.deepspeed):
        return
    if strategy.implementation.adaptive:
        raise StrategyError(
            f"strategy {strategy.name} cannot freeze under DeepSpeed, which joins the parameters that train when "
            "training begins: choose a strategy that freezes before training"
        )
    stage = _zero_stage(args)
    if stage not in ("0", "1", "2"):
        raise StrategyError(
            f"FreezeCallback does not support DeepSpeed's ZeRO stage {stage}: train the model with stage 0, 1 or 2"
        )


def _uses(sharding: str, argument: object) -> bool:
    # accelerate launch sets the variable.
    return bool(argument) or os.environ.get(f"ACCELERATE_USE_{sharding.upper()}", "").lower() == "true"


def _zero_stage(args: Any) -> str:
    config = getattr(getattr(args, "hf_deepspeed_config", None), "config", args.deepspeed)
    if isinstance(config, dict):
        return str(config.get("zero_optimization", {}).get("stage", 0))
    return os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", "unknown")


def _release_inputs(model: Any) -> None:
    """Undo enable_input_require_grads, which makes the backward pass cross every frozen layer.

    Gradient checkpointing enables it, but only the re-entrant variant needs it.
    """
    # Older releases of transformers fail on a model on which it was never enabled.
    if hasattr(model, "_require_grads_hook"):
        model.disable_input_require_grads()


def _is_reentrant(model: nn.Module) -> bool:
    functions = [
        getattr(module, "_gradient_checkpointing_func", None)
        for module in model.modules()
        if getattr(module, "gradient_checkpointing", False)
    ]
    # torch's default is the re-entrant variant.
    return any(getattr(f, "keywords", {}).get("use_reentrant") is not False for f in functions)


def _checkpoint(output_dir: str, state: TrainerState) -> Path:
    return Path(output_dir) / f"checkpoint-{state.global_step}"


def _fingerprint(tensors: dict[str, torch.Tensor]) -> str:
    return f"{sum(fingerprint(t) for t in tensors.values()) % (1 << 64):016x}"
