"""What sweeps leave behind: no secret in any file, no folder of a run that has ended."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from reproduce.run.traces import (
    held,
    make_private,
    remove_abandoned,
    remove_dangling,
    scratch_folder,
    without_copied_credentials,
    without_credentials,
)
from tests.reproduce.run.test_sweep import FEW_EXAMPLES, ONE_WORKER, SMALL, command
from tests.support.program import CODE

RAY_TOKEN = "planted-ray-" + "7" * 40
SECRETS = {
    "AWS_ACCESS_KEY_ID": "planted-aws-id",
    "AWS_SECRET_ACCESS_KEY": "planted-aws-secret",
    "AWS_SECURITY_TOKEN": "planted-aws-security",
    "AWS_SESSION_TOKEN": "planted-aws-session",
    "HF_TOKEN": "hf_planted_hub",
    "WANDB_API_KEY": "planted-wandb",
    "MLFLOW_TRACKING_PASSWORD": "planted-mlflow",
    "GITHUB_TOKEN": "planted-github",
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": RAY_TOKEN,
}
# Starts a sweep as the command does, and stops where its last trial is written, with everything still there.
STOPPED = """
import os, pathlib, shutil, sys
from reproduce.run import traces
remove = shutil.rmtree
def kept(folder, **options):
    target = pathlib.Path(sys.argv.pop()) / pathlib.Path(folder).name
    sys.argv.append(str(target.parent))
    # A session's folder is removed at its end, and whatever is left of it when the process ends.
    if os.path.isdir(folder): shutil.copytree(folder, target, ignore=lambda f, names: [n for n in names if not os.path.isfile(os.path.join(f, n)) and not os.path.isdir(os.path.join(f, n))], symlinks=True)
    remove(folder, **options)
traces.shutil.rmtree = kept
from reproduce.cli.app import main
main(sys.argv[1:-1])
"""


def with_secret(folder: Path) -> list[tuple[str, str]]:
    """The files that hold one of the secrets, with its name."""
    return [
        (str(path.relative_to(folder)), name)
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink()
        for name, value in SECRETS.items()
        if name != "RAY_AUTH_MODE" and value.encode() in path.read_bytes()
    ]


@pytest.mark.sweep
def test_no_file_of_a_sweep_has_a_secret_and_its_folders_are_removed(tmp_path: Path) -> None:
    kept, short = tmp_path / "kept", Path(tempfile.mkdtemp(prefix="t-"))
    for name in ("home", "artifacts", "kept"):
        (tmp_path / name).mkdir()
    variables = {"HOME": str(tmp_path / "home"), "TMPDIR": str(short), "PYTHONPATH": str(CODE)}
    arguments = command("run", "--tasks", "tiny-cb", "--strategies", "ALL", "--seeds", "1", *SMALL, *FEW_EXAMPLES,
                        *ONE_WORKER, "--artifacts", str(tmp_path / "artifacts"))[3:]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", STOPPED, *arguments, str(kept)],
        env=os.environ | variables | SECRETS, capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    # The session's files and Tune's were copied as they were before their removal.
    assert list(kept.glob("session_*/logs/*")), list(kept.iterdir())
    assert list(kept.glob("lfreeze-*"))
    assert not with_secret(kept)
    assert not with_secret(tmp_path / "artifacts")
    assert not with_secret(tmp_path / "home")
    assert not any(value in done.stdout + done.stderr for value in SECRETS.values() if value != "token")
    # Nothing of the run is left in the temporary folder.
    assert not list(short.glob("lfreeze-*"))
    assert not list((short / "ray").glob("session_*"))


@pytest.mark.sweep
def test_the_token_that_ray_makes_is_readable_by_its_user_alone(tmp_path: Path) -> None:
    code = (
        "import ray\n"
        "from reproduce.run.ray_session import ray_session\n"
        "from reproduce.run.tune_compat import TOKEN_FILE\n"
        "with ray_session(None):\n"
        "    print(oct(TOKEN_FILE.stat().st_mode & 0o777), TOKEN_FILE)"
    )
    environment = {k: v for k, v in os.environ.items() if k not in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")}
    environment |= {"HOME": str(tmp_path), "RAY_AUTH_MODE": "token", "PYTHONPATH": str(CODE)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.stdout.split() == ["0o600", str(tmp_path / ".ray" / "auth_token")], done.stderr


def test_a_token_of_an_older_version_is_made_private(tmp_path: Path) -> None:
    (tmp_path / "token").touch(mode=0o644)
    make_private(tmp_path / "token")
    make_private(tmp_path / "none")
    assert stat.S_IMODE((tmp_path / "token").stat().st_mode) == 0o600


def test_credentials_are_hidden_and_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "true")
    with without_credentials():
        left = {name for name in SECRETS if name in os.environ}
        assert left == {"HF_TOKEN", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN"}
        assert os.environ["TOKENIZERS_PARALLELISM"] == "true"
    with without_copied_credentials():
        assert {name for name in SECRETS if name not in os.environ} == {
            n for n in SECRETS if n.startswith("AWS_")
        }
    assert {name: os.environ[name] for name in SECRETS} == SECRETS


def test_tune_copies_no_other_credentials() -> None:
    """What Tune hands to its workers, and so to Ray's logs, are no other variables than those that are hidden."""
    from ray.tune.execution.class_cache import ENV_VARS_TO_PROPAGATE

    secrets = {
        name for name in ENV_VARS_TO_PROPAGATE if any(w in name for w in ("KEY", "TOKEN", "SECRET", "AWS"))
    }
    assert secrets == {name for name in SECRETS if name.startswith("AWS_")}


KILLED = """
import os, sys, signal
from reproduce.run.traces import scratch_folder
with scratch_folder() as folder:
    (folder / "big").write_text("x")
    print(folder, flush=True)
    if sys.argv[1] == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    sys.stdin.read()
"""


def test_the_folder_of_a_killed_run_is_removed_and_that_of_a_living_one_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    environment = os.environ | {"TMPDIR": str(tmp_path), "PYTHONPATH": str(CODE)}
    (tmp_path / "lfreeze-of-another-program").mkdir()

    def start(what: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", KILLED, what],
            env=environment,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    with start("kill") as killed, start("live") as living:
        assert killed.stdout is not None
        assert living.stdout is not None
        ended, alive = Path(killed.stdout.readline().strip()), Path(living.stdout.readline().strip())
        killed.wait(60)
        with scratch_folder() as mine:
            assert not ended.exists()
            assert (alive / "big").is_file()
            assert mine.is_dir()
        assert not mine.exists()
        living.communicate()
    assert [path.name for path in tmp_path.iterdir()] == ["lfreeze-of-another-program"]


def test_a_session_of_a_killed_run_is_removed_and_anothers_kept(tmp_path: Path) -> None:
    for name in ("session_1_dead", "session_2_other"):
        (tmp_path / name / "logs").mkdir(parents=True)
    (tmp_path / "session_1_dead" / ".lfreeze").touch()
    (tmp_path / "session_latest").symlink_to(tmp_path / "session_1_dead")
    (tmp_path / "session_3_live").mkdir()
    with held(tmp_path / "session_3_live"):
        remove_abandoned(tmp_path, "session_*")
        remove_dangling(tmp_path)
        assert {path.name for path in tmp_path.iterdir()} == {"session_2_other", "session_3_live"}
    assert {path.name for path in tmp_path.iterdir()} == {"session_2_other"}
