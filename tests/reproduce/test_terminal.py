"""Output on terminals and files of every kind: other encodings, full disks, no folder, hostile names."""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from lfreeze.streams import plain, visible
from tests.support.program import CODE

REFERENCE = CODE / "artifacts" / "reference" / "embedded"
ASCII = {"PYTHONIOENCODING": "ascii"}
# The C locale, which Python otherwise replaces by UTF-8.
C_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
ESCAPES = "\x1b]0;owned\x07\x1b[2J\x1b[31mred\x9b0m"
TRIAL = ("trial", "--strategy", "BOT50", "--model", "tiny-gemma", "--task", "tiny-cb",
         *(f"--set={value}" for value in ("steps=3", "batch_size=2", "max_train_examples=8",
                                          "max_validation_examples=8", "probe_steps=2")))  # fmt: skip


def reproduce(
    *arguments: str | Path,
    expect: int = 0,
    cwd: Path | None = None,
    stdout: int = subprocess.PIPE,
    **variables: str,
) -> tuple[bytes, bytes]:
    """What the command writes to its streams, in a process of its own."""
    environment = {k: v for k, v in os.environ.items() if k not in ("LC_ALL", "LANG", "PYTHONIOENCODING")}
    done = subprocess.run(
        [sys.executable, "-m", "reproduce", *map(str, arguments)],
        stdout=stdout, stderr=subprocess.PIPE, cwd=cwd, timeout=300, check=False,
        env=environment | {"PYTHONPATH": str(CODE), "OMP_NUM_THREADS": "1"} | variables,
    )  # fmt: skip
    assert done.returncode == expect, done
    assert b"Traceback" not in done.stderr
    assert b"Exception ignored" not in done.stderr
    return done.stdout or b"", done.stderr


@pytest.mark.parametrize("variables", [ASCII, C_LOCALE], ids=["ascii", "C"])
@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("plan", "embedded", "--strategies", "ALL,BOT50", "--seeds", "1"),
        ("status", REFERENCE, "--timing"),
        ("status", "bücher—≥"),
        ("doctor", "embedded", "--artifacts", "bücher"),
        TRIAL,
    ],
    ids=["help", "plan", "status", "refusal", "doctor", "trial"],
)
def test_a_terminal_without_unicode_gets_ascii(
    arguments: tuple[str | Path, ...], variables: dict[str, str], tmp_path: Path
) -> None:
    missing = arguments[0] == "status" and len(arguments) == 2 and arguments[1] != REFERENCE
    out, err = reproduce(*arguments, expect=2 if missing else 0, cwd=tmp_path, **variables)
    assert (out + err).isascii()
    if arguments is TRIAL:
        assert b"  layers     ####....  4 of 8 frozen (#)" in out
    if missing:
        assert b"there is no folder b" in err


def test_a_report_is_utf8_whatever_the_terminal(tmp_path: Path) -> None:
    shutil.copytree(REFERENCE, tmp_path / "ref")
    out, err = reproduce("report", "ref", cwd=tmp_path, **C_LOCALE)
    assert (out + err).isascii()
    page = (tmp_path / "ref" / "report" / "report.html").read_text("utf-8")
    assert "±" in page


def test_latin_1_keeps_what_it_has(tmp_path: Path) -> None:
    _, err = reproduce("status", "bücher—≥", expect=2, cwd=tmp_path, PYTHONIOENCODING="latin-1")
    assert "there is no folder bücher->=".encode("latin-1") in err


def test_replacements_are_legible() -> None:
    assert plain("■□ 1 ± 2 × 3 ≥ … é ﬁ 日") == r"#. 1 +- 2 x 3 >= ... e fi \u65e5"
    assert visible("a\x1b[2J\r\n\t\x9b\u202eé") == r"a\x1b[2J\r\n\t\x9b\u202eé"


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    "arguments", [("--help",), ("--version",), ("status", REFERENCE), ("plan", "embedded", "--json")]
)
def test_a_full_device_is_one_sentence(arguments: tuple[str | Path, ...], unbuffered: str) -> None:
    with open("/dev/full", "w") as full:
        _, err = reproduce(*arguments, expect=1, stdout=full.fileno(), PYTHONUNBUFFERED=unbuffered)
    assert err == b"error: the output cannot be written (No space left on device)\n"


def test_a_reader_that_has_ended_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    _, err = reproduce("plan", "embedded", "--json", expect=1, stdout=write)
    os.close(write)
    assert err == b""


def test_without_output_streams_a_command_runs() -> None:
    command = f'"{sys.executable}" -m reproduce status "{REFERENCE}" >&- 2>&-'
    environment = os.environ | {"PYTHONPATH": str(CODE)}
    assert subprocess.run(command, shell=True, env=environment, timeout=100, check=False).returncode == 0


def test_a_working_folder_that_was_deleted_is_one_sentence(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    program = f"cd '{gone}' && rmdir '{gone}' && exec '{sys.executable}' -m reproduce run embedded"
    environment = os.environ | {"PYTHONPATH": str(CODE)}
    done = subprocess.run(
        ["sh", "-c", program], capture_output=True, text=True, env=environment, timeout=100, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1] == "error: the working folder no longer exists: change to another one"
    assert "Traceback" not in done.stderr


def on_terminal(*arguments: str | Path, cwd: Path) -> bytes:
    """What the command sends to a terminal."""
    main, other = pty.openpty()
    environment = os.environ | {"PYTHONPATH": str(CODE), "TERM": "xterm-256color", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "reproduce", *map(str, arguments)],
        stdin=other, stdout=other, stderr=other, cwd=cwd, env=environment, close_fds=True,
    )  # fmt: skip
    os.close(other)
    sent = b""
    while True:
        try:
            sent += (part := os.read(main, 65536))
        except OSError:
            break
        if not part:
            break
    process.wait(timeout=100)
    os.close(main)
    return sent


def _failed_with_escapes(tmp_path: Path, reference: pl.DataFrame) -> tuple[str, ...]:
    folder = tmp_path / "a"
    shutil.copytree(REFERENCE, folder)
    row = reference.head(1).with_columns(
        status=pl.lit("error"), error_type=pl.lit("E"), error_message=pl.lit(ESCAPES + "\nline")
    )
    _rewrite(folder, row)
    return "status", "a"


def _rewrite(folder: Path, row: pl.DataFrame) -> None:
    file = next(folder.glob("trials*"))
    table = pl.read_parquet(file)
    changed = row.select(table.columns).cast(dict(table.schema))
    rest = table.filter(pl.col("run_id") != row["run_id"][0])
    pl.concat([rest, changed]).write_parquet(file)


def _damaged_file(tmp_path: Path, reference: pl.DataFrame) -> tuple[str, ...]:
    folder = tmp_path / f"a{ESCAPES}".replace("/", "")
    shutil.copytree(REFERENCE, folder)
    (folder / "trials.parquet").write_bytes(b"no Parquet")
    return "status", str(folder)


def _model_folder(tmp_path: Path, reference: pl.DataFrame) -> tuple[str, ...]:
    folder = tmp_path / f"m{ESCAPES}"
    shutil.copytree(CODE / "lfreeze" / "tiny" / "weights" / "tiny-gemma", folder)
    return "plan", "embedded", "--models", str(folder), "--strategies", "ALL"


def _doctor_of_model(tmp_path: Path, reference: pl.DataFrame) -> tuple[str, ...]:
    _, *rest = _model_folder(tmp_path, reference)
    return "doctor", *rest


def _space_file(tmp_path: Path, reference: pl.DataFrame) -> tuple[str, ...]:
    (tmp_path / "s.toml").write_text(
        f'extends = "embedded"\nmodels = ["{visible(ESCAPES)}"]'.replace("\\x", "\\u00")
    )
    return "plan", "s.toml"


@pytest.mark.parametrize(
    "planted", [_failed_with_escapes, _damaged_file, _model_folder, _doctor_of_model, _space_file]
)
def test_escape_sequences_in_names_and_messages_do_not_reach_the_terminal(
    planted: Callable[[Path, pl.DataFrame], tuple[str, ...]], tmp_path: Path
) -> None:
    from reproduce.store.parquet import read_trials

    sent = on_terminal(*planted(tmp_path, read_trials([REFERENCE]).frame), cwd=tmp_path)
    assert b"owned" in sent
    for sequence in (b"\x1b]0;", b"\x07", b"\x1b[2J", b"\x1b[31mred", "\x9b".encode()):
        assert sequence not in sent, sent
