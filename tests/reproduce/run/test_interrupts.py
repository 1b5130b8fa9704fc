"""One rule for signals in every phase, and sweeps whose results can no longer be written."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.reproduce.run.test_sweep import FEW_EXAMPLES, SMALL, command, stamps
from tests.support.old_folders import copied, run
from tests.support.program import CODE, Program

STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
SENTENCE = "interrupted ({}): finished trials are kept, and the same command continues.\n"


def started(*arguments: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=CODE,
        env=os.environ | {"PYTHONPATH": str(CODE)},
    )  # fmt: skip


def wait_until(happened: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 200) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def commanded(work: str) -> str:
    """Source of a command that does some work."""
    return (
        "import click, os, pathlib, signal, sys, time\n"
        "from reproduce.cli.options import Commands\n"
        "from reproduce.process import end_on_signals, removed_at_once, signals_held\n"
        "@click.group(cls=Commands)\n"
        "def main(): end_on_signals()\n"
        "@main.command()\n"
        "@click.argument('folder', type=pathlib.Path)\n"
        f"def work(folder):\n{work}\n"
        "main()"
    )


@pytest.mark.parametrize("number", STATUS)
def test_an_interrupt_that_a_finaliser_swallows_is_raised_again(
    number: signal.Signals, tmp_path: Path
) -> None:
    """Python ignores what ``__del__`` raises, and Ray's objects have one."""
    code = commanded(
        "    class Swallows:\n"
        f"        def __del__(self): signal.raise_signal({number:d}); time.sleep(0.01)\n"
        "    Swallows()\n"
        "    time.sleep(100)"
    )
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code, "work", tmp_path], capture_output=True, text=True, timeout=90
    )
    assert (done.returncode, done.stderr) == (STATUS[number], SENTENCE.format(number.name))
    assert time.monotonic() - began < 80


@pytest.mark.parametrize("number", STATUS)
def test_the_first_signal_lets_what_is_removed_be_removed(number: signal.Signals, tmp_path: Path) -> None:
    code = commanded(
        "    with signals_held():\n"
        "        (folder / 'began').touch()\n"
        "        time.sleep(1)\n"
        "        (folder / 'removed').touch()\n"
        "    (folder / 'went on').touch()"
    )
    process = started(sys.executable, "-c", code, "work", tmp_path)
    wait_until((tmp_path / "began").is_file, process)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (STATUS[number], SENTENCE.format(number.name))
    assert (tmp_path / "removed").is_file()
    assert not (tmp_path / "went on").exists()


@pytest.mark.parametrize("second", STATUS)
def test_the_second_signal_removes_at_once(second: signal.Signals, tmp_path: Path) -> None:
    code = commanded(
        "    with removed_at_once(lambda: (folder / 'removed').touch()), signals_held():\n"
        "        (folder / 'began').touch()\n"
        "        while True:\n"
        "            time.sleep(0.1)\n"
        "            (folder / f'alive {time.monotonic()}').touch()"
    )
    process = started(sys.executable, "-c", code, "work", tmp_path)
    wait_until((tmp_path / "began").is_file, process)
    process.send_signal(signal.SIGINT)
    seen = len(list(tmp_path.glob("alive*")))
    wait_until(lambda: len(list(tmp_path.glob("alive*"))) > seen + 1, process)
    process.send_signal(second)
    _, errors = process.communicate(timeout=60)
    # The first signal says how the command ended.
    assert (process.returncode, errors) == (130, SENTENCE.format("SIGINT"))
    assert (tmp_path / "removed").is_file()


def test_a_command_under_nohup_goes_on_when_its_terminal_closes(tmp_path: Path) -> None:
    code = commanded("    signal.raise_signal(signal.SIGHUP)\n    (folder / 'went on').touch()")
    ignored = f"import signal, os; signal.signal(signal.SIGHUP, signal.SIG_IGN); os.execv({sys.executable!r}, [{sys.executable!r}, '-c', {code!r}, 'work', {str(tmp_path)!r}])"
    assert subprocess.run([sys.executable, "-c", ignored], timeout=60).returncode == 0
    assert (tmp_path / "went on").is_file()


@pytest.mark.parametrize("number", STATUS)
def test_a_signal_while_the_report_is_written(number: signal.Signals, tmp_path: Path) -> None:
    folder = copied("schema-2", tmp_path)
    page = folder / "report" / "report.html"
    page.parent.mkdir()
    page.write_text("an earlier report")
    process = started(*command("report", str(folder)))
    wait_until(lambda: any(page.parent.glob(".report-*/figures/*.csv")), process)
    process.send_signal(number)
    _, errors = process.communicate(timeout=100)
    assert (process.returncode, errors) == (STATUS[number], SENTENCE.format(number.name))
    assert [path.name for path in page.parent.iterdir()] == ["report.html"]
    assert page.read_text() == "an earlier report"


def test_a_report_older_than_its_trials_is_written_again(reproduce: Program, tmp_path: Path) -> None:
    folder = copied("schema-2", tmp_path)
    run(reproduce, folder)
    page = folder / "report" / "report.html"
    assert page.stat().st_size > 100_000
    first = page.stat().st_mtime_ns
    run(reproduce, folder)
    assert page.stat().st_mtime_ns == first
    os.utime(page, (1e9, 1e9))
    assert f"Report: {page}" in run(reproduce, folder)
    assert page.stat().st_mtime_ns > first
    assert not list(page.parent.glob(".*"))


def _small_files() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))


def test_what_cannot_be_published_whole_is_not_there(tmp_path: Path) -> None:
    """The system refuses to write more than 20 KB to a file."""
    folder, out = copied("schema-2", tmp_path), tmp_path / "out"
    arguments = command("publish", str(folder), str(out), "--with-steps", "--with-predictions")
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=200, preexec_fn=_small_files)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(f"error: {out} cannot be written (")
    assert sorted(path.name for path in tmp_path.iterdir()) == [folder.name]
    out.mkdir()
    assert subprocess.run(arguments, capture_output=True, timeout=200).returncode == 0
    assert {path.name for path in out.iterdir()} >= {"trials.parquet", "steps.parquet", "predictions.parquet"}
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([folder.name, "out"])


@pytest.mark.parametrize("fault", ["removed", "unwritable"])
def test_a_sweep_ends_when_its_results_cannot_be_written(fault: str, tmp_path: Path) -> None:
    """Only a trial that is training at that moment is lost."""
    folder, aside = tmp_path / "a", tmp_path / "aside"
    arguments = command("run", "--engine", "inline", "--tasks", "tiny-cb", "--strategies", "ALL,BOT50", "--seeds",
                        "1,2,3,4,5", *SMALL, *FEW_EXAMPLES, "--set", "steps=40", "--no-report", "--artifacts", str(folder))  # fmt: skip
    process = started(*arguments)
    wait_until(lambda: bool(stamps(folder)), process)
    if fault == "removed":
        shutil.move(folder, aside)
    else:
        shutil.move(folder / "steps", aside)
        (folder / "steps").touch()
    output, errors = process.communicate(timeout=200)
    assert process.returncode == 1, output + errors
    assert errors.count("the sweep ends here; finished trials are kept, and the same command continues") == 1
    assert "Traceback" not in errors
    if fault == "removed":
        assert not folder.exists()
        shutil.move(aside, folder)
    else:
        (folder / "steps").unlink()
        shutil.move(aside, folder / "steps")
    before = stamps(folder)
    assert 1 <= len(before) <= 9
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    after = stamps(folder)
    assert len(after) == 10
    assert {name: after[name] for name in before} == before
