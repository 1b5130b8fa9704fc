"""The stand-in hub, as `huggingface_hub` itself sees it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

from tests.support.hub_server import HubServer

TOKEN = "hf_reader"
FILES = {"config.json": b"{}", "model.safetensors": bytes(range(256)) * 1000, "1_Pooling/config.json": b"[]"}
# Runs what a test sends, so that an error's kind comes back the same way as a result.
CLIENT = """
import json, sys
from huggingface_hub import HfApi, auth_check, hf_hub_download, snapshot_download
def run():
{code}
try:
    answer = {{"result": run()}}
except Exception as error:
    answer = {{"error": type(error).__name__, "message": str(error)}}
json.dump(answer, sys.stdout)
"""


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer(tokens=[TOKEN]) as server:
        server.add_model("org/model", FILES)
        yield server


def ask(hub: HubServer, home: Path, code: str, **env: str) -> dict[str, Any]:
    """The answer of some code in a process whose hub is this one, and whose cache is in `home`."""
    own = ("HF_", "HUGGING", "TRANSFORMERS_")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(own)}
    # A proxy would receive requests for loopback addresses too.
    env = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(home), "NO_PROXY": "127.0.0.1"} | env
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", CLIENT.format(code=textwrap.indent(code, "    "))],
        env=inherited | env,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def tree(folder: str | Path) -> dict[str, bytes]:
    root = Path(folder)
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def downloads(hub: HubServer) -> list[tuple[str, str]]:
    return [request for request in hub.requests if "/resolve/" in request[1]]


def test_a_snapshot_equals_the_repository_and_needs_no_request_once_cached(
    hub: HubServer, tmp_path: Path
) -> None:
    snapshot = ask(hub, tmp_path, "return snapshot_download('org/model')")["result"]
    assert tree(snapshot) == FILES
    assert Path(snapshot).name == hub.repos["models", "org/model"].refs["main"]

    hub.requests.clear()
    again = ask(hub, tmp_path, "return snapshot_download('org/model', local_files_only=True)")
    offline = ask(hub, tmp_path, "return snapshot_download('org/model')", HF_HUB_OFFLINE="1")
    assert again["result"] == offline["result"] == snapshot
    assert hub.requests == []


def test_a_repository_is_described(hub: HubServer, tmp_path: Path) -> None:
    answer = ask(
        hub,
        tmp_path,
        """
api = HfApi()
info = api.model_info("org/model", files_metadata=True)
snapshot_download("org/model")
checked = api.verify_repo_checksums("org/model")
return {
    "sha": info.sha,
    "gated": info.gated,
    "sizes": {file.rfilename: file.size for file in info.siblings},
    "files": api.list_repo_files("org/model", revision=info.sha),
    "top": [entry.path for entry in api.list_repo_tree("org/model")],
    "below": [entry.path for entry in api.list_repo_tree("org/model", "1_Pooling")],
    "bad": [checked.mismatches, checked.missing_paths, checked.extra_paths],
}
""",
    )["result"]
    sha = hub.repos["models", "org/model"].refs["main"]
    assert answer == {
        "sha": sha,
        "gated": False,
        "sizes": {path: len(content) for path, content in FILES.items()},
        "files": ["1_Pooling/config.json", "config.json", "model.safetensors"],
        "top": ["1_Pooling", "config.json", "model.safetensors"],
        "below": ["1_Pooling/config.json"],
        "bad": [[], [], []],
    }


def test_a_gated_repository_needs_a_token_with_access(hub: HubServer, tmp_path: Path) -> None:
    hub.add_model("org/gated", FILES, gated=True)
    code = "return snapshot_download('org/gated')"
    nobody = ask(hub, tmp_path, code)
    stranger = ask(hub, tmp_path, code, HF_TOKEN="hf_stranger")
    assert nobody["error"] == stranger["error"] == "GatedRepoError"
    assert "Please log in" in nobody["message"]
    assert "not in the authorized list" in stranger["message"]
    # Described to everybody, as a page on the hub is.
    assert ask(hub, tmp_path, "return HfApi().model_info('org/gated').gated")["result"] == "manual"

    assert ask(hub, tmp_path, "auth_check('org/gated')")["error"] == "GatedRepoError"
    assert ask(hub, tmp_path, "auth_check('org/gated')", HF_TOKEN=TOKEN) == {"result": None}
    assert tree(ask(hub, tmp_path, code, HF_TOKEN=TOKEN)["result"]) == FILES


def test_only_known_tokens_have_an_account(hub: HubServer, tmp_path: Path) -> None:
    known = ask(hub, tmp_path, f"return HfApi().whoami({TOKEN!r})['name']")
    unknown = ask(hub, tmp_path, "return HfApi().whoami('hf_stranger')['name']")
    assert known == {"result": "tester"}
    assert unknown["error"] == "HfHubHTTPError"
    assert "Invalid user token" in unknown["message"]


def test_missing_repositories_revisions_and_files_are_named(hub: HubServer, tmp_path: Path) -> None:
    errors = {
        "snapshot_download('org/model', revision='nope')": "RevisionNotFoundError",
        f"snapshot_download('org/model', revision={'0' * 40!r})": "RevisionNotFoundError",
        "hf_hub_download('org/model', 'config.json', revision='nope')": "RevisionNotFoundError",
        "hf_hub_download('org/model', 'nope.json')": "RemoteEntryNotFoundError",
        "list(HfApi().list_repo_tree('org/model', 'nope'))": "RemoteEntryNotFoundError",
        "snapshot_download('org/nope')": "RepositoryNotFoundError",
        f"snapshot_download('org/nope', token={TOKEN!r})": "RepositoryNotFoundError",
        "hf_hub_download('org/nope', 'config.json')": "RepositoryNotFoundError",
        "auth_check('org/nope')": "RepositoryNotFoundError",
        "snapshot_download('org/model', repo_type='dataset')": "RepositoryNotFoundError",
    }
    code = f"""
named = {{}}
for call in {list(errors)!r}:
    try:
        eval(call)
    except Exception as error:
        named[call] = type(error).__name__
return named
"""
    assert ask(hub, tmp_path, code) == {"result": errors}


def test_an_interrupted_small_download_restarts_within_the_call(hub: HubServer, tmp_path: Path) -> None:
    hub.cut("model.safetensors", after_bytes=1000)
    path = ask(hub, tmp_path, "return hf_hub_download('org/model', 'model.safetensors')")["result"]
    assert Path(path).read_bytes() == FILES["model.safetensors"]
    # What arrives before a cut within the first 10 MiB is dropped, so the whole file is requested again.
    assert [method for method, _ in downloads(hub)] == ["HEAD", "GET", "GET"]
    assert hub.ranges == []


def test_an_interrupted_large_download_resumes_within_the_call(hub: HubServer, tmp_path: Path) -> None:
    content = os.urandom(1024) * (12 * 1024)
    hub.add_model("org/large", {"model.safetensors": content})
    hub.cut("model.safetensors", after_bytes=11 * 1024 * 1024)
    path = ask(hub, tmp_path, "return hf_hub_download('org/large', 'model.safetensors')")["result"]
    assert Path(path).read_bytes() == content
    assert [requested for _, requested in hub.ranges] == [f"bytes={10 * 1024 * 1024}-"]


def test_a_download_that_is_always_interrupted_leaves_nothing(hub: HubServer, tmp_path: Path) -> None:
    code = "return snapshot_download('org/model')"
    # Five retries follow the first try, so that the next call finds the hub well again.
    hub.cut("model.safetensors", after_bytes=1000, times=6)
    assert ask(hub, tmp_path, code)["error"] == "RemoteProtocolError"
    [repository] = (tmp_path / "hub").glob("models--*")
    [snapshot] = (repository / "snapshots").iterdir()
    assert tree(snapshot) == {path: FILES[path] for path in FILES if path != "model.safetensors"}
    assert not list(repository.rglob("*.incomplete"))

    hub.requests.clear()
    offline = ask(hub, tmp_path, code, HF_HUB_OFFLINE="1")
    assert offline["error"] == "IncompleteSnapshotError"
    assert tree(ask(hub, tmp_path, code)["result"]) == FILES
    # The second call fetches only the file that is missing, from its start.
    assert [method for method, _ in downloads(hub)] == ["HEAD", "GET"]
    assert hub.ranges == []


def test_a_datasets_converted_files_are_on_their_own_ref(hub: HubServer, tmp_path: Path) -> None:
    main = hub.add_dataset("org/data", {"README.md": b"# Data"})
    converted = hub.add_dataset(
        "org/data", {"default/train/0000.parquet": b"PAR1"}, ref="refs/convert/parquet"
    )
    answer = ask(
        hub,
        tmp_path,
        """
data = {"repo_id": "org/data", "repo_type": "dataset", "revision": "refs/convert/parquet"}
path = hf_hub_download(filename="default/train/0000.parquet", **data)
return path, HfApi().list_repo_files(**data), HfApi().repo_info(**data).sha, HfApi().dataset_info("org/data").sha
""",
    )["result"]
    assert Path(answer[0]).read_bytes() == b"PAR1"
    assert answer[1:] == [["default/train/0000.parquet"], converted, main]


def test_a_new_commit_becomes_main_and_the_old_one_stays_available(hub: HubServer, tmp_path: Path) -> None:
    old = hub.repos["models", "org/model"].refs["main"]
    new = hub.add_model("org/model", FILES | {"config.json": b'{"a": 1}'})
    answer = ask(
        hub,
        tmp_path,
        f"return [snapshot_download('org/model'), snapshot_download('org/model', revision={old!r})]",
    )["result"]
    assert [Path(path).name for path in answer] == [new, old]
    assert [tree(path)["config.json"] for path in answer] == [b'{"a": 1}', b"{}"]


def test_a_folder_is_a_repository(hub: HubServer, tmp_path: Path) -> None:
    for path, content in FILES.items():
        (tmp_path / "repo" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "repo" / path).write_bytes(content)
    assert hub.add_model("org/folder", tmp_path / "repo") == hub.repos["models", "org/model"].refs["main"]


@pytest.mark.parametrize(
    ("requested", "answered", "part"),
    [
        ("bytes=2-4", "bytes 2-4/10", b"234"),
        ("bytes=7-", "bytes 7-9/10", b"789"),
        ("bytes=-2", "bytes 8-9/10", b"89"),
        ("bytes=5-99", "bytes 5-9/10", b"56789"),
    ],
)
def test_a_part_of_a_file_is_served(hub: HubServer, requested: str, answered: str, part: bytes) -> None:
    hub.add_model("digits", {"ten.txt": b"0123456789"})
    request = Request(f"{hub.endpoint}/digits/resolve/main/ten.txt", headers={"Range": requested})
    with urlopen(request) as response:
        assert response.status == 206
        assert response.headers["Content-Range"] == answered
        assert response.read() == part
