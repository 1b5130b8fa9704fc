"""What ``reproduce plan`` says of classes and of trials that do not fit, against the listed trials."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from click.testing import CliRunner, Result

from reproduce.cli.app import main
from reproduce.plan.search_space import load_space

PAPER = load_space("paper").strategies


def plan(*arguments: str) -> Result:
    result = CliRunner().invoke(main, ["plan", *arguments], env={"COLUMNS": "400"})
    assert result.exit_code == 0, result.output
    return result


def as_json(*arguments: str) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(plan(*arguments, "--json").stdout)
    return values


def test_every_trial_is_in_a_class_or_marked() -> None:
    for memory in ("24", "40", "80", "141"):
        values = as_json("paper", "--gpu-memory", memory)
        fitting = [trial for trial in values["trials"] if trial["gpu_share"] <= 1]
        assert [trial for trial in values["trials"] if trial["fits"]] == fitting
        classes = values["gpu_classes"]
        counts = Counter(min(8, int(1 / trial["gpu_share"])) for trial in fitting)
        assert {each["per_gpu"]: each["trials"] for each in classes} == counts
        assert [each["per_gpu"] for each in classes] == sorted(counts)
        seconds = sum(trial["seconds"] for trial in fitting)
        assert abs(sum(each["device_hours"] for each in classes) - seconds / 3600) < 1e-6


def test_each_class_is_a_line_with_its_models_and_strategies() -> None:
    arguments = ("paper", "--tasks", "rte", "--models", "gemma-2b,phi-2", "--seeds", "42,43")
    values, lines = as_json(*arguments), plan(*arguments).output.splitlines()
    assert len(values["gpu_classes"]) > 1
    for each in values["gpu_classes"]:
        name = "1" if each["per_gpu"] == 1 else f"1/{each['per_gpu']}"
        (line,) = [text for text in lines if text.split()[:1] == [name]]
        assert line.split()[1:3] == [str(each["trials"]), f"{each['device_hours']:.2f}"]
        assert {model: strategies(text) for model, text in named(line).items()} == held(values, each)


def named(line: str) -> dict[str, str]:
    """By model, the words of a line about its strategies."""
    words = line[line.index("gemma-2b:" if "gemma-2b:" in line else "phi-2:") :]
    return dict(part.split(": ") for part in words.strip().split("; "))


def strategies(words: str) -> set[str]:
    if words.startswith("all"):
        return set(PAPER) - set(words.removeprefix("all but ").split(", "))
    return set(words.split(", "))


def held(values: dict[str, Any], each: dict[str, Any]) -> dict[str, set[str]]:
    """By model, the strategies of a class's trials."""
    found: dict[str, set[str]] = {}
    for trial in values["trials"]:
        if min(8, int(1 / trial["gpu_share"])) == each["per_gpu"]:
            found.setdefault(trial["model"], set()).add(trial["strategy"])
    return found


def test_what_does_not_fit_is_marked_and_counts_for_no_claim() -> None:
    arguments = ("paper", "--gpu-memory", "24")
    values, output = as_json(*arguments), plan(*arguments, "--all").output
    lost = [trial for trial in values["trials"] if not trial["fits"]]
    marked = [line for line in output.splitlines() if "no fit" in line and "seed" not in line]
    # One line for each trial, and the line that sums them up.
    assert len(marked) == len(lost) + 1
    assert f"{len(lost):,} of 1,275 trials do not fit a GPU with 24 GiB" in output
    assert "run --what-fits" in output
    assert all(values["claim_obstacles"].values())
    assert "Can decide 0 of 31 claims and 0 of 3 readings, if every trial that fits succeeds." in output
    whole = as_json("paper", "--gpu-memory", "80")
    assert [claim for claim, reasons in whole["claim_obstacles"].items() if not reasons]


def test_where_all_fits_nothing_is_marked() -> None:
    for space in ("embedded", "efficiency"):
        output = plan(space).output
        assert "too large" not in output
        assert "--what-fits" not in output
