"""Numbers that README, documentation and search spaces state, computed again."""

from __future__ import annotations

import functools
import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest

from lfreeze import recipe, strategy
from lfreeze.data import records
from lfreeze.models import files
from lfreeze.models.attempt import LIMITS
from lfreeze.models.catalog import get_model
from lfreeze.recipe import RANGES
from reproduce.plan import search_space
from reproduce.plan import space_file as space_file_module
from reproduce.plan.cost import GIB, TrialCost, assumptions, plan_space, totals
from reproduce.plan.devices import Device, get_device
from reproduce.plan.gpu_classes import gpu_classes
from reproduce.plan.search_space import SearchSpace, load_space
from reproduce.report import build
from reproduce.report.analysis.decidable import undecidable
from reproduce.report.analysis.ledger import claims, evidence_for
from reproduce.report.formatting import change
from tests.faults.__main__ import table
from tests.faults.faults import FAULTS
from tests.faults.harness import Outcome

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
REFERENCE = ROOT / "artifacts" / "reference" / "embedded" / "trials.parquet"


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text("utf-8")


def space_file(name: str) -> str:
    """The comments of a search space as one line."""
    lines = (ROOT / "search_spaces" / f"{name}.toml").read_text("utf-8").splitlines()
    return " ".join(line.lstrip("# ") for line in lines if line.startswith("#"))


@dataclass(frozen=True)
class Gpu:
    """A GPU: its name in ``--gpu`` and in the text, and an assumed price in dollars an hour."""

    device: Device
    name: str
    price: float


GPUS = (
    Gpu(get_device("rtx-4090"), "RTX 4090", 0.5),
    Gpu(get_device("a100-40"), "A100", 1.5),
    Gpu(get_device("h100"), "H100", 3.0),
)
# docs/requirements.md: what each command is for.
PURPOSES = {
    "reproduce run paper": "accuracy: Table 1, Figures 3 and 6, claims on accuracy, deviations and ranks",
    "reproduce run efficiency --weights random --seeds 42,43": "memory: Figure 5, claims on memory",
    "reproduce run efficiency --weights random --seeds 42,43,44": "memory and speed: also the times of Figure 4, claims on speed",
    "reproduce run paper --max-concurrent 1": "Figures 4 and 7 to 11: accuracy beside the time of a GPU of its own; one trial at a time, on one GPU",
    "reproduce run paper --set precision=bf16": "the paper's grid in half the memory; another recipe, so no evidence for the claims",
    "reproduce run small": "accuracy, memory and speed of two small real models, which are not the paper's: no claims",
}


@functools.cache
def planned(command: str, gpu: str | None = None, tflops: float | None = None) -> list[TrialCost]:
    space, _ = parsed(command)
    return plan_space(space, assumptions(space, None, tflops, gpu))


def parsed(command: str) -> tuple[SearchSpace, dict[str, str]]:
    """The space of a ``reproduce run`` command, and its options."""
    _, _, name, *rest = shlex.split(command)
    options = dict(zip(rest[::2], rest[1::2], strict=True))
    axes = {
        axis: options[f"--{axis}"].split(",")
        for axis in ("models", "tasks", "strategies", "seeds")
        if f"--{axis}" in options
    }
    recipe = dict([options["--set"].split("=")]) if "--set" in options else {}
    return load_space(name, axes, recipe, weights=options.get("--weights")), options


def costs() -> str:
    """The table of docs/requirements.md: hours and dollars of each command on each GPU."""
    columns = [f"{gpu.name}, {gpu.device.memory_gib:g} GB" for gpu in GPUS]
    lines = [f"| command | what it gives | trials | {' | '.join(columns)} |", "|---|---|---:|---|---|---|"]
    for command, purpose in PURPOSES.items():
        cells = []
        for gpu in GPUS:
            trials = planned(command, gpu.device.name)
            fitting = [trial for trial in trials if trial.gpu_share <= 1]
            hours = totals(trials)["device_hours"]
            cells.append(
                f"{f'{hours:.1f} h' if hours >= 1 else f'{60 * hours:.0f} min'}, ${hours * gpu.price:.2f}"
                if len(fitting) == len(trials)
                else f"only {len(fitting):,} trials fit"
            )
        lines.append(f"| `{command}` | {purpose} | {len(trials):,} | {' | '.join(cells)} |")
    return "\n".join(lines)


def savings() -> str:
    """The table of docs/requirements.md: predicted training memory and step time against ALL."""
    names = ("BOT25", "BOT50", "BOT-E25", "BOT-E50", "INT25", "TOP25", "LoRA")
    trials = {
        (t.factors.model, t.factors.strategy): t for t in planned("reproduce run efficiency --seeds 42")
    }
    models = list(dict.fromkeys(model for model, _ in trials))
    lines = [f"| | {' | '.join(names)} |", "|---|" + "---:|" * len(names)]
    for model in models:
        base = trials[model, "ALL"].training_bytes
        cells = [change(trials[model, name].training_bytes / base) for name in names]
        lines.append(f"| `{model}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def test_the_requirements_are_what_plan_computes() -> None:
    text = page("requirements.md")
    assert costs() in text
    assert savings() in text
    for gpu in GPUS:
        rate = gpu.device.rate("bf16-mixed") / 1e12
        assert (
            f"| {gpu.name} | `{gpu.device.name}` | {gpu.device.bf16_tflops:g} | {rate:.0f} | {gpu.price:.2f} |"
            in text
        )


def enough(command: str, kind: str) -> bool:
    """Whether the command's trials can decide every claim of a kind."""
    space, _ = parsed(command)
    obstacles = undecidable(space)
    return not any(obstacles[claim.id] for claim in claims() if evidence_for(claim.quantity).name == kind)


def promoted() -> list[str]:
    """Every command of the pages that measures with random weights, without the folder for its results."""
    texts = [README, *(path.read_text("utf-8") for path in sorted((ROOT / "docs").glob("*.md")))]
    commands = re.findall(r"reproduce run efficiency --weights random[^`\n|]*", "\n".join(texts))
    return sorted({command.partition(" --artifacts")[0].strip() for command in commands})


def test_the_promoted_measurement_can_decide_its_claims_and_no_smaller_one_can() -> None:
    two, three = (f"reproduce run efficiency --weights random --seeds {s}" for s in ("42,43", "42,43,44"))
    assert set(promoted()) == {two, three}
    assert [enough(two, "memory"), enough(two, "speed")] == [True, False]
    assert [enough(three, "memory"), enough(three, "speed")] == [True, True]
    assert not enough("reproduce run efficiency --seeds 42", "memory")
    assert not enough("reproduce run efficiency --models gemma-2b,phi-2", "memory")
    assert enough("reproduce run paper", "accuracy")


@pytest.mark.parametrize(
    ("text", "command", "pattern"),
    [
        (space_file("paper"), "reproduce run paper", r"{hours:.1f} hours on one H100; the largest trial peaks at {peak:.0f} GiB"),
        (space_file("paper"), "reproduce run paper", r"= {trials:,} trials"),
        (space_file("efficiency"), "reproduce run efficiency", r"{hours:.1f} hours on one H100"),
        (space_file("efficiency"), "reproduce run efficiency", r"peaks at about {peak:.0f} GiB"),
        (space_file("efficiency"), "reproduce run efficiency", r"5 seeds: {trials} trials"),
        (space_file("efficiency"), "reproduce run efficiency --seeds 42,43,44", r"`--seeds 42,43,44` (180 trials, {hours:.1f} hours)"),
        (space_file("small"), "reproduce run small", r"the largest trial peaks at {peak:.1f} GiB"),
        (space_file("small"), "reproduce run small", r"= {trials} trials"),
        (space_file("embedded"), "reproduce run embedded", r"= {trials} trials"),
        (space_file("embedded-full"), "reproduce run embedded-full", r"{trials:,} trials"),
        (space_file("glue"), "reproduce run glue", r"= {trials:,} trials"),
        (space_file("glue"), "reproduce run glue", r"{hours:.1f} hours on one H100; the largest trial peaks at {peak:.0f} GiB"),
        (space_file("glue"), "reproduce run glue --models gemma-2b --tasks cola", r"`--models gemma-2b --tasks cola` has {trials} of the trials"),
        (space_file("embedded-glue"), "reproduce run embedded-glue", r"= {trials} trials"),
        (space_file("embedded-glue"), "reproduce run embedded-glue", r"{hours:.1f} hours at 0.02 TFLOP/s"),
        (page("search-spaces.md"), "reproduce run glue", r"`glue` | {trials:,}: the paper's strategies"),
        (page("search-spaces.md"), "reproduce run glue", r"CoLA | GPUs with 80 GB: {hours:.1f} hours predicted"),
        (page("search-spaces.md"), "reproduce run embedded-glue", r"generated | any laptop; {hours:.1f} hours predicted at 0.02 TFLOP/s on one core"),
        (page("search-spaces.md"), "reproduce run paper", r"{hours:.1f} hours predicted on one H100"),
        (page("search-spaces.md"), "reproduce run embedded-full", r"{hours:.1f} hours predicted at 0.02 TFLOP/s"),
        (page("experiment.md"), "reproduce run efficiency --seeds 42,43,44", r"These {trials} trials take {hours:.1f} hours on an H100"),
        (README, "reproduce run embedded", r"`embedded` ({trials} trials, the default)"),
        (README, "reproduce run paper", r"(the real {trials:,} trials, on 80 GB GPUs)"),
    ],
)  # fmt: skip
def test_a_stated_cost_is_what_plan_computes(text: str, command: str, pattern: str) -> None:
    total = totals(planned(command))
    hours, trials = total["device_hours"], int(total["trials"])
    values = {"hours": hours, "minutes": 60 * hours, "peak": total["peak_bytes"] / GIB, "trials": trials}
    assert pattern.format(**values) in text


def test_the_small_space_states_its_time_at_two_rates() -> None:
    minutes = 60 * totals(planned("reproduce run small", tflops=50))["device_hours"]
    assert f"{minutes:.0f} minutes of training at 50 TFLOP/s" in space_file("small")
    hours = totals(planned("reproduce run small", tflops=0.1))["device_hours"]
    assert f"{hours / 24:.0f} days on a CPU that sustains 0.1 TFLOP/s" in space_file("small")


def test_the_time_of_the_whole_miniature_is_that_of_the_published_run() -> None:
    trials = pl.read_parquet(REFERENCE.parents[1] / "embedded-full" / "trials.parquet")
    minutes = round((trials["finished_at"].max() - trials["started_at"].min()).total_seconds() / 60)
    assert f"{minutes} minutes measured on two" in page("search-spaces.md")
    assert f"(1,275 trials) in {minutes} minutes" in page("requirements.md")


def cells(row: str) -> list[str]:
    """The other cells of the README's row that starts with a text."""
    (line,) = [line for line in README.splitlines() if line.startswith(f"| {row} |")]
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def spread(trials: pl.DataFrame) -> str:
    values = 100 * trials["validation_accuracy"]
    return f"{values.mean():.1f} ± {values.std():.1f}"


def saved(trials: pl.DataFrame, strategy: str, memory: str) -> str:
    """Training memory against ALL, in percent: of the medians over seeds, the mean over tasks."""
    medians = trials.group_by("task", "strategy").agg(pl.col(memory).median())
    base = medians.filter(strategy="ALL").select("task", base=memory)
    ratios = (
        medians.filter(strategy=strategy).join(base, on="task").select(pl.col(memory) / pl.col("base") - 1)
    )
    return (
        f"{100 * ratios.to_series().mean():+.0f} %".replace("-", "−").replace("+0", "0").replace("−0 ", "0 ")
    )


def test_the_results_of_the_readme_are_the_published_ones() -> None:
    trials = pl.read_parquet(REFERENCE).with_columns(
        peak=pl.max_horizontal("training_bytes", "probe_training_bytes")
    )
    assert (trials.height, set(trials["status"]), set(trials["space"])) == (102, {"ok"}, {"embedded"})
    assert not trials["git_dirty"].any()
    (header,) = [line for line in README.splitlines() if line.startswith("| | ALL |")]
    names = [cell.strip() for cell in header.strip("|").split("|")][1:]
    for task in ("tiny-rte", "tiny-cb"):
        rows = trials.filter(task=task)
        title = f"`{task}` (majority class {100 * rows['majority_accuracy'][0]:.1f})"
        assert cells(title) == [spread(rows.filter(strategy=name)) for name in names]
    assert cells("training memory")[1:] == [saved(trials, name, "peak") for name in names[1:]]
    # Training every layer for the first steps, an adaptive strategy needs ALL's memory.
    assert saved(trials, "ADT-L25", "peak") == "0 %"
    assert f"{saved(trials, 'ADT-L25', 'training_bytes')} after the switch" in README


def test_the_size_of_the_page_is_that_of_a_report(tmp_path: Path) -> None:
    # The published trials have no training steps, so that the page lacks the curves of the loss.
    build([REFERENCE.parent], tmp_path, command=None, missing=[])
    megabytes = (tmp_path / "report.html").stat().st_size / 1e6
    (stated,) = re.findall(r"`artifacts/embedded/report/report\.html`, ([\d.]+) MB", README)
    assert float(stated) == pytest.approx(megabytes, rel=0.15)


@pytest.mark.parametrize(("name", "digits"), [("paper", 0), ("small", 1)])
def test_downloads_are_the_weights_in_two_bytes(name: str, digits: int) -> None:
    trials = planned(f"reproduce run {name}")
    parameters = {trial.factors.model: trial.static_bytes / 4 for trial in trials}
    for model in parameters:
        # A classifier lacks the language model's head, which the files contain where it is not tied.
        config = get_model(model).config
        if not config.get("tie_word_embeddings", True):
            parameters[model] += config["vocab_size"] * config["hidden_size"]
    gigabytes = f"{2 * sum(parameters.values()) / 1e9:.{digits}f} GB of download"
    assert gigabytes in space_file(name)
    assert gigabytes in page("search-spaces.md")


def test_an_80_gb_gpu_runs_one_to_four_trials_of_the_paper_at_once() -> None:
    classes = gpu_classes(planned("reproduce run paper", "h100"), exclusive=False)
    assert [each.per_gpu for each in classes] == [1, 2, 3, 4]
    assert "an 80 GB GPU runs one to four trials at once" in space_file("paper")


def test_full_fine_tuning_needs_more_than_40_gb() -> None:
    shares = {t.gpu_share for t in planned("reproduce run paper", "a100-40") if t.factors.strategy == "ALL"}
    assert min(shares) > 1
    assert "(ALL) of none of the three models fits a GPU with 40 GB" in page("requirements.md")
    assert max(t.gpu_share for t in planned("reproduce run paper", "h100")) <= 1


@pytest.mark.parametrize(
    ("gpu", "micro_batch_size", "models"),
    [("a100-40", "4", ["gemma-2b", "minicpm-2b-128k", "phi-2"]), ("rtx-4090", "1", ["gemma-2b", "phi-2"])],
)
def test_micro_batches_in_bf16_make_full_fine_tuning_fit(
    gpu: str, micro_batch_size: str, models: list[str]
) -> None:
    axes = {"strategies": ["ALL"], "seeds": ["42"]}
    space = load_space("paper", axes, {"precision": "bf16", "micro_batch_size": micro_batch_size})
    trials = plan_space(space, assumptions(space, None, None, gpu))
    assert sorted({t.factors.model for t in trials}) == ["gemma-2b", "minicpm-2b-128k", "phi-2"]
    too_large = {t.factors.model for t in trials if t.gpu_share > 1}
    assert sorted({t.factors.model for t in trials} - too_large) == models
    text = page("requirements.md").replace("\n", " ")
    assert "ALL of all three models fits 40 GB" in text
    assert "that of Gemma-2b and Phi-2 fits 24 GB" in text


def test_the_table_of_injected_faults() -> None:
    lines = (ROOT / "artifacts" / "reference" / "faults.jsonl").read_text("utf-8").splitlines()
    outcomes = [Outcome(**json.loads(line)) for line in lines]
    assert table(outcomes) in page("reliability.md")
    assert {outcome.fault for outcome in outcomes} <= set(FAULTS)


def test_the_sizes_of_shards() -> None:
    """As the binomial distribution has them."""
    trials = len(load_space("paper").factors())
    mean, deviation = trials / 8, (trials * 1 / 8 * 7 / 8) ** 0.5
    stated = (
        f"in eight shards of the space `paper`, by about {deviation:.0f} trials from the mean of {mean:.0f}"
    )
    assert stated in page("batch.md")


def test_the_bounds_in_the_threat_model() -> None:
    text = page("threat-model.md")
    batch = {RANGES[name] for name in ("batch_size", "eval_batch_size", "lora_rank")}
    for line in (
        f"| trials of a space | {space_file_module.MOST_TRIALS:,} |",
        f"| files that extend each other | {space_file_module._MOST_FILES} |",
        f"| a space file | {space_file_module._LARGEST >> 20} MiB |",
        f"| a model's name in a space | {search_space._LONGEST_NAME} characters, percent-encoded |",
        f"| the ratio in a strategy's name | {strategy._DECIMALS} decimal places |",
        f"| `steps` | {RANGES['steps'][1]:,}, and {recipe._MOST_DRAWS:,} examples in all |",
        *(f"| `batch_size`, `eval_batch_size`, `lora_rank` | {most:,} |" for _, most in batch),
        f"| `cpu_threads` | {RANGES['cpu_threads'][1]:,} |",
        f"| layers in a model's configuration | {files.MOST_LAYERS:,} |",
        f"with {LIMITS.cpu_seconds} seconds of processor time and {LIMITS.memory_bytes >> 30} GiB of memory",
        f"a task's file may take {records.MOST_BYTES >> 30} GiB",
    ):
        assert line in text
