"""Tries a model's tokenizer and configuration in a process of its own, with limits of time and memory.

Both are data, and yet they say what is computed: a tokenizer's regular expression may never end or take all
memory, a configuration may ask for a billion of modules. What ends the other process costs this one a sentence.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lfreeze.errors import InputError, first_line
from lfreeze.models.catalog import Checkpoint
from lfreeze.models.files import ModelError

_READS, _ENCODES, _BUILDS = "reading its tokenizer", "encoding the texts", "building it from its config.json"


@dataclass(frozen=True)
class Limits:
    """What the other process may need beyond its start.

    Attributes:
        cpu_seconds: of computing.
        wall_seconds: in all, start included: it may wait for something without computing.
        memory_bytes: of address space.
    """

    cpu_seconds: int = 120
    wall_seconds: int = 900
    memory_bytes: int = 6 << 30


LIMITS = Limits()
# What came of an attempt, by a hash of everything that was tried.
_faults: dict[str, str] = {}


def attempt_tokenizer(
    checkpoint: Checkpoint, texts: Sequence[tuple[str, ...]], limits: Limits = LIMITS
) -> None:
    """Read a model's tokenizer, encode the texts or pairs with it and build the model without weights.

    Raises:
        ModelError: one of this fails, or goes beyond a limit.
    """
    _attempt(checkpoint.name, checkpoint.config_file, checkpoint, texts, limits)


def attempt_config(name: str, config_file: Path, limits: Limits = LIMITS) -> None:
    """Build a model without weights from its ``config.json``.

    Raises:
        ModelError: as ``attempt_tokenizer``.
    """
    _attempt(name, config_file, None, (), limits)


def _attempt(
    name: str,
    config_file: Path,
    tokenizer: Checkpoint | None,
    texts: Sequence[tuple[str, ...]],
    limits: Limits,
) -> None:
    job = {
        "name": name,
        "config_file": str(config_file),
        "tokenizer": tokenizer and [str(tokenizer.tokenizer_folder), tokenizer.pad_token],
        "texts": texts,
        "cpu_seconds": limits.cpu_seconds,
        "memory_bytes": limits.memory_bytes,
    }
    sent = json.dumps(job).encode()
    files = f"{tokenizer.tokenizer_hash if tokenizer else ''} {_hash(config_file)}"
    key = hashlib.sha256(files.encode() + sent).hexdigest()
    if key not in _faults:
        _faults[key] = _fault(name, sent, limits)
    if fault := _faults[key]:
        raise ModelError(fault)


def _fault(name: str, job: bytes, limits: Limits) -> str:
    """Why an attempt did not succeed; empty if it did."""
    lines, status = _lines_of(job, limits)
    last = lines[-1] if lines else "its start"
    if last == "done":
        return ""
    if last.startswith("refused "):
        return str(json.loads(last.removeprefix("refused ")))
    if status is None or status in (-signal.SIGXCPU, -signal.SIGKILL):
        return f"model {name}: {last} takes longer than {limits.cpu_seconds} seconds"
    return (
        f"model {name}: {last} ends the process (status {status}); it may need more than "
        f"{limits.memory_bytes / 2**30:.0f} GiB of memory"
    )


def _hash(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        return first_line(error)


def _lines_of(job: bytes, limits: Limits) -> tuple[list[str], int | None]:
    """What the other process printed, and its exit status; None if it did not end in time."""
    path = os.pathsep.join(entry for entry in sys.path if entry)
    one_thread = {"TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    process = subprocess.Popen(
        [sys.executable, "-m", __name__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **one_thread, "PYTHONPATH": path},
    )
    try:
        printed, _ = process.communicate(job, timeout=limits.wall_seconds)
        status: int | None = process.returncode
    except subprocess.TimeoutExpired:
        process.kill()
        (printed, _), status = process.communicate(), None
    finally:
        process.kill()
    return printed.decode(errors="replace").splitlines(), status


def _main() -> None:
    job = json.load(sys.stdin)
    import torch

    from lfreeze.models.loading import empty_model, load_tokenizer

    folder, pad_token = job["tokenizer"] or (Path(), None)
    name = job["name"]
    checkpoint = Checkpoint(
        name, name, Path(job["config_file"]), None, Path(folder), "", "", pad_token=pad_token
    )
    _limit(job["cpu_seconds"], job["memory_bytes"])
    try:
        if job["tokenizer"]:
            _say(_READS)
            tokenizer = load_tokenizer(checkpoint)
            _say(_ENCODES)
            _encode(tokenizer, job["texts"])
        _say(_BUILDS)
        empty_model(checkpoint, 2, torch.float32, torch.device("meta"))
    except InputError as error:
        _say(f"refused {json.dumps(str(error))}")
    # Whatever it is, panics of compiled code included: the other process has the sentence.
    except BaseException as error:
        reason = first_line(error, with_type=True)
        _say(f"refused {json.dumps(f'model {name}: {_doing[-1]} fails: {reason}')}")
    else:
        _say("done")
    # What the libraries have started may not end.
    os._exit(0)


_doing: list[str] = []


def _say(line: str) -> None:
    _doing.append(line)
    print(line, flush=True)


def _encode(tokenizer: Any, texts: Sequence[Sequence[str]]) -> None:
    tokenizer("a", "b")
    for fields in texts:
        tokenizer(*fields)


def _limit(cpu_seconds: int, memory_bytes: int) -> None:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    seconds = int(usage.ru_utime + usage.ru_stime) + 1 + cpu_seconds
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
    size = pages * resource.getpagesize() + memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    _main()
