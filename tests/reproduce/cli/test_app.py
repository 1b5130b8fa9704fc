"""Bad input on the command line: one sentence, exit status 2, no trial started, no file overwritten."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from lfreeze.strategy import paper_strategies
from reproduce.cli.app import main
from reproduce.plan.search_space import load_space
from tests.support.checkpoints import write_short

SPACE = """
models = ["tiny-gemma"]
tasks = ["tiny-rte"]
strategies = ["ALL"]
seeds = [42]
[recipe]
batch_size = 8
max_length = 64
steps = 10
learning_rate = 1e-3
schedule = "cosine"
lora_rank = 4
lora_alpha = 16
lora_dropout = 0.0
max_train_examples = 100
probe_steps = 3
"""


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def refused(*arguments: str) -> str:
    """The sentence with which a command refuses its arguments."""
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert result.output.startswith("error: ")
    assert result.output.count("\n") == 1
    return result.output


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--strategies", "ALL,FOO25"], ["'FOO25'", "BOT<ratio>", "ADT-L<ratio>", "LoRA"]),
        (["--strategies", "BOT"], ["'BOT'", "BOT<ratio>"]),
        (["--strategies", "BOT120"], ["'BOT120'", "above 0 and below 100"]),
        (["--strategies", "BOT0"], ["'BOT0'", "above 0 and below 100"]),
        (["--strategies", "BOT-5"], ["'BOT-5'", "above 0 and below 100"]),
        (["--strategies", "BOT5"], ["BOT5", "freezes no layer", "8 layers", "between 1 and 7"]),
        (["--strategies", ""], ["strategies"]),
        (["--models", "gpt-5"], ["'gpt-5'", "tiny-gemma", "phi-2"]),
        (["--tasks", "sst3"], ["'sst3'", "tiny-rte", "mnli"]),
        (["--seeds", "1,x"], ["1,x", "whole numbers"]),
        (["--seeds", "99999999999999999999999"], ["99999999999999999999999", "64-bit"]),
        (["--set", "stepz=3"], ["'stepz'", "steps"]),
        (["--set", "steps=ten"], ["steps", "'ten'", "whole number"]),
        (["--set", "steps=0"], ["steps", "below 1"]),
        (["--set", "steps=5", "--strategies", "ADT-L50"], ["ADT-L50", "probe_steps = 5"]),
        (["--set", "precision=fp8"], ["'fp8'", "bf16-mixed"]),
        (["--set", "padding=none"], ["'none'", "longest, max_length, bucketed, packed"]),
        (["--set", "prefix_cache=on"], ["'on'", "off, evaluation, all"]),
        (["--set", "micro_batch_size=33"], ["micro_batch_size = 33", "batch_size = 32"]),
        (["--set", "steps"], ["'steps'", "NAME=VALUE"]),
        (["--models", "phi-2", "--tasks", "tiny-rte"], ["phi-2", "--model-path"]),
        (["--model-path", "tiny-gemma=/nonexistent"], ["tiny-gemma", "does not exist"]),
        (["--model-path", "tiny-gama=/tmp"], ["'tiny-gama'", "tiny-gemma"]),
        (["--tasks", "rte"], ["rte", "--data-dir"]),
        (["--data-dir", "/nonexistent", "--tasks", "rte"], ["/nonexistent", "does not exist"]),
        (["--gpus-per-trial", "half"], ["'half'", "auto"]),
    ],
)
def test_run_refuses(arguments: list[str], expected: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "artifacts"
    message = refused("run", "embedded", "--artifacts", str(folder), *arguments)
    for text in expected:
        assert text in message
    assert not (folder / "trials").exists() or not any((folder / "trials").iterdir())


@pytest.mark.parametrize("command", ["run", "fetch", "trial"])
def test_inputs_that_would_fail_in_every_trial_are_refused_before_the_first(
    command: str, tmp_path: Path
) -> None:
    write_short(tmp_path / "short")
    for name in ("quantised", "adapter"):
        shutil.copytree(tmp_path / "short", tmp_path / name)
    config = json.loads((tmp_path / "short" / "config.json").read_text())
    packed = config | {"quantization_config": {"quant_method": "gptq", "bits": 4}}
    (tmp_path / "quantised" / "config.json").write_text(json.dumps(packed))
    (tmp_path / "adapter" / "model.safetensors").rename(tmp_path / "adapter" / "adapter_model.safetensors")
    row = {"premise": "p", "hypothesis": "h", "label": "neutral", "idx": 1}
    for name, last in (("empty", json.dumps(row | {"premise": " "})), ("nested", "[" * 100_000)):
        (tmp_path / name / "CB").mkdir(parents=True)
        (tmp_path / name / "CB" / "train.jsonl").write_text(json.dumps(row))
        (tmp_path / name / "CB" / "val.jsonl").write_text(last)

    def refusal(model: Path | str, task: str, *more: str) -> str:
        if command == "trial":
            one = ("--model", str(model), "--task", task, "--strategy", "BOT50")
            return refused("trial", *one, *more)
        many = ("embedded", "--models", str(model), "--tasks", task, "--strategies", "ALL,BOT50")
        return refused(command, *many, "--artifacts", str(tmp_path / "out"), *more)

    assert "it has positions for 16" in refusal(tmp_path / "short", "tiny-cb")
    assert "is quantised (gptq, 4 bits)" in refusal(tmp_path / "quantised", "tiny-cb")
    assert "it is an adapter" in refusal(tmp_path / "adapter", "tiny-cb")
    assert "premise of the validation example '1' is empty" in refusal(
        "tiny-gemma", "cb", "--data-dir", str(tmp_path / "empty")
    )
    assert "nested too deeply" in refusal("tiny-gemma", "cb", "--data-dir", str(tmp_path / "nested"))
    assert not (tmp_path / "out" / "trials").exists()


def test_a_model_that_cannot_be_packed_is_refused_by_name(tmp_path: Path) -> None:
    write_short(tmp_path / "encoder", positions=512)
    message = refused(
        "run", "embedded", "--models", str(tmp_path / "encoder"), "--strategies", "ALL", "--set", "padding=packed",
        "--artifacts", str(tmp_path / "out"),
    )  # fmt: skip
    assert "model encoder: padding = 'packed' does not fit BertForSequenceClassification" in message
    assert "choose longest, max_length or bucketed" in message


def test_a_folder_for_frozen_prefixes_that_cannot_hold_them_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = ("--model", "tiny-gemma", "--task", "tiny-cb", "--strategy", "BOT50")
    arguments = ("trial", *one, "--set", "prefix_cache=all")
    monkeypatch.setenv("LFREEZE_PREFIX_FOLDER", str(tmp_path / "none"))
    assert "none' is not a folder that can be written" in refused(*arguments)
    monkeypatch.setenv("LFREEZE_PREFIX_FOLDER", str(tmp_path))
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(
        "lfreeze.training.prefix_store.shutil.disk_usage", lambda path: usage._replace(free=9)
    )
    assert "has 0.0 GB free, but the states of gemma on one task need" in refused(*arguments)


def test_a_plan_refuses_what_its_configurations_show(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    for name, content, expected in (
        ("config.json", "[" * 100_000, "nested too deeply"),
        ("config.json", '{"quantization_config": {"bits": 4}}', "is quantised"),
        ("adapter_config.json", '{"base_model_name_or_path": "a/b"}', "it is an adapter of the model a/b"),
    ):
        (tmp_path / "m" / name).write_text(content)
        assert expected in refused("plan", "embedded", "--models", str(tmp_path / "m"))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("seeds = [42]", "seeds = [42]\nlr = 3"), "unknown key 'lr'; known are extends"),
        (("seeds = [42]", ""), "lacks the key seeds"),
        (("seeds = [42]", 'seeds = ["a"]'), "is not a list of whole numbers"),
        (("steps = 10", ""), "the recipe lacks steps"),
        (("steps = 10", "steps = 10\nstep = 1"), "unknown recipe value 'step'"),
        (("steps = 10", 'steps = "10.5"'), "is not a whole number"),
        (("seeds = [42]", "seeds = [42"), "is not valid TOML"),
        (("seeds = [42]", "seeds = " + "[" * 100_000), "is not valid TOML: "),
        (("seeds = [42]", "seeds = [" + "1" * 5_000 + "]"), "is not valid TOML: "),
        (("seeds = [42]", "seeds = [42]\ndescription = 5"), "description = 5 is not text"),
        (("seeds = [42]", "seeds = []"), "is not a list of whole numbers"),
        (("seeds = [42]", 'extends = "nowhere"'), "unknown search space 'nowhere'"),
    ],
)
def test_a_faulty_space_file_is_refused(change: tuple[str, str], expected: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(SPACE.replace(*change))
    assert expected in refused("plan", str(file))


def test_a_space_extends_the_file_beside_it(tmp_path: Path) -> None:
    (tmp_path / "base.toml").write_text(SPACE)
    (tmp_path / "mine.toml").write_text('extends = "base.toml"\nseeds = [1, 2]')
    assert len(load_space(str(tmp_path / "mine.toml")).factors()) == 2


def test_a_recipe_that_is_no_table_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('extends = "paper"\nrecipe = 3')
    assert "recipe = 3 is not a table" in refused("plan", str(file))


def test_a_space_that_extends_itself_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    for base in (str(file), "mine.toml", "./mine.toml"):
        file.write_text(f'extends = "{base}"')
        assert "cannot extend itself" in refused("plan", str(file))


def test_one_trial_takes_one_value_of_each_factor() -> None:
    for option, value in (("--strategy", "ALL,BOT25"), ("--task", "tiny-rte,tiny-cb"), ("--model", "all")):
        one = {"--strategy": "ALL", "--task": "tiny-rte", "--model": "tiny-gemma"} | {option: value}
        assert repr(value) in refused("trial", *(text for pair in one.items() for text in pair))


def test_unknown_spaces_and_folders_are_named(tmp_path: Path) -> None:
    known = ", ".join(sorted(path.stem for path in Path("search_spaces").glob("*.toml")))
    assert f"known are {known}, or a path" in refused("run", "everything")
    assert "not an artifact folder" in refused("status", str(tmp_path))
    assert "not an artifact folder" in refused("report", str(tmp_path))
    for content in ("[]", "[" * 100_000, '{"a": ' + "1" * 5_000 + "}"):
        (tmp_path / "sweep.json").write_text(content)
        assert "sweep.json is damaged" in refused("status", str(tmp_path))
    (tmp_path / "sweep.json").unlink()
    for option in ("--gpu-memory", "--tflops"):
        assert run("plan", option, "0").exit_code == 2
        assert "not a finite number" in refused("plan", option, "nan")
    (tmp_path / "notes.txt").write_text("mine")
    assert "was not made by a sweep" in refused("run", "--artifacts", str(tmp_path))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["notes.txt"]
    assert "not writable" in refused("run", "--artifacts", "/dev/null/artifacts")


def test_the_papers_space_is_planned_in_full() -> None:
    result = run("plan", "paper", "--json", "--gpu-memory", "80")
    assert result.exit_code == 0
    plan = json.loads(result.stdout)
    assert plan["totals"]["trials"] == len(plan["trials"]) == 1_275
    assert len({tuple(t[k] for k in ("model", "task", "strategy", "seed")) for t in plan["trials"]}) == 1_275
    gemma = {t["strategy"]: t for t in plan["trials"] if t["model"] == "gemma-2b" and t["task"] == "rte"}
    assert (gemma["BOT25"]["frozen_layers"], gemma["BOT75"]["frozen_layers"]) == (4, 13)
    assert (
        gemma["BOT50"]["training_bytes"] < gemma["BOT25"]["training_bytes"] < gemma["ALL"]["training_bytes"]
    )
    assert gemma["ADT-L50"]["training_bytes"] == gemma["ALL"]["training_bytes"]
    assert 0 < gemma["LoRA"]["gpu_share"] <= gemma["ALL"]["gpu_share"] <= 1


def test_embedded_spaces_have_their_sizes() -> None:
    assert len(load_space("embedded").factors()) == 102
    assert len(set(load_space("embedded-full").factors())) == 1_275
    assert load_space("embedded").recipe == load_space("embedded-full").recipe
    order = [(f.strategy, f.seed) for f in load_space("embedded").factors()[:18]]
    assert [name for name, _ in order] == [*paper_strategies(), "ALL"]
    with_cache = load_space("embedded", overrides={"prefix_cache": "all"}).factors()
    assert [(f.strategy, f.seed) for f in with_cache[:4]] == [
        ("ALL", 42),
        ("ALL", 43),
        ("ALL", 44),
        ("LoRA", 42),
    ]
    assert set(with_cache) == set(load_space("embedded").factors())
    paper = load_space("paper").recipe
    assert (paper.batch_size, paper.max_length, paper.steps, paper.learning_rate) == (32, 128, 100, 5e-5)


def test_a_plan_is_printed_for_people() -> None:
    result = run("plan", "embedded", "--strategies", "bot25", "--seeds", "42")
    assert result.exit_code == 0
    assert "2 trials" in result.output
    assert "No trial was started" in result.output


def test_every_command_has_help_with_an_example() -> None:
    listed = run("--help").output
    for command in ("run", "plan", "status", "report", "trial", "fetch", "doctor"):
        assert f"\n  {command} " in listed
        assert f"reproduce {command}" in run(command, "--help").output.split("Example:")[1]


def test_planning_loads_neither_torch_nor_ray() -> None:
    code = (
        "import sys; from click.testing import CliRunner; from reproduce.cli.app import main\n"
        "assert CliRunner().invoke(main, ['plan', 'paper']).exit_code == 0\n"
        "print([m for m in ('torch', 'transformers', 'ray') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_plan_can_take_the_rate_of_this_machine() -> None:
    narrow = ("plan", "embedded", "--models", "tiny-gemma", "--tasks", "tiny-cb", "--seeds", "42", "--json")
    measured, assumed = (
        json.loads(run(*narrow, *option).stdout) for option in (("--calibrate",), ("--tflops", "0.02"))
    )
    assert measured["rate_source"].startswith("measured on ")
    assert "tiny-gemma, 32 x " in measured["rate_source"]
    assert assumed["rate_source"] == "--tflops"
    # Times are FLOPs over the rate, and a fixed part.
    work = [
        plan["flops_per_second"] * (trial["seconds"] - 0.07)
        for plan in (measured, assumed)
        for trial in plan["trials"][:1]
    ]
    assert work[0] == pytest.approx(work[1], rel=1e-3)
    assert "--calibrate measures the rate that --tflops sets" in refused(
        "plan", "--calibrate", "--tflops", "1"
    )
    assert "--gpu 'gtx' is not one of h100" in refused("plan", "--gpu", "gtx")


def test_a_model_too_large_to_calibrate_with_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from reproduce.run import calibrate

    monkeypatch.setattr(calibrate, "free_memory", lambda device: 2**30)
    message = refused("plan", "paper", "--models", "gemma-2b", "--calibrate")
    assert "GiB for gemma-2b, the smallest model of paper, but this machine's" in message
    assert "has 1.0 GiB" in message
