"""The benchmarks measure what they say; no test judges a time."""

from __future__ import annotations

import csv
import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lfreeze.training.batches import training_batches
from reproduce.bench.made_up_trials import write_published, write_swept
from reproduce.bench.peer import trainer_moments
from reproduce.bench.processes import resident_bytes, run_module
from reproduce.bench.settings import Settings
from reproduce.bench.spec import alternating
from reproduce.bench.workbench import SEED, Workbench
from reproduce.store.artifacts import read_folder
from tests.support.program import Program


@pytest.fixture
def bench(tmp_path: Path) -> Workbench:
    return Workbench(Settings.chosen(quick=True, device="cpu", data_dir=None), tmp_path)


def test_a_quick_run_writes_files_a_table_and_a_picture(reproduce: Program, tmp_path: Path) -> None:
    out = tmp_path / "bench"
    reproduce("bench", "--quick", "--pairs", "1", "--out", out, "strategies")
    printed = json.loads(reproduce("bench", "prefix", "--quick", "--out", out, "--json").split("prefix: ")[0])
    assert json.loads((out / "prefix.json").read_text("utf-8")) == printed[0]
    strategies = json.loads((out / "strategies.json").read_text("utf-8"))
    ideal = {row["name"]: row["ideal"] for row in strategies["rows"]}
    # Three products of equal size in each layer; a frozen bottom layer has one.
    for name, ratio in (("BOT25", 0.25), ("BOT50", 0.5), ("BOT75", 0.75)):
        assert ideal[name] == pytest.approx((3 - 2 * ratio) / 3, rel=0.01)
    # Four layers: forward through all of them or the trained ones, two products more for each trained one.
    cached = {row["name"]: row["ideal"] for row in printed[0]["rows"]}
    expected = {"BOT75, evaluation": 4, "BOT50, training step": 8 / 6, "BOT75, training step": 6 / 3}
    assert cached == pytest.approx(expected, rel=0.01)
    for row in (*strategies["rows"], *printed[0]["rows"]):
        assert 0 < row["low"] <= row["median"] <= row["high"]
    assert [len(row["ratios"]) for row in printed[0]["rows"]] == [2] * len(printed[0]["rows"])
    with (out / "bench.csv").open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    # The second command has kept the first one's rows.
    assert [line["of"] for line in lines] == [
        row["name"] for row in (*strategies["rows"], *printed[0]["rows"])
    ]
    assert "--quick" in (out / "bench.md").read_text("utf-8")
    assert (out / "bench.svg").stat().st_size > 10_000
    assert (out / "bench.png").stat().st_size > 10_000
    for file in out.glob("*.json"):
        assert str(tmp_path) not in file.read_text("utf-8")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("speed",), "unknown benchmark 'speed'; known are strategies, loop"),
        (("--data-dir", "nowhere"), "the data folder nowhere does not exist"),
        (("--out", "README.md"), "--out README.md is no folder that can be written"),
    ],
)
def test_bad_input_is_one_sentence(reproduce: Program, arguments: tuple[str, ...], message: str) -> None:
    output = reproduce("bench", "--quick", *arguments, expect=2)
    assert message in output
    assert output.count("\n") == 1


def test_trainer_ends_with_the_weights_of_this_projects_loop(bench: Workbench) -> None:
    """Equal work: the same batches, loss, clipping, optimiser and schedule."""
    recipe = dataclasses.replace(bench.recipe, learning_rate=1e-3)

    def trained() -> dict[str, torch.Tensor]:
        return {name: p.detach().clone() for name, p in bench.base.model.named_parameters()}

    bench.base.reset(SEED)
    before = trained()
    bench.train("BOT50", recipe)
    ours = trained()
    moments = trainer_moments(bench, "BOT50", recipe)
    assert len(moments) == recipe.steps
    theirs = trained()
    for name, values in ours.items():
        torch.testing.assert_close(theirs[name], values, atol=1e-5, rtol=1e-3, msg=name)
    changed = {name for name, values in ours.items() if not torch.equal(values, before[name])}
    assert "model.layers.2.mlp.up_proj.weight" in changed
    assert not any(name.startswith(("model.layers.0.", "model.embed")) for name in changed)


def test_generated_texts_need_as_much_padding_as_rtes(tmp_path: Path) -> None:
    """RTE's batches of 32, padded to their longest, compute 1.9 tokens for each real one; bucketed ones 1.15."""
    bench = Workbench(Settings.chosen(quick=False, device="cpu", data_dir=None), tmp_path)

    def per_real_token(padding: str) -> float:
        recipe = dataclasses.replace(bench.recipe, padding=padding)
        parts = [part for batch in training_batches(bench.texts, recipe, SEED) for part in batch]
        return sum(part.tokens for part in parts) / sum(int(part.attention_mask.sum()) for part in parts)

    assert 1.6 < per_real_token("longest") < 2.2
    assert 1.0 < per_real_token("bucketed") < 1.25


def test_pairs_alternate() -> None:
    order: list[str] = []

    def noted(name: str, value: float) -> float:
        order.append(name)
        return value

    assert alternating(3, lambda: noted("a", 1.0), lambda: noted("b", 2.0)) == [(1.0, 2.0)] * 3
    assert order == ["a", "b", "b", "a", "a", "b"]


def test_resident_bytes_are_those_of_the_process_and_its_children() -> None:
    size = 64 * 2**20
    child = f"import sys; block = b'x' * {size}; print('ready', flush=True); sys.stdin.read()"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    with subprocess.Popen(
        [sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        alone, together = resident_bytes(process.pid), resident_bytes(process.pid, with_children=True)
        process.stdin.close()
    assert 0 < alone < size < together
    assert resident_bytes(process.pid) == 0


def test_a_command_that_fails_says_why() -> None:
    with pytest.raises(RuntimeError, match=r"status 2(.|\n)*unknown search space .nowhere."):
        run_module("reproduce", ["plan", "nowhere"], environment={})


def test_made_up_folders_have_as_many_trials_as_asked(tmp_path: Path) -> None:
    write_swept(tmp_path / "swept", 20)
    write_published(tmp_path / "published", 1_300)
    assert read_folder(tmp_path / "swept").done == 20
    published = read_folder(tmp_path / "published").rows
    assert published.height == published["run_id"].n_unique() == 1_300
