"""What the figures show: every strategy named, warnings where they are due, the same bytes each time."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from reproduce.report.analysis import paper_figures
from reproduce.report.figures import paper
from reproduce.report.figures.style import BLUE, GREEN, RED, save
from tests.reproduce.report.analysis.test_aggregates import frame
from tests.reproduce.report.synthetic import grid, trial_row


def texts(figure: Figure) -> list[str]:
    return [item.get_text() for item in figure.findobj(Text) if isinstance(item, Text) and item.get_text()]


def inside(figure: Figure) -> bool:
    """Whether nothing that is drawn reaches beyond the figure's edge."""
    width, height = figure.get_size_inches()
    box = figure.get_tightbbox()
    return bool(box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height)


@pytest.mark.parametrize("number", [3, 4, 5, 6])
def test_every_strategy_is_named_and_nothing_is_cut_off(number: int) -> None:
    rows = grid(("tiny-gemma",), ("tiny-rte", "tiny-cb"), seeds=(42, 43))
    trials = frame(*rows, trial_row("BOT40", task="tiny-cb"), trial_row("BitFit", task="tiny-cb"))
    data = getattr(paper_figures, f"figure_{number}_data")(trials)
    figure = getattr(paper, f"figure_{number}")(data)
    figure.canvas.draw()
    assert set(trials["strategy"]) <= set(texts(figure))
    assert inside(figure)


@pytest.mark.parametrize("number", [3, 4, 5])
def test_the_papers_grid_has_a_panel_for_each_experiment_or_model(number: int) -> None:
    models, tasks = ("gemma-2b", "minicpm-2b-128k", "phi-2"), ("cb", "mnli", "qnli", "rte", "wnli")
    trials = frame(*grid(models, tasks, seeds=(42,)))
    figure = getattr(paper, f"figure_{number}")(getattr(paper_figures, f"figure_{number}_data")(trials))
    titles = {axes.get_title(loc="left") for axes in figure.axes}
    # The caption of the paper's Figure 4 names CB, its text MNLI.
    drawn = ("cb", "mnli") if number == 4 else tasks
    expected = {m if number == 5 else f"{m} · {t}" for m in models for t in drawn}
    assert titles == expected
    assert inside(figure)


def test_bars_have_the_heights_of_the_data() -> None:
    rows = [trial_row("ALL", seed=seed, validation_accuracy=value) for seed, value in ((1, 0.5), (2, 0.7))]
    trials = frame(*rows, trial_row("BOT25", seed=1, validation_accuracy=0.75))
    axes = paper.figure_3(paper_figures.figure_3_data(trials)).axes[0]
    assert [bar.get_height() for bar in axes.patches] == pytest.approx([60, 75])  # type: ignore[attr-defined]
    assert axes.patches[0].get_hatch()
    # The paper's lines: the mean of ALL in red, less σ in blue, plus σ in green, all dashed.
    lines = {line.get_color(): line for line in axes.lines if line.is_dashed()}
    sigma = 100 * 0.02**0.5
    heights = {ink: line.get_ydata()[0] for ink, line in lines.items()}  # type: ignore[index]
    assert heights == pytest.approx({RED: 60, BLUE: 60 - sigma, GREEN: 60 + sigma})
    marks = [line for line in axes.lines if line.get_marker() in "<>"]
    assert [line.get_ydata()[0] for line in marks] == pytest.approx([52.7, 52.7])  # type: ignore[index]


def test_a_strategy_without_result_keeps_its_place() -> None:
    trials = frame(trial_row("ALL"), trial_row("BOT25", status="oom"))
    for number in (3, 5):
        data = getattr(paper_figures, f"figure_{number}_data")(trials)
        assert "no result" in texts(getattr(paper, f"figure_{number}")(data))


def test_what_the_percentages_of_figure_5_are_of_is_in_the_picture() -> None:
    trials = frame(
        trial_row("ALL", training_bytes=2000, static_bytes=1000),
        trial_row("ADT-L50", training_bytes=1200, probe_training_bytes=2010, static_bytes=1000),
    )
    figure = paper.figure_5(paper_figures.figure_5_data(trials))
    shown = texts(figure)
    assert "Percentages: change of training memory, the coloured part, against ALL." in shown
    # An adaptive strategy needs the memory of its probe; the phase after the switch is a mark in its bar.
    assert "+0.5 %" in shown
    assert "adaptive: after the switch" in shown
    (mark,) = figure.axes[0].lines
    bars = [patch.get_height() for patch in figure.axes[0].patches]  # type: ignore[attr-defined]
    assert bars == pytest.approx([size / 1024 for size in (1000, 2000, 1000, 2010)])
    assert mark.get_ydata()[0] == pytest.approx((1000 + 1200) / 1024)  # type: ignore[index]


def test_reductions_are_written_over_the_bars() -> None:
    trials = frame(trial_row("ALL", training_bytes=2000), trial_row("BOT50", training_bytes=1100))
    assert "−45.0 %" in texts(paper.figure_5(paper_figures.figure_5_data(trials)))


@pytest.mark.parametrize("exclusive", [True, False])
def test_speed_on_a_shared_device_is_marked(exclusive: bool) -> None:
    trials = frame(*(trial_row(name, task="cb", exclusive=exclusive) for name in ("ALL", "BOT25")))
    shown = " ".join(texts(paper.figure_4(paper_figures.figure_4_data(trials))))
    assert ("other trials used the same device" in shown) is not exclusive
    assert ("(device shared)" in shown) is not exclusive


def test_files_are_the_same_each_time(tmp_path: Path) -> None:
    trials = frame(trial_row("ALL"), trial_row("BOT25"), trial_row("INT33"))
    for name in ("a", "b"):
        save(paper.figure_3(paper_figures.figure_3_data(trials)), tmp_path / name)
    for kind in ("svg", "png"):
        assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()
