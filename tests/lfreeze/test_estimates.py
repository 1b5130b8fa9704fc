"""Estimates against measured steps, torch's FLOP counter, the plans of ``freeze``, and a calculation by hand."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

from lfreeze import StrategyError, estimate, freeze
from lfreeze.__main__ import main
from lfreeze.estimates import StrategyEstimate
from lfreeze.training.meter import MemoryUse, Meter
from tests.support.hub_server import HubServer

SIZES = {
    "hidden_size": 96, "intermediate_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4, "vocab_size": 1500,
    "max_position_embeddings": 128, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
CHANGES: dict[str, dict[str, Any]] = {
    "gemma": {"head_dim": 24, "num_key_value_heads": 1},
    "gemma2": {"head_dim": 24, "num_key_value_heads": 1},
    "llama": {"num_key_value_heads": 2, "tie_word_embeddings": True},
    "qwen2": {"num_key_value_heads": 2},
    "mixtral": {"num_key_value_heads": 2, "num_local_experts": 4},
}
# Few tokens, of which the gradients are larger than the activations, and many.
MEASURED = [
    ("gpt2", False, "ALL", 2, 16), ("gpt2", True, "BOT50", 8, 64),
    ("bert", False, "BOT50", 8, 64), ("bert", False, "LoRA", 8, 64),
    ("gemma", True, "ALL", 8, 64), ("gemma", True, "ALL", 1, 16), ("gemma2", True, "BOT50", 8, 64),
    ("llama", True, "ALL", 8, 64), ("llama", True, "LoRA", 8, 64), ("llama", False, "ALL", 1, 16),
    ("phi", True, "TOP50", 8, 64), ("phi", True, "BOT50", 2, 16),
    ("qwen2", False, "INT50", 8, 64), ("qwen2", True, "NORM", 8, 64),
    ("mixtral", True, "ALL", 8, 64),
]  # fmt: skip


def config_of(kind: str) -> Any:
    return AutoConfig.for_model(kind, **SIZES, **CHANGES.get(kind, {}))


def build(kind: str, causal_lm: bool) -> Any:
    torch.manual_seed(0)
    auto: Any = AutoModelForCausalLM if causal_lm else AutoModelForSequenceClassification
    model = auto.from_config(config_of(kind))
    model.config.use_cache = False
    return model.train()


def loss_of(model: Any, causal_lm: bool, batch: int, length: int) -> torch.Tensor:
    """The loss of a batch in which every other text is padded, so that attention has a mask."""
    ids = torch.randint(3, 1500, (batch, length), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[::2, length // 2 :] = 0
    labels = ids if causal_lm else ids[:, 0] % 2
    loss: torch.Tensor = model(input_ids=ids, attention_mask=mask, labels=labels).loss
    return loss


def measured(model: Any, causal_lm: bool, batch: int, length: int) -> MemoryUse:
    """The second step, when the optimiser's state is there."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
    meter = Meter(model, torch.device("cpu"))
    for _ in range(2):
        meter.begin_phase()
        with meter.step(optimizer, memory=True):
            with meter.forward():
                loss = loss_of(model, causal_lm, batch, length)
            loss.backward()
            meter.after_backward(model.parameters())
            optimizer.step()
            optimizer.zero_grad()
        del loss
    return meter.memory()


@pytest.mark.parametrize(("kind", "causal_lm", "strategy", "batch", "length"), MEASURED)
def test_peaks_are_near_measured_ones(
    kind: str, causal_lm: bool, strategy: str, batch: int, length: int, tmp_path: Path
) -> None:
    """The peak and what it adds to the weights, within 10 %, from the configuration's file alone."""
    config_of(kind).save_pretrained(tmp_path)
    found = estimate(
        tmp_path / "config.json",
        [strategy],
        batch_size=batch,
        max_length=length,
        causal_lm=causal_lm,
        device="cpu",
        precision="fp32",
    ).strategies[0]
    model = build(kind, causal_lm)
    plan = freeze(model, strategy)
    assert found.trainable_parameters == plan.trainable_parameters
    assert found.backward_depth == plan.backward_depth
    used = measured(model, causal_lm, batch, length)
    assert found.gradient_bytes == used.gradient
    assert found.activation_bytes == pytest.approx(used.activation, rel=0.10)
    assert found.training_bytes == pytest.approx(used.training, rel=0.10)
    assert found.peak_bytes == pytest.approx(used.peak_allocated, rel=0.10)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("strategy", ["ALL", "BOT50", "TOP50", "LoRA"])
def test_flops_of_language_models_equal_torchs_counter(strategy: str, tied: bool) -> None:
    """Exactly; a head that is tied to frozen embeddings has no weight gradient."""
    config = config_of("llama")
    config.tie_word_embeddings, config._attn_implementation = tied, "eager"
    model: Any = AutoModelForCausalLM.from_config(config)
    plan = freeze(model.train(), strategy)
    found = estimate(config.to_dict(), [strategy], batch_size=2, max_length=16, causal_lm=True)
    with FlopCounterMode(display=False) as counter:
        loss_of(model, True, 2, 16).backward()
    assert found.strategies[0].step_flops == counter.get_total_flops()
    assert found.strategies[0].trainable_parameters == plan.trainable_parameters
    assert found.total_parameters == sum(p.numel() for n, p in model.named_parameters() if "lora_" not in n)


LLAMA_3_2_1B = {
    "model_type": "llama", "hidden_size": 2048, "num_hidden_layers": 16, "num_attention_heads": 32,
    "num_key_value_heads": 8, "head_dim": 64, "intermediate_size": 8192, "vocab_size": 128256,
    "tie_word_embeddings": True, "rms_norm_eps": 1e-5, "max_position_embeddings": 131072, "hidden_act": "silu",
}  # fmt: skip


@pytest.mark.parametrize("length", [128, 2048])
def test_llama_3_2_1b_against_a_calculation_by_hand(length: int) -> None:
    """Eight texts a step, bfloat16 autocast on CUDA: parameters and FLOPs exactly, memory within 2 %."""
    hidden, inner, vocabulary, layers = 2048, 8192, 128256, 16
    # Query and output 2048 x 2048, key and value 2048 x 512; gate, up and down 2048 x 8192.
    matrices = 2 * hidden * hidden + 2 * hidden * 512 + 3 * hidden * inner
    table = vocabulary * hidden
    parameters = table + layers * (matrices + 2 * hidden) + hidden
    assert (matrices, table, parameters) == (60_817_408, 262_668_288, 1_235_814_400)

    tokens = 8 * length
    # Scores and their product with the values, 2048 wide, over all pairs of positions.
    attention = 2 * 2 * tokens * length * hidden
    layer = 2 * tokens * matrices
    head = 2 * tokens * table
    forward = layers * (layer + attention) + head
    all_flops = 3 * forward
    # Eight layers are crossed; the tied head has an input gradient but no weight gradient.
    bot_flops = forward + 8 * 2 * (layer + attention) + head

    # Kept of a token in a layer that trains, in bytes. Two norms: the input and the normalised vector in
    # float32; then a copy in bfloat16 for each of the five linear maps that read them.
    kept = 2 * (4 + 4) * hidden + 5 * 2 * hidden
    # Query, key, value for 32 heads, attention's output, and a float32 statistic for each head.
    kept += 4 * 2 * hidden + 4 * 32
    # Gate, its activation, up, and their product.
    kept += 4 * 2 * inner
    # Beside it, the bfloat16 copy of each weight matrix, and the mask of padded texts for attention.
    trained = tokens * kept + 2 * matrices + 2 * tokens * length
    # Behind the layers: the last norm, the bfloat16 copy of its result and of the table, and log-probabilities.
    behind = tokens * (2 * 4 + 2) * hidden + 2 * table + 4 * tokens * vocabulary
    # The gradients of log-probabilities and logits, each in float32.
    loss = 2 * 4 * tokens * vocabulary
    weights = 4 * parameters

    full, half = estimate(
        LLAMA_3_2_1B, ["ALL", "BOT50"], batch_size=8, max_length=length, causal_lm=True
    ).strategies
    assert full.trainable_parameters == parameters
    assert half.trainable_parameters == 8 * (matrices + 2 * hidden) + hidden
    assert (full.static_bytes, half.static_bytes) == (weights, weights)
    assert (full.step_flops, half.step_flops) == (all_flops, bot_flops)
    assert (full.optimiser_bytes, full.gradient_bytes) == (2 * weights, weights)
    assert half.optimiser_bytes == 2 * half.gradient_bytes == 8 * half.trainable_parameters
    assert full.activation_bytes == pytest.approx(layers * trained + behind, rel=0.02)
    assert half.activation_bytes == pytest.approx(8 * trained + behind, rel=0.02)
    # With few tokens ALL's peak is at the end of the backward pass: all gradients, and two of the tied table.
    at_start, at_end = layers * trained + behind + loss, weights + 4 * table
    # The head's products need its gradient in bfloat16 and float32, when the logits' is in bfloat16 again.
    in_head = layers * trained + behind + 6 * table - 2 * tokens * vocabulary
    assert full.training_bytes == pytest.approx(2 * weights + max(at_start, in_head, at_end), rel=0.02)
    assert half.training_bytes == pytest.approx(
        half.optimiser_bytes + max(8 * trained + behind + loss, half.gradient_bytes), rel=0.02
    )
    assert full.peak_bytes == weights + full.training_bytes
    assert half.training_saved == pytest.approx(100 * (1 - half.training_bytes / full.training_bytes))
    assert half.flops_saved == pytest.approx(100 * (1 - bot_flops / all_flops))


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_every_kind_of_strategy_has_an_estimate(kind: str) -> None:
    names = [
        "ALL",
        "LoRA",
        "INT50",
        "BOT50",
        "BOT-E50",
        "TOP50",
        "ADT-L50",
        "RND50",
        "LISA50",
        "BOT-LoRA50",
        "NORM",
    ]
    for causal_lm in (False, True):
        found = estimate(config_of(kind).to_dict(), names, batch_size=4, max_length=32, causal_lm=causal_lm)
        by_name = {s.strategy: s for s in found.strategies}
        assert list(by_name) == names
        assert _saved(by_name["ALL"]) == (0, 0, 0)
        # An adaptive strategy's probe trains every layer.
        assert by_name["ADT-L50"].training_saved == 0 < by_name["ADT-L50"].flops_saved
        assert by_name["BOT50"].training_saved > by_name["BOT-E50"].training_saved > 0
        assert by_name["BOT-LoRA50"].flops_saved > by_name["LoRA"].flops_saved > 0


def _saved(found: StrategyEstimate) -> tuple[float, float, float]:
    return found.training_saved, found.peak_saved, found.flops_saved


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a folder for each of some configurations."""
    monkeypatch.chdir(tmp_path)
    for kind in ("llama", "phi", "bart", "vit"):
        config = AutoConfig.for_model(kind) if kind in ("bart", "vit") else config_of(kind)
        config.save_pretrained(kind)
    Path("unnamed.json").write_text('{"hidden_size": 64}')
    Path("list.json").write_text("[1]")
    Path("empty").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("phi", {"strategies": "ALL,SOME50"}, "unknown strategy 'SOME50'; accepted are ALL, LoRA, "),
        ("phi", {"strategies": "BOT10"}, "strategy BOT10 freezes no layer of a model with 4 layers"),
        ("phi", {"strategies": ""}, "unknown strategy ''"),
        ("./nowhere", {}, "model './nowhere': the folder does not exist"),
        ("nowhere", {}, "unknown model 'nowhere'; known are gemma-2b, "),
        ("empty", {}, "lacks the file config.json"),
        ("list.json", {}, "model list.json: list.json is not a JSON object"),
        ("unnamed.json", {}, "model unnamed.json: its configuration has no model_type"),
        (
            "bart",
            {},
            "has more than one stack of layers, model.encoder.layers (12), model.decoder.layers (12)",
        ),
        ("vit", {}, "has no sequence classifier of the architecture 'vit'"),
        ("vit", {"causal_lm": None}, "has no causal language model of the architecture 'vit'"),
        ("phi", {"max_length": "129"}, "max_length = 129 is above the 128 positions of the model phi"),
        ("phi", {"max_length": "many"}, "argument --max-length: invalid int value: 'many'"),
        ("phi", {"batch_size": "0"}, "batch_size = 0 is below 1"),
        ("phi", {"labels": "0"}, "n_labels = 0 is not a whole number above 0"),
        ("phi", {"precision": "fp8"}, "precision = 'fp8' is not one of fp32, bf16-mixed, bf16"),
        ("phi", {"device": "tpu"}, "device = 'tpu' is not one of cuda, cpu"),
        ("phi", {"strategies": "LoRA", "lora_targets": "query"}, "LoRA's target 'query' is no linear map"),
        ("llama", {"strategies": "BitFit"}, "BitFit trains biases, and a model of type llama has none"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_bad_input_is_answered_in_one_sentence(
    model: str, options: dict[str, str | None], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen: dict[str, str | None] = {"batch_size": "4", "max_length": "32", **options}
    arguments = [
        f"--{name.replace('_', '-')}" + (f"={v}" if v is not None else "") for name, v in chosen.items()
    ]
    with pytest.raises(SystemExit) as ended:
        main(["estimate", model, *arguments])
    output = capsys.readouterr()
    assert (ended.value.code, output.out) == (2, "")
    assert output.err.startswith("error: ")
    assert output.err.count("\n") == 1
    assert message in output.err


def test_a_table_of_positions_with_a_row_for_padding_ends_earlier() -> None:
    """RoBERTa's, whose first row that is used is the one behind padding."""
    model = build("roberta", False)
    estimate(config_of("roberta").to_dict(), ["ALL"], batch_size=1, max_length=127)
    loss_of(model, False, 1, 127)
    with pytest.raises(ValueError, match="max_length = 128 is above the 127 positions"):
        estimate(config_of("roberta").to_dict(), ["ALL"], batch_size=1, max_length=128)
    with pytest.raises((IndexError, RuntimeError), match="out of"):
        loss_of(model, False, 2, 128)


def test_a_declared_limit_below_one_is_none() -> None:
    """XLNet's positions are relative, and its configuration says -1."""
    sizes = {"n_layer": 2, "d_model": 96, "n_head": 4, "d_inner": 128, "vocab_size": 300}
    values = AutoConfig.for_model("xlnet", **sizes).to_dict()
    assert estimate(values, ["ALL"], batch_size=1, max_length=600).n_layers == 2


def test_an_unknown_option_is_named() -> None:
    with pytest.raises(ValueError, match="unknown option 'steps' of an estimate; known are precision, "):
        estimate(config_of("phi").to_dict(), batch_size=4, max_length=32, steps=3)


def test_lora_without_peft_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The table of targets is peft's, for architectures without ``q_proj`` and ``v_proj``."""
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(
        StrategyError, match=r"needs the package peft .* in bert.*pip install 'lfreeze\[lora\]'"
    ):
        estimate(config_of("bert").to_dict(), ["LoRA"], batch_size=4, max_length=32)
    found = estimate(
        config_of("bert").to_dict(), ["LoRA"], batch_size=4, max_length=32, lora_targets=("query", "value")
    )
    # Rank 8, two square maps in each of four layers, and a head with a pooler of its own.
    assert found.strategies[0].trainable_parameters == 8 * 4 * 2 * 2 * 96 + 96 * 97 + 2 * 97


def test_a_hub_identifier_downloads_the_configuration_alone(tmp_path: Path) -> None:
    """From a stand-in of the hub."""
    files = {
        "config.json": config_of("phi").to_json_string().encode(),
        "tokenizer.json": b"{}",
        "model.safetensors": bytes(4096),
    }
    arguments = ["someone/model", "--strategies=BOT50", "--batch-size=4", "--max-length=32", "--json"]
    with HubServer() as hub:
        hub.add_model("someone/model", files)
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("HF_")},
            "HF_ENDPOINT": hub.endpoint,
            "HF_HOME": str(tmp_path / "hub"),
            "NO_PROXY": "127.0.0.1",
        }
        done = subprocess.run(
            [sys.executable, "-m", "lfreeze", "estimate", *arguments],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    expected = estimate(config_of("phi").to_dict(), ["BOT50"], batch_size=4, max_length=32)
    found = json.loads(done.stdout)
    assert found["model"] == "someone/model"
    assert found["strategies"][0]["peak_bytes"] == expected.strategies[0].peak_bytes
    assert {path.name for path in (tmp_path / "hub").rglob("snapshots/*/*")} == {"config.json"}


PAGE = (Path(__file__).parents[2] / "docs" / "estimate.md").read_text("utf-8")


@pytest.mark.parametrize(
    ("command", "output"),
    re.findall(r"^lfreeze (estimate [^\n]*)\n```\n\n```\n(.*?)```$", PAGE, re.MULTILINE | re.DOTALL),
)
def test_the_page_shows_what_its_commands_print(
    command: str, output: str, capsys: pytest.CaptureFixture[str]
) -> None:
    main(command.split())
    assert capsys.readouterr().out == output


def test_the_command_from_any_folder(folder: Path) -> None:
    command = [sys.executable, "-m", "lfreeze", "estimate", "llama/config.json", "--strategies", "ALL,BOT50"]
    sizes = ["--batch-size", "4", "--max-length", "32"]
    as_table, as_json = (
        subprocess.run(
            [*command, *sizes, *more], cwd=folder, capture_output=True, text=True, check=True
        ).stdout
        for more in ((), ("--json",))
    )
    found = estimate(folder / "llama", ["ALL", "BOT50"], batch_size=4, max_length=32)
    assert [s["peak_bytes"] for s in json.loads(as_json)["strategies"]] == [
        s.peak_bytes for s in found.strategies
    ]
    lines = as_table.splitlines()
    assert (
        lines[0]
        == f"llama/config.json: llama, sequence classifier, 4 layers, {found.total_parameters:,} parameters"
    )
    assert [line.split()[0] for line in lines[3:]] == ["strategy", "ALL", "BOT50"]
    assert f"{found.strategies[1].training_saved:.1f} %" in lines[-1]
