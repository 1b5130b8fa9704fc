"""Small machines: each limit is found as the kernel applies it, and refused in one sentence before training."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from lfreeze.errors import InputError
from reproduce.run import limits, preflight
from reproduce.run.limits import Room
from tests.support.program import CODE

NOBODY = 65534
CGROUP = Path("/sys/fs/cgroup")
GIB = 2**30


def limited(*words: str, nproc: int | None = None, fsize: int | None = None, space: int | None = None,
            group: Path | None = None, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:  # fmt: skip
    """A Python process with limits; with one of processes it runs as a user to whom the kernel applies it.

    That user may read everything, since a checkout can lie in a folder that only its owner enters.
    """

    def limit() -> None:
        if group is not None:
            (group / "cgroup.procs").write_text("0")
        for number, value in ((resource.RLIMIT_FSIZE, fsize), (resource.RLIMIT_AS, space)):
            if value is not None:
                resource.setrlimit(number, (value, value))

    command = [sys.executable, *words]
    if nproc is not None:
        reads = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
        user = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", *reads]
        command = ["prlimit", f"--nproc={nproc}", *([] if os.getuid() else user), *command]
    environment = os.environ | {"PYTHONPATH": str(CODE), "OMP_NUM_THREADS": "1"}
    if cwd is not None:
        environment |= {"HOME": str(cwd), "LFREEZE_CACHE": str(cwd / "cache")}
    return subprocess.run(
        command,
        preexec_fn=limit,
        env=environment,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def told(expression: str, **limit: int | Path | None) -> str:
    """What an expression over ``limits`` and ``preflight`` gives in a process with limits."""
    code = f"from reproduce.run import limits, preflight\nprint({expression})"
    done = limited("-c", code, **limit)  # type: ignore[arg-type]
    return done.stdout.strip() if done.returncode == 0 else done.stderr.strip().splitlines()[-1]


@pytest.fixture
def nobodys() -> Iterator[Path]:
    """A folder that an unprivileged user can write, below a folder that it can enter."""
    folder = Path(tempfile.mkdtemp(prefix="t-"))
    if not os.getuid():
        shutil.chown(folder, NOBODY)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def group(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A control group of version 1 with a limit, such as ``("pids", "pids.max", 100)``."""
    controller, file, value = request.param
    folder = CGROUP / controller / f"lfreeze-test-{os.getpid()}"
    try:
        folder.mkdir()
        (folder / file).write_text(str(value))
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    yield folder
    with contextlib.suppress(OSError):
        folder.rmdir()


def test_no_limit_is_none() -> None:
    if resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY:
        assert limits.file_size_limit() is None
    if resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY:
        assert limits.address_space_limit() is None


def test_a_limit_of_processes_counts_the_threads_of_the_user() -> None:
    # The kernel counts all of the user's: this one at least.
    text = told("limits.process_room()", nproc=250)
    room = re.fullmatch(r"Room\(left=(-?\d+), limit='ulimit -u 250'\)", text)
    assert room, text
    assert int(room[1]) < 250
    if not os.getuid():
        assert int(room[1]) > 200
        # The kernel does not apply it to root.
        code = "import resource; resource.setrlimit(resource.RLIMIT_NPROC, (250, 250)); from reproduce.run import limits; print(limits.process_room())"
        assert "ulimit" not in limited("-c", code).stdout


def test_a_limit_is_where_the_kernel_stops() -> None:
    """Threads can be started until none is left of the room."""
    code = (
        "import threading\n"
        "from reproduce.run.limits import process_room\n"
        "room, stop, n = process_room().left, threading.Event(), 0\n"
        "try:\n"
        "    for n in range(room + 50): threading.Thread(target=stop.wait, daemon=True).start()\n"
        "except RuntimeError: pass\n"
        "stop.set()\n"
        "print(room, n)"
    )
    done = limited("-c", code, nproc=120)
    room, started = map(int, done.stdout.split())
    assert abs(room - started) <= 3, done


@pytest.mark.parametrize("group", [("pids", "pids.max", 100)], indirect=True)
def test_a_control_groups_limit_of_processes(group: Path) -> None:
    assert told("limits.process_room()", group=group) == (
        'Room(left=99, limit="the control group\'s limit of 100")'
    )
    assert "the control group's limit of 100 leaves" in told("preflight.require_processes(2)", group=group)


@pytest.mark.parametrize("group", [("memory", "memory.limit_in_bytes", int(1.2 * GIB))], indirect=True)
def test_a_control_groups_memory(group: Path) -> None:
    text = told("preflight.require_memory(2, 0)", group=group)
    assert "GiB free of the control group's 1.2 GiB, but Ray and 2 trials at once need about" in text
    assert "use --engine inline" in text
    assert "free of the control group's 1.2 GiB" in told("preflight.require_memory(None, 0)", group=group)


@pytest.mark.parametrize(
    ("size", "with_ray", "expected"),
    [
        (100 * 2**20, True, "ulimit -f allows files of 100.0 MiB, but Ray's object store needs 384: raise the limit, or use --engine inline"),
        (100 * 2**20, False, "files of 100 MiB"),
        (2**20, False, "ulimit -f allows files of 1.0 MiB, but the report needs 64: raise the limit"),
        (2**20, True, "ulimit -f allows files of 1.0 MiB, but Ray's object store needs 384: raise the limit"),
    ],
)  # fmt: skip
def test_a_limit_of_file_sizes(size: int, with_ray: bool, expected: str) -> None:
    assert expected in told(f"preflight.require_file_size(with_ray={with_ray})", fsize=size)


def test_control_groups_of_version_2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a container has them: its own group, which has less room than its parent, and the cache of files not counted."""
    own = tmp_path / "pod" / "container"
    own.mkdir(parents=True)
    for folder, most, used in ((own.parent, 10 * GIB, 2 * GIB), (own, 2 * GIB, GIB)):
        (folder / "memory.max").write_text(f"{most}\n")
        (folder / "memory.current").write_text(f"{used}\n")
        (folder / "memory.stat").write_text(f"anon 5\ninactive_file {GIB // 2}\n")
    (tmp_path / "memory.max").write_text("max\n")
    monkeypatch.setattr(limits, "_GROUPS", tmp_path)
    lines = limits._lines

    def with_group(path: Path) -> Iterator[str]:
        return iter(["0::/pod/container"]) if path == Path("/proc/self/cgroup") else lines(path)

    monkeypatch.setattr(limits, "_lines", with_group)
    assert limits.memory_room() == Room(2 * GIB - GIB // 2, "of the control group's 2.0 GiB")


@pytest.mark.parametrize(
    ("left", "workers", "expected"),
    [
        (0.2, 4, "use a machine with more"),
        (1.0, 4, "use --engine inline"),
        (3.0, 8, "run fewer at once with --max-concurrent 3, or use --engine inline"),
        (0.2, None, "a trial needs about"),
    ],
)
def test_what_to_do_without_memory(
    left: float, workers: int | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "memory_room", lambda: Room(int(left * GIB), "of a test's"))
    with pytest.raises(InputError, match=re.escape(expected)):
        preflight.require_memory(workers, 0)
    with pytest.raises(InputError, match="use a machine with more"):
        preflight.require_memory(workers, 100 * GIB)


def commands(folder: Path) -> Sequence[tuple[str, ...]]:
    one = (
        "embedded",
        "--tasks",
        "tiny-cb",
        "--strategies",
        "ALL",
        "--seeds",
        "1",
        "--artifacts",
        str(folder / "a"),
    )
    return ("-m", "reproduce", "run", *one), ("-m", "reproduce", "doctor", *one)


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        ({"nproc": 150}, "ulimit -u 150 leaves"),
        ({"nproc": 250}, "ulimit -u 250 leaves"),
        ({"fsize": 50 * 2**20}, "ulimit -f allows files of 50.0 MiB"),
        ({"space": int(1.2 * GIB)}, "allows each process 1.2 GiB of address space, but"),
    ],
    ids=["150-processes", "250-processes", "file-size", "address-space"],
)
def test_run_and_doctor_refuse_a_small_machine(limit: dict[str, int], expected: str, nobodys: Path) -> None:
    run, doctor = commands(nobodys)
    done = limited(*run, cwd=nobodys, **limit)  # type: ignore[arg-type]
    assert done.returncode == 2, done
    assert done.stdout == ""
    (sentence,) = done.stderr.splitlines()
    assert expected in sentence
    assert not (nobodys / "a").exists()
    examined = limited(*doctor, cwd=nobodys, **limit)  # type: ignore[arg-type]
    assert examined.returncode in (1, 2), examined
    # Without its address space the doctor cannot examine anything else.
    words = sentence.removeprefix("error: ").split("leaves")[0].split("Ray reserves")[0]
    assert words in examined.stdout + examined.stderr
    assert "Traceback" not in examined.stderr
