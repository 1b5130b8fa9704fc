"""The report's page in a browser: it needs no network, and everything works by keyboard."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from reproduce.report.analysis.report_data import collect_data
from reproduce.report.figures.render_pool import RenderPool
from reproduce.report.page import html
from reproduce.report.page.document import compose
from reproduce.report.page.html import render_page
from reproduce.report.page.trial_details import MOST_POINTS, trial_records
from reproduce.report.text.claims import ClaimCard, ClaimLine
from reproduce.store.parquet import TrialResult, write_trial
from reproduce.store.trial_row import TrialRow
from tests.reproduce.report.conftest import STRATEGIES
from tests.reproduce.report.synthetic import grid, trial_row

pytestmark = pytest.mark.browser

_ARGUMENTS = (
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
HOSTILE = "<script>alert('x')</script>\"$&'</table>"


def write_report(root: Path, rows: list[dict[str, Any]], **more: Any) -> Path:
    """A page of ``rows`` with loss curves; ``more`` are parts of its content."""
    (root / "trials").mkdir(parents=True)
    for row in rows:
        steps = list(range(1, 121)) if row["status"] == "ok" else []
        write_trial(
            root,
            TrialResult(
                TrialRow.from_columns(row), {"step": steps, "loss": [0.4 + 1 / step for step in steps]}
            ),
        )
    data = collect_data([root], [])
    with RenderPool(parallel=False) as pool:
        composed = compose(data, root / "out", None, pool)
        pool.finish()
    content = SimpleNamespace(**vars(composed) | more)
    records = trial_records(data.trials, data.steps)
    page = root / "out" / "report.html"
    page.write_text(render_page(content, records), "utf-8")  # type: ignore[arg-type]
    return page


def a_card(name: str, verdict: str, strategies: tuple[str, ...], *, reading: bool = False) -> ClaimCard:
    line = ClaimLine(name, "1.0", "0.5 to 1.5", "0.2 to 2.0", "12 / 4", verdict)
    words = {field.name: name for field in fields(ClaimCard)}
    words |= {"verdict": verdict, "lines": (line,), "strategies": strategies, "reading": reading}  # type: ignore[dict-item]
    return ClaimCard(**words)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("page") / "trials"
    rows = grid(("tiny-gemma", "tiny-phi"), strategies=STRATEGIES)
    rows.append(trial_row("TOP25", status="oom", error_type="MemoryError", error_message="2 GiB too many"))
    verdicts = [
        a_card("C1", "supported", ("ALL", "BOT25")),
        a_card("C2", "contradicted", ("ADT-L",)),
        a_card("C3", "inconclusive", ()),
        a_card("C4", "supported", ("BOT25",), reading=True),
        a_card("C5", "exceeded", ("BOT25",)),
    ]
    return write_report(root, rows, verdicts=verdicts, evidence=["No trial ran on a GPU."])


@dataclass
class Opened:
    """A page in a browser, and what it complained about or asked for."""

    page: Any
    troubles: list[str]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next((path for path in map(shutil.which, names) if path), None)
    if found is None:
        pytest.skip(f"no browser in PATH: none of {', '.join(names)}")
    with playwright.sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=found, args=["--no-sandbox", *_ARGUMENTS])
        yield running
        running.close()


@pytest.fixture
def opened(browser: Any, report: Path) -> Iterator[Opened]:
    with_page = open_page(browser, report)
    yield with_page
    with_page.page.context.close()
    assert with_page.troubles == []


def open_page(browser: Any, path: Path, **options: Any) -> Opened:
    settings = {"viewport": {"width": 1280, "height": 900}, "reduced_motion": "reduce", **options}
    page = browser.new_context(**settings).new_page()
    page.set_default_timeout(10_000)
    troubles: list[str] = []
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("console", lambda m: troubles.append(m.text) if m.type in ("error", "warning") else None)
    page.on("dialog", lambda dialog: (troubles.append(dialog.message), dialog.dismiss()))
    allowed = ("file:", "data:")
    page.on("request", lambda r: None if r.url.startswith(allowed) else troubles.append(r.url))
    page.goto(path.as_uri())
    return Opened(page, troubles)


def column(page: Any, index: int) -> list[str]:
    return page.eval_on_selector_all(
        f"table[data-trials] tbody td:nth-child({index})", "cells => cells.map(cell => cell.textContent)"
    )


def wait_for_count(page: Any, text: str) -> None:
    output = "document.querySelector('#trial-filters output')"
    page.wait_for_function(f"text => {output}.textContent === text", arg=text)


def screenshot(page: Any, name: str, **options: Any) -> None:
    if folder := os.environ.get("LFREEZE_CI_ARTIFACTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=str(Path(folder) / f"report-{name}.png"), **options)


def test_search_and_filters_narrow_the_trials(opened: Opened) -> None:
    page = opened.page
    wait_for_count(page, "73 of 73 trials")
    screenshot(page, "light", full_page=True)
    page.select_option("#trial-filters select[name=model]", "tiny-phi")
    page.select_option("#trial-filters select[name=strategy]", "BOT75")
    wait_for_count(page, "6 of 73 trials")
    assert set(column(page, 1)) == {"BOT75"}
    page.fill("#trial-filters input", "Tiny-CB phi")
    wait_for_count(page, "3 of 73 trials")
    page.click("#trial-filters button[type=reset]")
    wait_for_count(page, "73 of 73 trials")
    page.select_option("#trial-filters select[name=status]", "oom")
    assert column(page, 1) == ["TOP25"]


def test_a_header_sorts_by_mouse_and_keyboard(opened: Opened) -> None:
    page = opened.page
    head = page.locator("table[data-trials] th", has_text="accuracy")
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    values = [float(text) for text in column(page, 6) if text != "–"]
    assert values == sorted(values)
    assert column(page, 6)[-1] == "–"
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    assert [float(text) for text in column(page, 6) if text != "–"] == sorted(values, reverse=True)
    assert page.locator("table:not(.numbers) th:not(:has(button))").count() == 0


def test_a_trial_opens_with_its_values_its_curve_and_its_layers(opened: Opened, report: Path) -> None:
    page = opened.page
    page.fill("#trial-filters input", "BOT75 tiny-phi tiny-cb 44")
    page.locator("table[data-trials] tbody button").focus()
    page.keyboard.press("Enter")
    dialog = page.locator("dialog[open]")
    assert dialog.locator("h2").inner_text() == "BOT75 · tiny-phi · tiny-cb · 44"
    shown = dict(
        zip(dialog.locator("dt").all_inner_texts(), dialog.locator("dd").all_inner_texts(), strict=True)
    )
    (row,) = grid(("tiny-phi",), ("tiny-cb",), ("BOT75",), (44,))
    assert float(shown["validation_accuracy"]) == pytest.approx(row["validation_accuracy"], rel=1e-8)
    assert shown["weights_hash"] == row["weights_hash"]
    assert shown["static_bytes"] == "2,097,152 (2.00 MiB)"
    assert shown["gpu_name"] == "no value: no gpu_name in this test"
    assert {name for name in row if name != "null_reasons"} <= set(shown)
    assert dialog.locator(".layers .frozen").count() == 6
    curve = dialog.locator("svg.loss path").get_attribute("d")
    assert 20 < curve.count("L") < MOST_POINTS
    assert "from 1.01 to 0.408 over 120 steps" in dialog.locator("svg.loss").get_attribute("aria-label")
    screenshot(page, "trial")
    page.keyboard.press("Escape")
    assert page.locator("dialog[open]").count() == 0
    page.wait_for_function("document.activeElement.matches('.open-trial')")


def test_a_failed_trial_says_why(opened: Opened) -> None:
    page = opened.page
    page.fill("#trial-filters input", "oom")
    page.locator("table[data-trials] tbody tr").click()
    text = page.locator("dialog[open]").inner_text()
    assert "MemoryError: 2 GiB too many" in text
    assert "no training step was recorded" in text
    page.get_by_label("Next trial").click()
    page.get_by_role("button", name="Close").click()
    assert page.locator("dialog[open]").count() == 0


def test_a_claim_shows_its_trials(opened: Opened) -> None:
    page = opened.page
    assert "✓" in page.evaluate("getComputedStyle(document.querySelector('.parts .supported')).listStyleType")
    page.click("#unfold")
    page.click("a[data-claim=C1]")
    assert set(column(page, 1)) == {"ALL", "BOT25"}
    assert "Trials of claim C1" in page.inner_text("#claim")
    page.click("a[data-claim=C2]")
    assert set(column(page, 1)) == {"ADT-L50"}
    page.click("#claim button")
    wait_for_count(page, "73 of 73 trials")
    page.click("a[data-claim=C3]")
    wait_for_count(page, "73 of 73 trials")
    assert "all strategies" in page.inner_text("#claim")


def test_cards_fold_and_our_own_readings_come_last(opened: Opened) -> None:
    page = opened.page
    names = [text.splitlines()[0] for text in page.locator(".verdicts summary").all_inner_texts()]
    assert [name.split(" · ")[0] for name in names] == [
        "Supported Claim C1", "Contradicted Claim C2", "Inconclusive Claim C3", "Exceeded Claim C5",
        "Supported Our reading C4",
    ]  # fmt: skip
    shown = page.locator(".verdicts .parts:visible")
    assert shown.count() == 0
    assert page.locator(".verdicts .statement:visible").count() == 5
    page.locator(".verdicts summary").nth(1).focus()
    page.keyboard.press("Enter")
    assert shown.count() == 1
    page.keyboard.press("Enter")
    assert shown.count() == 0
    page.click("#unfold")
    assert shown.count() == 5
    page.wait_for_function("document.getElementById('unfold').textContent === 'Fold all'")
    page.click("#unfold")
    assert shown.count() == 0
    assert page.inner_text("main").count("No trial ran on a GPU.") == 1
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert shown.count() == 5
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert shown.count() == 0
    tones = page.evaluate(
        "[...document.querySelectorAll('.verdict')].map(node => getComputedStyle(node).color)"
    )
    assert len(set(tones)) == 4


@pytest.mark.parametrize(("width", "screens"), [(1280, 1.0), (390, 1.6)])
def test_numbers_and_a_figure_come_first(browser: Any, report: Path, width: int, screens: float) -> None:
    opened = open_page(browser, report, viewport={"width": width, "height": 844})
    page = opened.page
    numbers = page.locator(".numbers")
    assert numbers.locator("tbody th").all_inner_texts() == ["BOT25 against ALL", "BOT25 against LoRA"]
    assert numbers.bounding_box()["y"] < 844
    assert page.locator(".sheet").first.bounding_box()["y"] < screens * 844
    page.context.close()
    assert opened.troubles == []


def test_every_table_fits_a_wide_screen(opened: Opened) -> None:
    overflows = "box => box.scrollWidth > box.clientWidth && box.getAttribute('aria-labelledby')"
    assert opened.page.evaluate(f"[...document.querySelectorAll('.scroll')].filter({overflows}).length") == 0


def test_figures_are_filtered_and_enlarged_by_keyboard(opened: Opened) -> None:
    page = opened.page
    visible = ".figure:not([hidden]) h3"
    titles = page.locator(visible).all_inner_texts()
    whole = page.locator("svg:has(#figure_3-legend)")

    def size() -> tuple[list[str], float]:
        panels = page.locator("[id^='figure_3-panel']:visible").all()
        names = [panel.get_attribute("id").split(":", 3)[3] for panel in panels]
        return names, float(whole.get_attribute("viewBox").split()[3])

    pairs = ["tiny-gemma:tiny-cb", "tiny-gemma:tiny-rte", "tiny-phi:tiny-cb", "tiny-phi:tiny-rte"]
    shown, height = size()
    assert shown == pairs
    page.select_option("#figure-filters select[name=model]", "tiny-phi")
    of_others = [title for title in titles if "Gemma" in title]
    assert len(of_others) == 3
    assert page.locator(visible).all_inner_texts() == [t for t in titles if t not in of_others]
    assert size()[0] == pairs[2:]
    page.select_option("#figure-filters select[name=task]", "tiny-cb")
    of_others += [title for title in titles if "other tasks" in title]
    assert page.locator(visible).all_inner_texts() == [t for t in titles if t not in of_others]
    assert size()[0] == pairs[2:3]
    assert size()[1] < 0.7 * height
    corner = page.locator("#figure_3-panel\\:2\\:0\\:tiny-phi\\:tiny-cb").bounding_box()
    box = whole.bounding_box()
    assert box["x"] <= corner["x"] < box["x"] + 40
    assert box["y"] < corner["y"] < corner["y"] + corner["height"] < box["y"] + box["height"]
    screenshot(page, "filtered", full_page=True)
    page.click("#figure-filters button[type=reset]")
    page.wait_for_function("document.querySelectorAll('.figure[hidden]').length === 0")
    assert size() == (shown, height)
    sheet = page.locator(".sheet").first
    sheet.focus()
    page.keyboard.press("Enter")
    assert page.locator("dialog[open] .sheet svg[role=img]").bounding_box()["width"] > 780
    screenshot(page, "figure")
    page.keyboard.press("Escape")
    assert page.locator("dialog[open]").count() == 0
    page.wait_for_function(
        "document.activeElement.matches('.sheet') && document.activeElement.children.length"
    )
    assert sheet.evaluate("sheet => sheet === document.activeElement")


def test_dark_by_toggle_and_by_the_system(opened: Opened) -> None:
    page = opened.page

    def brightness() -> int:
        colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
        return sum(map(int, colour.removeprefix("rgb(").removesuffix(")").split(",")))

    light = brightness()
    page.emulate_media(color_scheme="dark")
    assert brightness() < light / 4
    assert page.get_attribute("#theme", "aria-pressed") == "true"
    screenshot(page, "dark", full_page=True)
    page.click("#theme")
    assert brightness() == light
    page.emulate_media(color_scheme="light")
    page.click("#theme")
    assert brightness() < light / 4


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(opened: Opened, scheme: str) -> None:
    axe = pytest.importorskip("axe_core_python.sync_playwright", reason="axe-core-python is not installed")
    page = opened.page
    page.emulate_media(color_scheme=scheme)
    # The figures' thousands of paths and rows that are all alike would only take time.
    page.fill("#trial-filters input", "BOT25")
    page.evaluate("document.querySelectorAll('.sheet svg').forEach(drawing => drawing.replaceChildren())")
    only = {"runOnly": ["color-contrast"]} if scheme == "dark" else None
    results = [axe.Axe().run(page, options=only)]
    page.locator("table[data-trials] tbody tr").first.click()
    results.append(axe.Axe().run(page, "dialog", options=only))
    assert all(result["passes"] for result in results)
    found = [f for result in results for f in result["violations"] if f["impact"] in ("serious", "critical")]
    assert [(f["id"], [node["html"][:200] for node in f["nodes"]]) for f in found] == []


def test_narrow_screens_scroll_only_inside(browser: Any, report: Path) -> None:
    opened = open_page(browser, report, viewport={"width": 400, "height": 800})
    page = opened.page
    screenshot(page, "narrow", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    sheet = page.locator(".sheet").first
    mask = "sheet => getComputedStyle(sheet).maskImage"
    page.wait_for_function("document.querySelector('.sheet').matches('.more-right:not(.more-left)')")
    assert "gradient" in sheet.evaluate(mask)
    sheet.evaluate("sheet => sheet.scrollTo(sheet.scrollWidth, 0)")
    page.wait_for_function("document.querySelector('.sheet').matches('.more-left:not(.more-right)')")
    page.locator("table[data-trials] tbody button").first.click()
    assert page.locator("dialog[open]").bounding_box()["width"] <= 400
    screenshot(page, "narrow-trial")
    page.context.close()
    assert opened.troubles == []


def test_hostile_names_stay_text(browser: Any, tmp_path: Path) -> None:
    error = {"error_type": HOSTILE, "error_message": HOSTILE}
    rows = [trial_row("ALL", f"m{HOSTILE}"), trial_row("$x$", status="error", **error)]
    path = write_report(tmp_path / "trials", rows, verdicts=[a_card(HOSTILE, HOSTILE, (HOSTILE, "$x$"))])
    opened = open_page(browser, path)
    page = opened.page
    assert f"m{HOSTILE}" in column(page, 2)
    page.click(".verdicts summary")
    page.click("a[data-claim]")
    assert column(page, 1) == ["$x$"]
    assert HOSTILE in page.inner_text("#claim")
    page.locator("table[data-trials] tbody tr").click()
    assert f"{HOSTILE}: {HOSTILE}" in page.inner_text("dialog[open]")
    page.context.close()
    assert opened.troubles == []


def test_many_trials_are_drawn_as_one_scrolls(browser: Any, report: Path, tmp_path: Path) -> None:
    text = report.read_text("utf-8")
    start = text.index("<tr><td>", text.index("data-trials"))
    end = text.index("</tbody>", start)
    (tmp_path / "many.html").write_text(text[:start] + text[start:end] * 18 + text[end:], "utf-8")
    opened = open_page(browser, tmp_path / "many.html")
    page = opened.page
    wait_for_count(page, "1,314 of 1,314 trials")
    assert len(column(page, 1)) == 100
    page.locator(".scroll", has=page.locator("[data-trials]")).evaluate("s => s.scrollTo(0, s.scrollHeight)")
    page.wait_for_function("document.querySelectorAll('[data-trials] tbody tr').length === 200")
    page.context.close()
    assert opened.troubles == []


def test_print_is_short_and_leaves_long_tables_to_their_files(
    browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(html, "_MOST_PRINTED", 3)
    rows = [trial_row(name, task=task) for name in ("ALL", "BOT25") for task in ("tiny-rte", "tiny-cb")]
    opened = open_page(browser, write_report(tmp_path / "trials", rows))
    page = opened.page
    pdf = page.pdf(prefer_css_page_size=True)
    assert 1 <= len(re.findall(rb"/Type /Page\b", pdf)) <= 14
    assert len(pdf) < 3e6
    page.emulate_media(media="print")
    assert page.locator("table[data-trials]:visible, nav:visible, .controls:visible").count() == 0
    assert "4 rows, which are not printed: see tables/trials.csv" in page.inner_text("main")
    assert page.locator("section:has(> #title-tasks) table:visible").count() == 1
    # Chromium repeats a header's text on the next page only if it is not in a box of its own.
    assert page.evaluate("getComputedStyle(document.querySelector('th button')).display") == "contents"
    # Blended drawings become pixels, and the file ten times as large.
    assert page.evaluate("getComputedStyle(document.querySelector('.sheet svg')).mixBlendMode") == "normal"
    page.context.close()
    assert opened.troubles == []
