"""The hub, on loopback: fetch, offline, gated, wrong revision, an interrupted download, changed content."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from reproduce.store.parquet import read_trials
from tests.support.checkpoints import write_causal
from tests.support.hub_server import HubServer
from tests.support.program import CODE, Program

TOKEN = "hf_planted_token_of_a_test"
FAST = [
    f"--set={value}" for value in ("steps=6", "batch_size=4", "probe_steps=2", "max_validation_examples=20")
]
SMALL = ["--strategies", "ALL,BOT50", "--seeds", "42", *FAST]


def parquet(columns: dict[str, list[Any]]) -> bytes:
    file = io.BytesIO()
    pl.DataFrame(columns).write_parquet(file)
    return file.getvalue()


def pairs(n: int, first: str, second: str, labels: int) -> dict[str, list[Any]]:
    return {
        first: [f'He said "{i}.' for i in range(n)],
        second: [f"He said {i}." for i in range(n)],
        "label": [i % labels for i in range(n)],
        "idx": list(range(n)),
    }


def glue() -> dict[str, bytes]:
    """Train in two files, as a large split is; MNLI with its two validation splits."""
    examples = pairs(40, "sentence1", "sentence2", 2)
    halves = [{k: v[part] for k, v in examples.items()} for part in (slice(0, 20), slice(20, 40))]
    files = {f"rte/train-{i:05}-of-00002.parquet": parquet(half) for i, half in enumerate(halves)}
    files["rte/validation-00000-of-00001.parquet"] = parquet(pairs(24, "sentence1", "sentence2", 2))
    files["mnli/train-00000-of-00001.parquet"] = parquet(pairs(30, "premise", "hypothesis", 3))
    for name, n in (("validation_matched", 12), ("validation_mismatched", 9)):
        files[f"mnli/{name}-00000-of-00001.parquet"] = parquet(pairs(n, "premise", "hypothesis", 3))
    return files


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubServer]:
    write_causal(tmp_path / "files", shards="20KB")
    with HubServer(tokens=[TOKEN]) as server:
        server.add_model("someone/small-llama", tmp_path / "files")
        yield server


@pytest.fixture
def reproduce(hub: HubServer, tmp_path: Path) -> Iterator[Any]:
    """Runs `reproduce` against the hub, with its own cache; one process for all calls with the same variables."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    environment |= {
        "HF_ENDPOINT": hub.endpoint,
        "HF_HOME": str(tmp_path / "hub"),
        "LFREEZE_CACHE": str(tmp_path / "cache"),
        "NO_PROXY": "127.0.0.1",
    }
    with contextlib.ExitStack() as stack:

        @functools.cache
        def program(*variables: tuple[str, str]) -> Program:
            return stack.enter_context(Program(CODE, environment=environment | dict(variables)))

        def run(*arguments: str, expect: int = 0, **variables: str) -> str:
            done = program(*sorted(variables.items())).answer(*arguments, cwd=tmp_path)
            output = str(done["stdout"] + done["stderr"])
            assert done["status"] == expect, output
            assert "Traceback" not in output
            assert TOKEN not in output
            if expect == 2:
                assert done["stderr"].startswith("error: ")
                assert done["stderr"].count("\n") == 1, done["stderr"]
            return output

        yield run


@pytest.mark.sweep
def test_fetch_then_run_offline_then_refuse_changed_inputs(
    hub: HubServer, reproduce: Any, tmp_path: Path
) -> None:
    """A model and data are fetched, locked, used without the hub, and changed on the hub."""
    first = hub.add_model("someone/small-llama", tmp_path / "files")
    tasks = ["--models", "someone/small-llama", "--tasks", "tiny-cb", *SMALL, "--artifacts", "out"]
    printed = reproduce("fetch", *tasks)
    assert f"revision {first}" in printed
    lock = tomllib.loads((tmp_path / "out" / "inputs.lock.toml").read_text())
    model = lock["models"]["someone/small-llama"]
    assert model["revision"] == first
    assert set(model["files"]) == {p.name for p in (tmp_path / "files").iterdir()} - {
        "generation_config.json",
        "model.safetensors.index.json",
    }
    hub.requests.clear()
    # One worker: its imports cost more than the trials.
    one = ("--max-concurrent", "1", "--no-report")
    reproduce("run", *tasks, *one, HF_HUB_OFFLINE="1", HF_ENDPOINT="http://127.0.0.1:9")
    assert hub.requests == []
    rows = read_trials([tmp_path / "out"]).frame
    assert rows["status"].to_list() == ["ok", "ok"]
    assert rows["model_revision"].to_list() == [first, first]
    assert rows["weights"].to_list() == ["pretrained", "pretrained"]
    assert rows["weights_hash"].to_list() == [model["weights_hash"]] * 2

    config = json.loads((tmp_path / "files" / "config.json").read_text())
    (tmp_path / "files" / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 1e-3}))
    second = hub.add_model("someone/small-llama", tmp_path / "files")
    message = reproduce("run", *tasks, expect=2)
    for expected in ("someone/small-llama", "inputs.lock.toml", first[:12], second[:12], "--accept-inputs"):
        assert expected in message
    old = set((tmp_path / "out" / "trials").rglob("*.parquet"))
    reproduce("run", *tasks, "--engine", "inline", "--no-report", "--accept-inputs")
    rows = read_trials([tmp_path / "out"]).frame
    assert rows["model_revision"].to_list() == [second, second]
    moved = {p.name for p in (tmp_path / "out" / "superseded" / "trials").rglob("*.parquet")}
    assert moved == {p.name for p in old}


def test_glue_and_super_glue_from_the_hub(hub: HubServer, reproduce: Any, tmp_path: Path) -> None:
    """SuperGLUE's repository holds a script; its Parquet files are on the hub's own branch."""
    hub.add_dataset("nyu-mll/glue", glue())
    sha = hub.repos["datasets", "nyu-mll/glue"].refs["main"]
    hub.repos["datasets", "nyu-mll/glue"].revisions["bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c"] = glue()
    hub.add_dataset("aps/super_glue", {"super_glue.py": b"raise SystemExit\n"})
    script = hub.repos["datasets", "aps/super_glue"]
    script.revisions["3de24cf8022e94f4ee4b9d55a6f539891524d646"] = {"super_glue.py": b"raise SystemExit\n"}
    cb = {"cb/train/0000.parquet": parquet(pairs(9, "premise", "hypothesis", 3))}
    cb["cb/validation/0000.parquet"] = parquet(pairs(6, "premise", "hypothesis", 3))
    converted = hub.add_dataset("aps/super_glue", cb, ref="refs/convert/parquet")
    tasks = ["--tasks", "rte,mnli,cb", "--artifacts", "out"]
    reproduce("fetch", *tasks)
    lock = tomllib.loads((tmp_path / "out" / "inputs.lock.toml").read_text())["tasks"]
    assert {name: (t["n_train"], t["n_validation"]) for name, t in lock.items()} == {
        "rte": (40, 24),
        "mnli": (30, 12),
        "cb": (9, 6),
    }
    assert lock["rte"]["revision"] == "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c" != sha
    assert lock["cb"]["revision"] == converted
    assert set(lock["rte"]["files"]) == {name for name in glue() if name.startswith("rte/")}
    hub.requests.clear()
    reproduce(
        "trial", "--strategy", "ALL", "--model", "tiny-gemma", "--task", "mnli", *FAST, HF_HUB_OFFLINE="1"
    )
    # A completely cached commit is read without a request, offline or not.
    reproduce("trial", "--strategy", "ALL", "--model", "tiny-gemma", "--task", "rte", *FAST)
    assert [path for _, path in hub.requests if "glue" in path] == []


def test_a_gated_model(hub: HubServer, reproduce: Any, tmp_path: Path) -> None:
    hub.add_model("someone/gated", tmp_path / "files", gated=True)
    fetch = ["fetch", "--models", "someone/gated", *SMALL]
    for variables in ({}, {"HF_TOKEN": "hf_other"}):
        message = reproduce(*fetch, expect=2, **variables)
        assert f"gated: accept its terms at {hub.endpoint}/someone/gated" in message
        assert "HF_TOKEN" in message
    examined = reproduce("doctor", "--models", "someone/gated", *SMALL, expect=1)
    assert "gated" in examined
    reproduce("doctor", "--models", "someone/gated", *SMALL, HF_TOKEN=TOKEN)
    reproduce(*fetch, HF_TOKEN=TOKEN)
    assert TOKEN not in (tmp_path / "artifacts" / "embedded" / "inputs.lock.toml").read_text()
    reproduce("doctor", "--models", "someone/gated", *SMALL)


def test_missing_repositories_revisions_and_files(hub: HubServer, reproduce: Any) -> None:
    trial = ["trial", "--strategy", "ALL", "--task", "tiny-cb", *FAST, "--model"]
    assert "no revision 'v9' on the hub" in reproduce(*trial, "someone/small-llama@v9", expect=2)
    assert "there is no model someone/else on the hub" in reproduce(*trial, "someone/else", expect=2)
    message = reproduce(*trial, "someone/small-llama", expect=2, HF_HUB_OFFLINE="1")
    assert "not in the cache" in message
    assert "reproduce fetch" in message
    message = reproduce(*trial, "someone/small-llama", expect=2, HF_ENDPOINT="http://127.0.0.1:9")
    assert "cannot be downloaded from http://127.0.0.1:9" in message
    hub.add_dataset("nyu-mll/glue", {"README.md": b""})
    message = reproduce("trial", "--strategy", "ALL", "--task", "rte", "--model", "tiny-gemma", expect=2)
    assert "task rte" in message


def test_an_interrupted_download_continues_where_it_stopped(
    hub: HubServer, reproduce: Any, tmp_path: Path
) -> None:
    write_causal(tmp_path / "large", hidden_size=512, intermediate_size=512)
    hub.add_model("someone/large", tmp_path / "large")
    stored = (tmp_path / "large" / "model.safetensors").read_bytes()
    fetch = ["fetch", "--models", "someone/large", *SMALL]
    hub.cut("model.safetensors", 12_000_000)
    reproduce(*fetch)
    assert [requested for path, requested in hub.ranges if path.endswith("model.safetensors")] == [
        "bytes=10485760-"
    ]
    (file,) = (tmp_path / "hub").rglob("snapshots/*/model.safetensors")
    assert file.read_bytes() == stored


def test_a_download_that_never_completes_leaves_no_partial_file(
    hub: HubServer, reproduce: Any, tmp_path: Path
) -> None:
    hub.cut(".safetensors", 1000, times=1000)
    names = ["--models", "someone/small-llama", *SMALL]
    assert "someone/small-llama is not in the cache" in reproduce("fetch", *names, expect=2)
    assert not list((tmp_path / "hub").rglob("snapshots/*/*.safetensors"))
    reproduce("run", *names, expect=2, HF_HUB_OFFLINE="1")
    hub._cuts.clear()
    reproduce("fetch", *names)
