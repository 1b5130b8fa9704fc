"""The command ``reproduce`` in a process that is kept, since imports cost more than most commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CODE = Path(__file__).parents[2]


class Program:
    """Runs commands one after another, each as the console script does, in one process of its own.

    For commands whose process does not matter. A command that receives a signal needs its own process.

    Args:
        path: the folders that Python's path begins with; the first is the program's code.
        environment: the process's variables; those of this process unless given.
    """

    def __init__(self, *path: Path, environment: Mapping[str, str] | None = None):
        self._process = subprocess.Popen(
            [sys.executable, "-P", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=path[0],
            env={**(environment or os.environ), "PYTHONPATH": os.pathsep.join(map(str, path))},
        )

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.communicate()

    def __call__(self, *arguments: str | Path, cwd: Path | None = None, expect: int = 0) -> str:
        """What the command prints, after a check of its exit status."""
        answer = self.answer(*arguments, cwd=cwd)
        assert answer["status"] == expect, answer["stdout"] + answer["stderr"]
        assert "Traceback" not in answer["stderr"]
        return answer["stdout"] + answer["stderr"]

    def answer(self, *arguments: str | Path, cwd: Path | None = None) -> dict[str, Any]:
        """A command's exit status as ``status``, and what it prints as ``stdout`` and ``stderr``."""
        answer: dict[str, Any] = self._ask({"arguments": [str(argument) for argument in arguments]}, cwd)
        return answer

    def execute(self, source: str, cwd: Path | None = None) -> str:
        """What Python source prints that runs by itself, in a namespace of its own."""
        answer = self._ask({"source": source}, cwd)
        assert answer["status"] == 0, answer["stdout"] + answer["stderr"]
        return answer["stdout"]

    def _ask(self, request: dict[str, Any], cwd: Path | None) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(request | {"cwd": cwd and str(cwd)}), file=self._process.stdin, flush=True)
        return json.loads(self._process.stdout.readline())


def _serve() -> None:
    """Answer each line of the input, a request, with a line."""
    start = os.getcwd()
    with os.fdopen(os.dup(0)) as requests, os.fdopen(os.dup(1), "w") as answers:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for line in requests:
            request = json.loads(line)
            os.chdir(request["cwd"] or start)
            print(json.dumps(_answer(request)), file=answers, flush=True)


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    """The exit status of a request, and what the process and those that it starts write meanwhile."""
    with tempfile.TemporaryFile("w+") as stdout, tempfile.TemporaryFile("w+") as stderr:
        os.dup2(stdout.fileno(), 1)
        os.dup2(stderr.fileno(), 2)
        status: Any = 0
        try:
            if "source" in request:
                exec(compile(request["source"], "<source>", "exec"), {"__name__": "__main__"})
            else:
                from reproduce.__main__ import main

                sys.argv = ["reproduce", *request["arguments"]]
                main()
        except SystemExit as end:
            status = end.code or 0
        except BaseException:
            traceback.print_exc()
            status = 1
        sys.stdout.flush()
        sys.stderr.flush()
        for file in (stdout, stderr):
            file.seek(0)
        return {"status": status, "stdout": stdout.read(), "stderr": stderr.read()}


if __name__ == "__main__":
    _serve()
