"""What runs a sweep on a batch system: the Slurm script of the documentation, and the Apptainer definition."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from reproduce.store.parquet import read_trials
from tests.test_docs import blocks

ROOT = Path(__file__).parents[1]
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8").replace("\\\n", " ")
DEFINITION = (ROOT / "lfreeze.def").read_text("utf-8")
GRID = (
    "--tasks", "tiny-cb", "--strategies", "ALL,BOT50,LoRA", "--seeds", "42,43", "--set", "steps=9",
    "--set", "batch_size=4", "--set", "max_train_examples=40", "--set", "max_validation_examples=40",
)  # fmt: skip
# Runs the step as Slurm does; in the task named by INTERRUPT, ends it by the script's signal after its first trial.
SRUN = """#!/bin/bash
"$@" & step=$!
if [ "$SLURM_ARRAY_TASK_ID" = "${INTERRUPT:-}" ]; then
  until compgen -G "artifacts/*-$SLURM_ARRAY_TASK_ID/trials/*/*/*/*.parquet" > /dev/null; do sleep 0.05; done
  kill -TERM "$step"
fi
wait "$step"
"""


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """A folder with the documentation's script and stand-ins for Slurm's commands."""
    (script,) = [block.text for block in blocks() if block.marker == ("example", "slurm")]
    (tmp_path / "sweep.sbatch").write_text(script, "utf-8")
    programs = {
        "srun": SRUN,
        "scontrol": '#!/bin/sh\necho "$@" >> requeued\n',
        "reproduce": f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m reproduce "$@"\n',
    }
    (tmp_path / "bin").mkdir()
    for name, text in programs.items():
        (tmp_path / "bin" / name).write_text(text, "utf-8")
        (tmp_path / "bin" / name).chmod(0o755)
    return tmp_path


def submit(job: Path, task: int, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """One task of the array, as ``sbatch`` runs it."""
    return subprocess.run(
        ["bash", "sweep.sbatch", *arguments], cwd=job, capture_output=True, text=True, timeout=200, check=False,
        env=os.environ | {"PATH": f"{job / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT),
                          "SLURM_ARRAY_TASK_ID": str(task), "SLURM_JOB_ID": f"10{task}"} | environment,
    )  # fmt: skip


def test_the_script_parses_and_its_array_has_one_task_for_each_shard(job: Path) -> None:
    subprocess.run(["bash", "-n", "sweep.sbatch"], cwd=job, check=True)
    script = (job / "sweep.sbatch").read_text("utf-8")
    lines = script.splitlines()
    assert lines[0] == "#!/bin/bash"
    # Slurm reads no option after the first command.
    options = [number for number, line in enumerate(lines) if line.startswith("#SBATCH")]
    assert options == list(range(1, len(options) + 1))
    (last,) = re.findall(r"^#SBATCH --array=1-(\d+)", script, re.M)
    assert re.findall(r"^shards=(\d+)$", script, re.M) == [last]
    refused = submit(job, 1)
    assert refused.returncode != 0
    assert "usage: sbatch sweep.sbatch SPACE" in refused.stderr


@pytest.mark.sweep
def test_the_tasks_of_an_array_job_run_the_whole_space(job: Path) -> None:
    """Two shards instead of eight; one is ended before its time and queued again."""
    script = job / "sweep.sbatch"
    script.write_text(script.read_text("utf-8").replace("\nshards=8\n", "\nshards=2\n"), "utf-8")
    first = submit(job, 1, "embedded", *GRID, INTERRUPT="1")
    assert first.returncode == 143, first.stderr
    assert "finished trials are kept, and the same command continues" in first.stderr
    assert (job / "requeued").read_text() == "requeue 101\n"
    kept = read_trials([job / "artifacts" / "embedded-1"]).frame.height
    for task in (1, 2):
        done = submit(job, task, "embedded", *GRID)
        assert done.returncode == 0, done.stdout + done.stderr
        assert (f"{kept} finished already" in done.stdout) == (task == 1)
    assert (job / "requeued").read_text().count("\n") == 1
    rows = read_trials([job / "artifacts" / "embedded-1", job / "artifacts" / "embedded-2"]).frame
    assert rows["run_id"].n_unique() == rows.height == 6
    assert rows.select("status", "attempt").unique().rows() == [("ok", 1)]
    assert set(rows.group_by("artifacts").agg(pl.len())["artifacts"]) == {"embedded-1", "embedded-2"}


def section(name: str) -> list[str]:
    """The lines of a section of the definition, without comments."""
    text = DEFINITION.partition(f"\n%{name}\n")[2].partition("\n%")[0].replace("\\\n", " ")
    return [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]


def pip_commands(text: str) -> list[list[str]]:
    """Every call of pip, without what only the layers of the Dockerfile need."""
    calls = re.findall(r"(/opt/\w+/bin/pip [^&\n]+)", text)
    dropped = {"--prefix=/app", "--ignore-installed"}
    commands = [[word for word in shlex.split(call) if word not in dropped] for call in calls]
    # The bill of materials is the image's alone.
    return [words for words in commands if not words[0].startswith("/opt/tools/")]


def test_the_apptainer_image_is_built_from_the_base_and_the_lock_of_the_docker_image() -> None:
    defaults = dict(line.split("=", 1) for line in section("arguments"))
    (base,) = re.findall(r"^ARG BASE_IMAGE=(\S+)$", DOCKERFILE, re.M)
    # Apptainer accepts either a tag or a digest.
    assert defaults["BASE_IMAGE"] == re.sub(r":[\w.-]+@", "@", base)
    for name in set(defaults) - {"BASE_IMAGE"}:
        assert defaults[name] in re.findall(rf"^ARG {name}=?(.*)$", DOCKERFILE, re.M)
    assert set(re.findall(r"\{\{ (\w+) \}\}", DEFINITION)) == set(defaults)
    post = "\n".join(section("post"))
    for name in ("VARIANT", "COMMIT"):
        post = post.replace(f"{{{{ {name} }}}}", f"${{{name}}}")
    assert pip_commands(post) == pip_commands(DOCKERFILE)
    assert len(pip_commands(post)) == 5
    installed = [set(re.findall(r"--no-install-recommends ([^&\n]+)", text)) for text in (DOCKERFILE, post)]
    docker, apptainer = ({word for line in lines for word in line.split()} for lines in installed)
    # An init process and the probes of KubeRay are the container runtime's affair.
    assert docker - apptainer == {"tini", "wget"}
    assert apptainer <= docker
    for setting in re.findall(r"\b(?:PIP_NO\w+|PIP_DISABLE\w+|PYTHONUN\w+|PYTHONDONT\w+)=1", DOCKERFILE):
        assert setting in DEFINITION


def test_the_apptainer_image_holds_the_files_of_the_docker_image() -> None:
    copied = {
        source
        for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.M)
        for source in line.split()[:-1]
    }
    files = dict(line.split() for line in section("files"))
    assert set(files) == {source.removesuffix("/*.txt") for source in copied}
    for source, target in files.items():
        assert (ROOT / source).exists()
        assert target == (f"/{source}" if source == "requirements" else f"/source/{source}")


def test_the_scripts_of_the_definition_parse_and_its_labels_are_the_images() -> None:
    for name in ("post", "environment", "runscript", "test"):
        subprocess.run(["sh", "-n"], input="\n".join(section(name)), text=True, check=True)
        assert section(name)
    for line in section("labels"):
        label, value = line.split()
        (stated,) = re.findall(rf'{re.escape(label)}="([^"]+)"', DOCKERFILE)
        (version,) = re.findall(r"^ARG VERSION=(.+)$", DOCKERFILE, re.M)
        assert value == stated.replace("${VERSION}", version)
