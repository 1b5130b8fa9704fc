"""The doctor: what it checks, and that each problem says how to fix it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from click.testing import CliRunner

from reproduce.cli.app import main
from reproduce.plan.search_space import load_space
from reproduce.process import FAILED, OK
from reproduce.run.doctor import examine
from reproduce.store.provenance import driver_version
from tests.support.checkpoints import write_short


@pytest.fixture(autouse=True)
def _wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wide enough that no path is folded inside a word, however long the temporary folder's name is."""
    monkeypatch.setenv("COLUMNS", "500")


def examined(capsys: pytest.CaptureFixture[str], *arguments: Any) -> tuple[int, str]:
    status = examine(*arguments)
    return status, " ".join(capsys.readouterr().out.split())


def test_the_embedded_space_needs_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, printed = examined(capsys, load_space("embedded"), tmp_path / "out", None)
    assert status == OK
    for expected in (
        "torch",
        "GPU",
        "memory",
        "shared memory",
        "hub cache",
        "model tiny-gemma",
        "task tiny-cb",
        "the models encode their texts, and the strategies fit the models",
    ):
        assert expected in printed
    assert "this machine can run it" in printed
    assert not (tmp_path / "out").exists()


def test_problems_say_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage(NamedTuple):
        total: int
        used: int
        free: int

    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**9, 10**9, 1000))
    narrow = {"models": ["gemma-2b"], "tasks": ["rte"]}
    space = load_space("paper", narrow, {"batch_size": "4096"})
    status, printed = examined(capsys, space, tmp_path / "out", tmp_path / "nowhere", None, 0.0)
    assert status == FAILED
    for expected in (
        "smaller batch_size",
        "--shm-size",
        "--artifacts",
        "LFREEZE_CACHE",
        "nowhere does not exist",
    ):
        assert expected in printed
    assert "problems to solve" in printed


def test_random_weights_need_no_download(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    space = load_space("efficiency", {"models": ["phi-2"]}, weights="random")
    _, printed = examined(capsys, space, tmp_path / "out", None)
    assert "random weights: nothing to download" in printed


def test_a_folder_that_lacks_a_file_is_a_problem(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    space = load_space("embedded", {"models": ["mine"]}, model_paths={"mine": tmp_path})
    status, printed = examined(capsys, space, tmp_path / "out", None)
    assert status == FAILED
    assert "lacks the file config.json" in printed


def test_texts_beyond_a_models_positions_are_a_problem(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_short(tmp_path / "short")
    narrow = {"models": ["short"], "strategies": ["ALL", "BOT50"]}
    space = load_space("embedded", narrow, model_paths={"short": tmp_path / "short"})
    status, printed = examined(capsys, space, tmp_path / "out", None)
    assert status == FAILED
    assert "but it has positions for 16: set max_length to at most 16" in printed
    assert "1 problem to solve" in printed


@pytest.mark.parametrize(
    ("space", "arguments", "share"),
    [
        ("paper", (), None),
        ("efficiency", ("--weights", "random"), None),
        ("embedded", ("--gpus-per-trial", "0.5"), 0.5),
    ],
)
def test_run_and_doctor_say_the_same_of_a_missing_gpu(
    space: str,
    arguments: tuple[str, ...],
    share: float | None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("reproduce.run.classes.usable_gpus", list)
    models = {"models": ["tiny-gemma"], "tasks": ["tiny-cb"]}
    status, printed = examined(capsys, load_space(space, models), tmp_path / "out", None, None, share)
    narrow = ("--models", "tiny-gemma", "--tasks", "tiny-cb", "--artifacts", str(tmp_path / "a"))
    refused = CliRunner().invoke(main, ["run", space, *narrow, *arguments])
    assert (status, refused.exit_code) == (FAILED, 2)
    sentence = refused.stderr.removeprefix("error: ").strip()
    assert sentence in printed
    assert "GPU" in sentence
    assert "1 problem to solve" in printed


def test_a_space_for_the_cpu_needs_no_gpu(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where there is one that torch cannot use, since a run trains on the CPU then."""
    monkeypatch.setattr("reproduce.run.doctor.driver_version", lambda: "535.1")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    status, printed = examined(capsys, load_space("embedded"), tmp_path / "out", None)
    assert status == OK
    assert "the NVIDIA driver 535.1 is installed" in printed


@pytest.mark.parametrize(("memory", "fits"), [(80.0, True), (24.0, False)])
def test_a_login_node_is_told_what_its_gpus_can_run(
    memory: float, fits: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    space = load_space("efficiency", {"models": ["phi-2"]}, weights="random")
    status, printed = examined(capsys, space, tmp_path / "out", None, memory)
    assert (status == OK) == fits
    assert "needs a GPU, but" not in printed
    if fits:
        assert "Share of a GPU: 1 (" in printed
    else:
        assert "times the 24 GiB of the largest GPU of the machine of the run" in printed
    # Its own limits are not those of the run.
    assert "shared memory" not in printed


def test_the_gigabytes_are_named_without_the_hub(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    blobs = tmp_path / "hub" / "models--microsoft--phi-2" / "blobs"
    blobs.mkdir(parents=True)
    with (blobs / "weights.incomplete").open("wb") as file:
        file.truncate(2 * 10**9)
    space = load_space("paper", {"models": ["gemma-2b", "phi-2", "someone/unknown"], "tasks": ["rte"]})
    status, printed = examined(capsys, space, tmp_path / "out", None, 80.0)
    assert status == FAILED
    # The sizes of the weights on the hub's pages: 5.01 and 5.56 GB.
    assert "google/gemma-2b is about 5.01 GB" in printed
    assert "microsoft/phi-2 is about 5.56 GB, 2.00 GB of it in the cache" in printed
    assert "someone/unknown is of unknown size" in printed
    assert "3 of 3 models, 10.57 GB, of which 8.57 GB are due" in printed


def test_the_drivers_version_is_nvmls(monkeypatch: pytest.MonkeyPatch) -> None:
    import pynvml

    calls: list[str] = []
    monkeypatch.setattr(pynvml, "nvmlInit", lambda: calls.append("init"))
    monkeypatch.setattr(pynvml, "nvmlShutdown", lambda: calls.append("shutdown"))
    monkeypatch.setattr(pynvml, "nvmlSystemGetDriverVersion", lambda: "580.65.06")
    driver_version.cache_clear()
    assert driver_version() == "580.65.06"
    assert calls == ["init", "shutdown"]

    def no_driver() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", no_driver)
    driver_version.cache_clear()
    assert driver_version() is None
    driver_version.cache_clear()
