"""The image, built from the Dockerfile (CPU variant) and run as a stranger would: any user, read-only, no network."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import polars as pl
import pytest

IMAGE = "localhost/lfreeze:test"
USER = 34567
SECRET = "hf_planted" + "7" * 24
_TOOLS = ("buildah", "podman", "runc", "debootstrap")
_LACKING = [tool for tool in _TOOLS if shutil.which(tool) is None]
_WHY = f"{', '.join(_LACKING)} not installed" if _LACKING else "building an image needs root"
pytestmark = [
    pytest.mark.container,
    pytest.mark.skipif(bool(_LACKING) or os.geteuid() != 0, reason=_WHY),
    pytest.mark.timeout(1500),
]


@pytest.fixture(scope="module")
def image() -> str:
    script = Path(__file__).with_name("build.sh")
    built = subprocess.run([str(script), IMAGE], capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr[-4000:]
    return IMAGE


@pytest.fixture
def mounted(tmp_path: Path) -> Path:
    folder = tmp_path / "artifacts"
    folder.mkdir()
    os.chown(folder, USER, USER)
    return folder


def podman(mounted: Path | None, *options: str) -> list[str]:
    """The documented `docker run`, by podman: no network, nothing writable but the mounts and /tmp."""
    command = ["podman", "--runtime", "runc", "run", "--rm", "--network=none", "--read-only"]
    command += ["--tmpfs", "/tmp:rw,exec,mode=1777", "--cap-drop=all", "--security-opt=no-new-privileges"]
    command += ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096", f"--user={USER}:{USER}"]
    if not any(option.startswith("--shm-size") for option in options):
        command.append("--shm-size=1g")
    if mounted is not None:
        command += ["-v", f"{mounted}:/artifacts"]
    return [*command, *options]


def run(command: list[str], expect: int = 0) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == expect, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def finished(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.glob("embedded/trials/**/*.parquet")}


def test_no_arguments_run_the_embedded_space_until_stopped_and_go_on(image: str, mounted: Path) -> None:
    """Stopped in the middle, as `docker stop` does; the same command finishes the rest."""
    name = f"lfreeze-test-{os.getpid()}"
    with subprocess.Popen(
        podman(mounted, f"--name={name}", image), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as sweep:
        deadline = time.monotonic() + 240
        while len(finished(mounted)) < 4:
            assert sweep.poll() is None, sweep.stdout.read() if sweep.stdout else ""
            assert time.monotonic() < deadline
            time.sleep(0.2)
        asked = time.monotonic()
        subprocess.run(["podman", "kill", "--signal=TERM", name], check=True, capture_output=True)
        output, _ = sweep.communicate(timeout=60)
        took = time.monotonic() - asked
    assert sweep.returncode == 143, output
    assert "interrupted (SIGTERM)" in output
    assert "Traceback" not in output
    # What docker grants before it kills.
    assert took < 10
    kept = finished(mounted)
    assert len(kept) >= 4
    assert not list(mounted.rglob(".*.tmp"))
    rest = ["run", "--strategies", "ALL,BOT25", "--seeds", "42"]
    output = run(podman(mounted, image, *rest))
    assert kept <= finished(mounted)
    assert "4 trials" in output
    assert (mounted / "embedded" / "report" / "report.html").is_file()
    rows = pl.read_parquet(mounted / "embedded" / "trials" / "**" / "*.parquet")
    assert set(rows["status"]) == {"ok"}
    assert re.fullmatch(r"[0-9a-f]{40}", rows["git_commit"][0])
    assert {path.stat().st_uid for path in mounted.rglob("*")} == {USER}


def test_the_image_says_what_it_is_and_holds_no_checkout(image: str) -> None:
    inspected = subprocess.run(["podman", "inspect", image], capture_output=True, text=True, check=True)
    config = json.loads(inspected.stdout)[0]["Config"]
    labels = config["Labels"]
    assert labels["org.opencontainers.image.version"] == "0.1.0"
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?", labels["org.opencontainers.image.revision"])
    assert config["User"] == "10001:10001"
    assert config["Entrypoint"] == ["tini", "--", "reproduce"]
    found = run(
        podman(
            None,
            "--entrypoint=sh",
            image,
            "-c",
            "ls -d /source /requirements /wheel /etc/pip.conf 2>&1; true",
        )
    )
    assert found.count("No such file") == 4
    writable = run(podman(None, "--entrypoint=sh", image, "-c", "touch /opt/venv/x /x 2>&1; true"))
    assert writable.count("Read-only file system") == 2


def test_secrets_stay_out_of_layers_logs_artifacts_and_process_lists(
    image: str, mounted: Path, tmp_path: Path
) -> None:
    """The hub's token by an environment file, as documented; then looked for wherever it might turn up."""
    (tmp_path / "token.env").write_text(f"HF_TOKEN={SECRET}\n")
    watch = "while sleep 0.2; do cat /proc/[0-9]*/cmdline 2>/dev/null; done > /artifacts/processes.txt & "
    script = (
        watch
        + "reproduce run --strategies ALL --tasks tiny-cb --seeds 42; code=$?; cp -r /tmp/ray /artifacts/ray; exit $code"
    )
    output = run(
        podman(
            mounted,
            f"--env-file={tmp_path / 'token.env'}",
            "--entrypoint=tini",
            image,
            "--",
            "sh",
            "-c",
            script,
        )
    )
    assert SECRET not in output
    assert "raylet" in (mounted / "processes.txt").read_text(errors="replace")
    files = [path for path in mounted.rglob("*") if path.is_file()]
    assert len(files) > 30
    assert [path for path in files if SECRET.encode() in path.read_bytes()] == []
    history = subprocess.run(
        ["podman", "history", "--no-trunc", image], capture_output=True, text=True, check=True
    )
    inspected = subprocess.run(["podman", "inspect", image], capture_output=True, text=True, check=True)
    settings = subprocess.run(
        ["python3", "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    )
    assert SECRET not in history.stdout + inspected.stdout
    for line in settings.stdout.splitlines():
        value = line.partition("=")[2].strip("'")
        if value.startswith(("/", "http", "file:")):
            assert value not in history.stdout + inspected.stdout


def test_the_bill_of_materials_lists_what_is_installed(image: str) -> None:
    path = "/usr/share/doc/lfreeze/lfreeze.cdx.json"
    materials = json.loads(run(podman(None, "--entrypoint=cat", image, path)))
    listed = {component["name"].lower(): component["version"] for component in materials["components"]}
    names = "import importlib.metadata as m; print(*{f'{d.name} {d.version}' for d in m.distributions()}, sep='\\n')"
    installed = run(podman(None, "--entrypoint=/opt/venv/bin/python", image, "-c", names))
    assert listed == dict(line.lower().split(" ") for line in installed.splitlines())
    assert {"torch", "ray", "lfreeze"} <= set(listed)
    licensed = {c["name"].lower() for c in materials["components"] if "licenses" in c}
    assert {"torch", "polars", "lfreeze"} <= licensed


@pytest.mark.parametrize(
    ("options", "arguments", "expected"),
    [
        (["--shm-size=32m"], [], "/dev/shm has 32 MiB free, but Ray's object store needs 384: start the container with --shm-size=1g"),
        ([], ["run", "paper", "--weights", "random", "--tasks", "tiny-cb"], "the space paper needs a GPU"),
        ([], ["run", "--address", "127.0.0.1:6379"], "no Ray cluster answers at '127.0.0.1:6379'"),
        ([], ["run", "--dashboard", "--dashboard-host", "0.0.0.0"], "RAY_AUTH_MODE is disabled"),
    ],
)  # fmt: skip
def test_what_cannot_run_is_told_in_one_sentence(
    image: str, mounted: Path, options: list[str], arguments: list[str], expected: str
) -> None:
    output = run(podman(mounted, "--env=RAY_AUTH_MODE=disabled", *options, image, *arguments), expect=2)
    assert expected in output
    assert not finished(mounted)


def test_folders_that_cannot_be_written_to(image: str, tmp_path: Path) -> None:
    output = run(podman(None, image), expect=2)
    assert "the artifact folder artifacts/embedded is not writable (Read-only file system)" in output
    theirs = tmp_path / "theirs"
    theirs.mkdir(mode=0o755)
    output = run(podman(theirs, image), expect=2)
    assert "the artifact folder artifacts/embedded is not writable (Permission denied)" in output


def test_a_full_disk_is_told_before_any_trial(image: str) -> None:
    output = run(podman(None, "--tmpfs=/artifacts:rw,size=4m,mode=1777", image), expect=2)
    assert "the disk of artifacts/embedded has" in output
    assert "102 trials need about 20" in output
