"""What the figures show: every strategy named, warnings where they are due, the same bytes each time."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from reproduce.report.analysis import paper_figures
from reproduce.report.figures import paper
from reproduce.report.figures.style import save
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
    trials = frame(*rows, trial_row("BOT40"), trial_row("BIAS"))
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
    expected = {m if number == 5 else f"{m} · {t}" for m in models for t in tasks}
    assert titles == expected
    assert inside(figure)


def test_bars_have_the_heights_of_the_data() -> None:
    trials = frame(trial_row("ALL", validation_accuracy=0.6), trial_row("BOT25", validation_accuracy=0.75))
    axes = paper.figure_3(paper_figures.figure_3_data(trials)).axes[0]
    assert [bar.get_height() for bar in axes.patches] == pytest.approx([60, 75])  # type: ignore[attr-defined]
    assert axes.patches[0].get_hatch()
    assert [line.get_ydata()[0] for line in axes.lines] == pytest.approx([52.7, 60])  # type: ignore[index]


def test_a_strategy_without_result_keeps_its_place() -> None:
    trials = frame(trial_row("ALL"), trial_row("BOT25", status="oom"))
    for number in (3, 5):
        data = getattr(paper_figures, f"figure_{number}_data")(trials)
        assert "no result" in texts(getattr(paper, f"figure_{number}")(data))


def test_reductions_are_written_over_the_bars() -> None:
    trials = frame(trial_row("ALL", training_bytes=2000), trial_row("BOT50", training_bytes=1100))
    assert "−45.0 %" in texts(paper.figure_5(paper_figures.figure_5_data(trials)))


@pytest.mark.parametrize("exclusive", [True, False])
def test_speed_on_a_shared_device_is_marked(exclusive: bool) -> None:
    trials = frame(trial_row("ALL", exclusive=exclusive), trial_row("BOT25", exclusive=exclusive))
    shown = " ".join(texts(paper.figure_4(paper_figures.figure_4_data(trials))))
    assert ("other trials used the same device" in shown) is not exclusive
    assert ("(device shared)" in shown) is not exclusive


def test_files_are_the_same_each_time(tmp_path: Path) -> None:
    trials = frame(trial_row("ALL"), trial_row("BOT25"), trial_row("INT33"))
    for name in ("a", "b"):
        save(paper.figure_3(paper_figures.figure_3_data(trials)), tmp_path / name)
    for kind in ("svg", "png"):
        assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()
