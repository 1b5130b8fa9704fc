"""What a sweep requires of a machine, where it listens, and how it ends on a signal."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from lfreeze.errors import InputError
from reproduce.plan.search_space import load_space
from reproduce.run.gpu_share import require_gpus
from reproduce.run.preflight import SHM_BYTES, TRIAL_BYTES, require_disk, require_shared_memory
from reproduce.run.ray_session import require_answer, require_free, require_guarded
from tests.reproduce.run.test_sweep import ONE_WORKER, SMALL, command

PHI = {"models": ["phi-2"], "tasks": ["rte"], "seeds": ["42"]}


def test_a_space_for_gpus_runs_on_a_cpu_only_on_request() -> None:
    space = load_space("paper", PHI)
    with pytest.raises(InputError, match="the space paper needs a GPU, but this machine has none"):
        require_gpus(space, None, [], "this machine")
    require_gpus(space, 0.0, [], "this machine")
    with pytest.raises(InputError, match=r"--gpus-per-trial 0\.5 needs a GPU"):
        require_gpus(space, 0.5, [], "this machine")
    for name in ("embedded", "embedded-full"):
        require_gpus(load_space(name), None, [], "this machine")
    assert not load_space("small").gpu
    assert load_space("efficiency").gpu


@pytest.mark.parametrize(("free", "refused"), [(SHM_BYTES - 1, True), (SHM_BYTES, False)])
def test_room_in_shared_memory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free: int, refused: bool
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: _Usage(free))
    if refused:
        with pytest.raises(InputError, match=r"needs 384: start the container with --shm-size=1g"):
            require_shared_memory(tmp_path)
    else:
        require_shared_memory(tmp_path)


def test_room_on_the_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: _Usage(100 * TRIAL_BYTES))
    require_disk(tmp_path, 100)
    with pytest.raises(InputError, match="20 MB free, but 101 trials need about 20"):
        require_disk(tmp_path, 101)


class _Usage:
    def __init__(self, free: int):
        self.free = free


@pytest.mark.parametrize(
    "address", ["", "somewhere", "ray://127.0.0.1:10001", "127.0.0.1:port", "127.0.0.1:99999"]
)
def test_addresses_that_are_none(address: str) -> None:
    with pytest.raises(InputError, match="is not auto or HOST:PORT"):
        require_answer(address)


@pytest.mark.parametrize("address", ["127.0.0.1:9"])
def test_addresses_where_nothing_listens(address: str) -> None:
    started = time.monotonic()
    with pytest.raises(InputError, match=f"no Ray cluster answers at '{address}'"):
        require_answer(address)
    assert time.monotonic() - started < 10


def test_a_start_that_hangs_is_ended() -> None:
    """Also if the block waits in compiled code that holds the interpreter, as joining a cluster can."""
    code = (
        "import ctypes, sys\n"
        "from reproduce.run.ray_session import ended_after\n"
        "with ended_after(float(sys.argv[1]), 'the cluster cannot be joined'):\n"
        "    ctypes.PyDLL(None).poll(None, 0, int(sys.argv[2]))\n"
        "print('went on')"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, "0.5", "60000"], capture_output=True, text=True, timeout=50
    )
    assert (ended.returncode, ended.stdout) == (1, "")
    assert (
        ended.stderr
        == "error: the cluster cannot be joined: no answer after 0.5 s; run the same command to try again\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "50", "10"], capture_output=True, text=True, timeout=40
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "went on\n", "")


def test_a_dashboard_beyond_this_machine_requires_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    require_guarded("127.0.0.1")
    with pytest.raises(InputError, match="would let anyone who reaches it run code"):
        require_guarded("0.0.0.0")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    require_guarded("0.0.0.0")


def test_a_dashboard_whose_port_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"cannot listen on 127.0.0.1:{port} .*--dashboard-port"):
            require_free("127.0.0.1", port)
    require_free("127.0.0.1", port)
    with pytest.raises(InputError, match=r"cannot listen on 203\.0\.113\.1:8265"):
        require_free("203.0.113.1", 8265)


@pytest.mark.sweep
@pytest.mark.faults
@pytest.mark.parametrize(
    ("options", "number", "status"),
    [
        (("--dashboard", "--dashboard-port", "18265", *ONE_WORKER), signal.SIGTERM, 143),
        ((), signal.SIGINT, 130),
    ],
    ids=["dashboard-SIGTERM", "SIGINT"],
)
def test_a_sweep_listens_on_loopback_alone_and_ends_on_a_signal(
    tmp_path: Path, options: tuple[str, ...], number: signal.Signals, status: int
) -> None:
    folder = tmp_path / "a"
    arguments = command("run", *options, "--tasks", "tiny-cb", "--seeds", "1,2,3", *SMALL, "--set", "steps=60",
                        "--artifacts", str(folder))  # fmt: skip
    with subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        env=os.environ | {"HOME": str(tmp_path)},
    ) as sweep:  # fmt: skip
        deadline = time.monotonic() + 150
        while len(list(folder.glob("trials/**/*.parquet"))) < 2:
            assert sweep.poll() is None, sweep.stdout.read() if sweep.stdout else ""
            assert time.monotonic() < deadline
            time.sleep(0.1)
        children = psutil.Process(sweep.pid).children(recursive=True)
        listening = {
            connection.laddr.ip
            for process in (psutil.Process(sweep.pid), *children)
            for connection in _connections(process)
            if connection.status == psutil.CONN_LISTEN
        }
        # Ray's services would otherwise end too, and the sweep with them before it handles the signal.
        assert sweep.pid not in {os.getpgid(process.pid) for process in children}
        # As a terminal does, to the whole group.
        os.killpg(sweep.pid, number)
        output, _ = sweep.communicate(timeout=60)
    assert sweep.returncode == status, output
    assert listening
    assert listening <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
    assert ("Dashboard: http://127.0.0.1:" in output) == ("--dashboard" in options)
    assert f"interrupted ({number.name}): finished trials are kept, and the same command continues" in output
    assert "Traceback" not in output
    assert not [p for p in children if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)]
)
@pytest.mark.parametrize(
    "failure", ["RuntimeError('lost')", "InputError('lost')", "SystemExit(1)", "SystemExit(0)"]
)
def test_what_fails_after_a_signal_does_not_change_the_status(
    number: signal.Signals, status: int, failure: str
) -> None:
    code = (
        "import click, signal\n"
        "from lfreeze.errors import InputError\n"
        "from reproduce.cli.options import Commands\n"
        "from reproduce.process import end_on_signals\n"
        "@click.group(cls=Commands)\n"
        "def main(): end_on_signals()\n"
        "@main.command()\n"
        "def work():\n"
        "    try:\n"
        f"        signal.raise_signal({number:d})\n"
        "    except KeyboardInterrupt:\n"
        f"        raise {failure}\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", code, "work"], capture_output=True, text=True, timeout=60)
    assert done.returncode == status, done.stderr
    assert done.stderr == (
        f"interrupted ({number.name}): finished trials are kept, and the same command continues.\n"
    )


@pytest.mark.sweep
@pytest.mark.faults
def test_a_signal_while_ray_starts_is_reported_too(tmp_path: Path) -> None:
    """Ray has a handler of its own installed during that time."""
    arguments = command(
        "run", "--tasks", "tiny-cb", "--seeds", "1", *SMALL, "--artifacts", str(tmp_path / "a")
    )
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as sweep:
        deadline = time.monotonic() + 100
        # Its first process: the session is being made.
        while not psutil.Process(sweep.pid).children(recursive=True):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        time.sleep(0.5)
        sweep.terminate()
        output, _ = sweep.communicate(timeout=60)
    assert sweep.returncode == 143, output
    assert "interrupted (SIGTERM): finished trials are kept, and the same command continues" in output
    assert "Traceback" not in output


def _connections(process: psutil.Process) -> list[psutil._common.pconn]:
    try:
        return process.net_connections("inet")
    except psutil.Error:
        return []
