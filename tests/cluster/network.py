"""Machines on one machine: network namespaces with addresses of their own, joined by a bridge.

Each has its own /tmp/ray and /dev/shm, so that Ray's nodes share nothing but the network.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

SUBNET = "10.77.0"
TOKEN = "planted-cluster-token-" + "5" * 32
PORT = 6379


def missing() -> str | None:
    """Why namespaces cannot be made here, or None."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None or shutil.which("nsenter") is None:
        return "iproute2 or util-linux is not installed"
    name = f"lfreeze-probe-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if made.returncode:
        return f"network namespaces cannot be made here: {made.stderr.strip()}"
    subprocess.run(["ip", "netns", "del", name], check=False)
    return None


class Machine:
    """One namespace, and the ``ray start`` that runs in it."""

    def __init__(self, name: str, address: str, log: Path, hidden: Path):
        self.name, self.address, self._log, self._hidden = name, address, log, hidden
        self._ray: subprocess.Popen[bytes] | None = None

    def start_ray(self, *options: str, environment: Mapping[str, str] | None = None) -> None:
        """Start a Ray node; the folder ``hidden`` is empty there."""
        Path("/tmp/ray").mkdir(exist_ok=True)
        mounts = "mount -t tmpfs tmpfs /tmp/ray && mount -t tmpfs tmpfs /dev/shm"
        if self._hidden.is_dir():
            mounts += f" && mount -t tmpfs tmpfs {self._hidden}"
        script = f'{mounts} && exec "$@"'
        command = ["ray", "start", "--block", "--node-ip-address", self.address, "--disable-usage-stats"]
        command += ["--object-store-memory", str(100 * 2**20), *options]
        with self._log.open("ab") as log:
            self._ray = subprocess.Popen(
                ["ip", "netns", "exec", self.name, "sh", "-c", script, "sh", *command],
                stdout=log, stderr=log, start_new_session=True, env=environment_with(environment),
            )  # fmt: skip

    def command(self, *words: str) -> list[str]:
        """A command line that runs among this machine's processes."""
        assert self._ray is not None
        return ["nsenter", "-t", str(self._ray.pid), "-n", "-m", "--wd=" + os.getcwd(), *words]

    def run(
        self, *words: str, environment: Mapping[str, str] | None = None, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*words), capture_output=True, text=True, timeout=timeout, check=False,
            env=environment_with(environment),
        )  # fmt: skip

    def processes(self) -> dict[int, bytes]:
        """Its processes' command lines, by their ids."""
        listed = subprocess.run(
            ["ip", "netns", "pids", self.name], capture_output=True, text=True, check=False
        )
        lines = {int(pid): Path(f"/proc/{pid}/cmdline") for pid in listed.stdout.split()}
        return {pid: line.read_bytes() for pid, line in lines.items() if line.exists()}

    def kill(self, word: bytes = b"") -> None:
        """Pull the plug: every process in the namespace dies at once, or those with a word in their command line."""
        for pid, line in self.processes().items():
            if word in line:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        if self._ray is not None and not word:
            self._ray.wait()


class Network:
    """A head and workers, on a bridge that lies in the head's namespace."""

    def __init__(self, folder: Path, workers: int, hidden: Path):
        prefix = f"lf{os.getpid()}"
        self.head = Machine(f"{prefix}-head", f"{SUBNET}.1", folder / "head.log", folder / "nothing")
        self.workers = [
            Machine(f"{prefix}-w{i}", f"{SUBNET}.{10 + i}", folder / f"worker{i}.log", hidden)
            for i in range(workers)
        ]
        self._folder = folder

    def __enter__(self) -> Network:
        for machine in (self.head, *self.workers):
            _ip("netns", "add", machine.name)
            _ip("-n", machine.name, "link", "set", "lo", "up")
        head = self.head.name
        _ip("-n", head, "link", "add", "bridge", "type", "bridge")
        _ip("-n", head, "addr", "add", f"{self.head.address}/24", "dev", "bridge")
        _ip("-n", head, "link", "set", "bridge", "up")
        for index, worker in enumerate(self.workers):
            port = f"port{index}"
            _ip("-n", head, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", worker.name)
            _ip("-n", head, "link", "set", port, "master", "bridge", "up")
            _ip("-n", worker.name, "addr", "add", f"{worker.address}/24", "dev", "eth0")
            _ip("-n", worker.name, "link", "set", "eth0", "up")
        return self

    def __exit__(self, *exception: object) -> None:
        for machine in (*self.workers, self.head):
            machine.kill()
            _ip("netns", "del", machine.name)

    def start(self) -> None:
        """The head, which runs no trials, then every worker."""
        self.start_head()
        for worker in self.workers:
            self.start_worker(worker)
        self.wait_for_nodes(len(self.workers) + 1)

    def start_head(self) -> None:
        self.head.start_ray(
            "--head", "--port", str(PORT), "--num-cpus", "0", "--dashboard-host", "127.0.0.1",
            "--metrics-export-port", "8080",
        )  # fmt: skip
        self.wait(lambda: self.head.run("ray", "health-check", "--address", self.address).returncode == 0, 60)

    def start_worker(
        self,
        worker: Machine,
        environment: Mapping[str, str] | None = None,
        options: Sequence[str] = ("--num-cpus", "1"),
    ) -> None:
        worker.start_ray(
            "--address", self.address, "--metrics-export-port", "8080", *options, environment=environment
        )

    def wait_for_nodes(self, count: int) -> None:
        self.wait(lambda: self.nodes() == count, 90)

    @property
    def address(self) -> str:
        return f"{self.head.address}:{PORT}"

    def nodes(self) -> int:
        """How many nodes the head holds to be alive."""
        script = (
            "import ray, logging; ray.init('auto', logging_level=logging.ERROR); "
            "print('alive', sum(n['Alive'] for n in ray.nodes()))"
        )
        try:
            done = self.head.run("python", "-c", script, timeout=30)
        except subprocess.TimeoutExpired:
            return 0
        found = re.search(r"^alive (\d+)$", done.stdout, re.MULTILINE)
        return int(found[1]) if found else 0

    def set_link(self, index: int, state: str) -> None:
        """Cut or mend the cable of one worker."""
        _ip("-n", self.head.name, "link", "set", f"port{index}", state)

    def logs(self) -> str:
        return "".join(
            path.read_text(errors="replace")[-3000:] for path in sorted(self._folder.glob("*.log"))
        )

    def wait(self, condition: Callable[[], bool], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, self.logs()
            time.sleep(0.5)


def environment_with(changes: Mapping[str, str] | None = None) -> dict[str, str]:
    """With the token; an empty value takes a variable away."""
    values = os.environ | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN} | dict(changes or {})
    values["PATH"] = f"{Path(shutil.which('python') or '').parent}:{values['PATH']}"
    return {name: value for name, value in values.items() if value}


def _ip(*words: str) -> None:
    command: Sequence[str] = ("ip", *words)
    subprocess.run(command, check=True, capture_output=True)
