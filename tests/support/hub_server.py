"""A stand-in of the Hugging Face hub on loopback, for tests that download.

It speaks as much of the hub's protocol as `huggingface_hub` uses to describe, list and download model
and dataset repositories. A client is sent to it with HF_ENDPOINT, which is read when `huggingface_hub`
is imported, so in a process of its own. Large files are served by the hub itself: no redirect to a
storage host and no Xet, so every download is a plain GET.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import threading
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

Files = Mapping[str, bytes] | Path

# What the hub's default .gitattributes sends to LFS, among the files of the repositories used here.
LFS_SUFFIXES = {".safetensors", ".bin", ".pt", ".parquet", ".model", ".zip", ".gz", ".npz", ".arrow"}
LFS_THRESHOLD = 10 * 1024 * 1024

_ID = r"(?P<id>[^/]+(?:/(?!(?:revision|tree|auth-check|resolve)(?:/|$))[^/]+)?)"
_API = re.compile(
    rf"/api/(?P<kind>models|datasets)/{_ID}(?:/(?P<action>revision|tree|auth-check))?(?:/(?P<rest>.*))?"
)
_RESOLVE = re.compile(rf"/(?:(?P<kind>datasets)/)?{_ID}/resolve/(?P<rest>.+)")


class _Refused(Exception):
    """An answer other than success, as the hub words it."""

    def __init__(self, status: int, code: str | None, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status = status
        self.headers = {"X-Error-Message": message} | {k.replace("_", "-"): v for k, v in headers.items()}
        if code is not None:
            self.headers["X-Error-Code"] = code


@dataclass
class Repo:
    """A repository: its commits, each with its complete tree, and the names that point to them."""

    repo_id: str
    kind: str  # "models" or "datasets"
    revisions: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    gated: bool = False

    def commit(self, files: Files, ref: str) -> str:
        """Point a ref at a new commit of exactly these files."""
        if isinstance(files, Path):
            folder = files
            files = {
                path.relative_to(folder).as_posix(): path.read_bytes()
                for path in sorted(folder.rglob("*"))
                if path.is_file()
            }
        digest = hashlib.sha1()
        for path, content in sorted(files.items()):
            digest.update(f"{path}\0{len(content)}\0".encode() + content)
        sha = digest.hexdigest()
        self.revisions[sha] = dict(files)
        self.refs[ref] = sha
        return sha

    def locate(self, rest: str) -> tuple[str, str]:
        """The commit, and the path in it, of a quoted "revision[/path]"; a branch's name may hold slashes."""
        rest = unquote(rest)
        for name, sha in {**self.refs, **{sha: sha for sha in self.revisions}}.items():
            if rest == name or rest.startswith(f"{name}/"):
                return sha, rest[len(name) + 1 :]
        raise _Refused(404, "RevisionNotFound", f"Invalid rev id: {rest.split('/')[0]}")


def _is_lfs(path: str, content: bytes) -> bool:
    return PurePosixPath(path).suffix in LFS_SUFFIXES or len(content) > LFS_THRESHOLD


def _git_oid(content: bytes) -> str:
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()


def _file_entry(path: str, content: bytes) -> dict[str, Any]:
    """A file as the tree endpoint lists it."""
    entry: dict[str, Any] = {"type": "file", "path": path, "size": len(content), "oid": _git_oid(content)}
    if _is_lfs(path, content):
        sha256 = hashlib.sha256(content).hexdigest()
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {len(content)}\n"
        entry["oid"] = _git_oid(pointer.encode())
        entry["lfs"] = {"oid": sha256, "size": len(content), "pointerSize": len(pointer)}
    return entry


def _tree(files: Mapping[str, bytes], folder: str, recursive: bool) -> Iterator[dict[str, Any]]:
    prefix = f"{folder.rstrip('/')}/" if folder else ""
    seen = set()
    for path in sorted(files):
        if not path.startswith(prefix):
            continue
        parts = path[len(prefix) :].split("/")
        for depth in range(1, len(parts) if recursive else min(len(parts), 2)):
            directory = prefix + "/".join(parts[:depth])
            if directory not in seen:
                seen.add(directory)
                oid = hashlib.sha1(directory.encode()).hexdigest()
                yield {"type": "directory", "path": directory, "size": 0, "oid": oid}
        if recursive or len(parts) == 1:
            yield _file_entry(path, files[path])


class HubServer:
    """The hub, serving while the context is open.

    `tokens` are those with access to every gated repository. `requests` lists the requests, in order,
    as (method, path still quoted and without its query); `ranges` the (path, Range header) of the GETs
    that had one. A client also requests /api/agent-harnesses, once per HF_HOME and before anything else.
    Other machines reach it where `host` is an address of this one.
    """

    def __init__(self, tokens: Collection[str] = (), host: str = "127.0.0.1", port: int = 0) -> None:
        self.tokens = set(tokens)
        self.place = (host, port)
        self.repos: dict[tuple[str, str], Repo] = {}
        self.requests: list[tuple[str, str]] = []
        self.ranges: list[tuple[str, str]] = []
        self._cuts: list[list[Any]] = []
        self._lock = threading.Lock()
        self._server: _Server | None = None

    def __enter__(self) -> HubServer:
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        assert self._server is not None
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def endpoint(self) -> str:
        """The hub's address; after closing, one where nothing answers."""
        assert self._server is not None, "the hub has an address once it is entered"
        return f"http://{self.place[0]}:{self._server.server_port}"

    def add_model(self, repo_id: str, files: Files, *, gated: bool = False) -> str:
        """Commit these files to a model's main, and return the commit."""
        return self._commit("models", repo_id, files, "main", gated)

    def add_dataset(self, repo_id: str, files: Files, *, ref: str = "main", gated: bool = False) -> str:
        """Commit these files to a dataset's ref, and return the commit."""
        return self._commit("datasets", repo_id, files, ref, gated)

    def cut(self, path_suffix: str, after_bytes: int, times: int = 1) -> None:
        """Break off the next GETs of a file named so after that many bytes of the body promised."""
        self._cuts.append([path_suffix, after_bytes, times])

    def _commit(self, kind: str, repo_id: str, files: Files, ref: str, gated: bool) -> str:
        repo = self.repos.setdefault((kind, repo_id), Repo(repo_id, kind))
        repo.gated = gated
        return repo.commit(files, ref)

    def _take_cut(self, path: str) -> int | None:
        with self._lock:
            for cut in self._cuts:
                if cut[2] > 0 and path.endswith(cut[0]):
                    cut[2] -= 1
                    return int(cut[1])
        return None


class _Server(ThreadingHTTPServer):
    # Waiting for the handlers on closing leaves no thread or socket behind in the tests' process.
    daemon_threads = False

    def __init__(self, hub: HubServer) -> None:
        self.hub = hub
        super().__init__(hub.place, _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A client that goes away in the middle of a body is not the server's error.
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 10
    server: _Server

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.hub = self.server.hub
        url = urlsplit(self.path)
        self.hub.requests.append((self.command, url.path))
        try:
            self._route(url.path, {name: values[-1] for name, values in parse_qs(url.query).items()})
        except _Refused as refused:
            self._json({"error": str(refused)}, refused.status, refused.headers)

    def _route(self, path: str, query: dict[str, str]) -> None:
        if path == "/api/whoami-v2":
            if self._token() not in self.hub.tokens:
                raise _Refused(401, None, "Invalid credentials in Authorization header")
            self._json({"type": "user", "name": "tester", "orgs": []})
        elif path == "/api/agent-harnesses":
            self._json({"standardEnvVars": [], "harnesses": {}})
        elif match := _API.fullmatch(path):
            repo = self._repo(match["kind"], match["id"])
            if match["action"] == "auth-check":
                self._require_access(repo)
                self._json({})
            elif match["action"] == "tree":
                sha, folder = repo.locate(match["rest"] or "")
                entries = list(_tree(repo.revisions[sha], folder, query.get("recursive") == "true"))
                if folder and not entries:
                    raise _Refused(404, "EntryNotFound", f"{folder} does not exist on this revision")
                self._json(entries)
            else:
                self._info(repo, repo.locate(match["rest"] or "main")[0], "blobs" in query)
        elif match := _RESOLVE.fullmatch(path):
            repo = self._repo(match["kind"] or "models", match["id"])
            self._require_access(repo)
            sha, name = repo.locate(match["rest"])
            if name not in repo.revisions[sha]:
                raise _Refused(404, "EntryNotFound", "Entry not found", X_Repo_Commit=sha)
            self._file(path, sha, name, repo.revisions[sha][name])
        else:
            raise _Refused(404, None, "Sorry, we can't find the page you are looking for.")

    def _token(self) -> str | None:
        return (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None

    def _repo(self, kind: str, repo_id: str) -> Repo:
        repo = self.hub.repos.get((kind, unquote(repo_id)))
        if repo is None:
            # The hub does not tell the unauthenticated whether a private repository exists.
            if self._token() is None:
                raise _Refused(401, "RepoNotFound", "Invalid username or password.")
            raise _Refused(404, "RepoNotFound", "Repository not found")
        return repo

    def _require_access(self, repo: Repo) -> None:
        token = self._token()
        if not repo.gated or token in self.hub.tokens:
            return
        restricted = f"Access to {repo.kind.removesuffix('s')} {repo.repo_id} is restricted"
        if token is None:
            ask = "You must have access to it and be authenticated to access it. Please log in."
            raise _Refused(401, "GatedRepo", f"{restricted}. {ask}")
        page = f"{self.hub.endpoint}/{'datasets/' * (repo.kind == 'datasets')}{repo.repo_id}"
        ask = f"Visit {page} to ask for access."
        raise _Refused(403, "GatedRepo", f"{restricted} and you are not in the authorized list. {ask}")

    def _info(self, repo: Repo, sha: str, blobs: bool) -> None:
        siblings: list[dict[str, Any]] = []
        for path, content in sorted(repo.revisions[sha].items()):
            siblings.append({"rfilename": path})
            if blobs:
                entry = _file_entry(path, content)
                siblings[-1] |= {"size": entry["size"], "blobId": entry["oid"]}
                if lfs := entry.get("lfs"):
                    siblings[-1]["lfs"] = {**lfs, "sha256": lfs["oid"]}
        info = {
            "id": repo.repo_id,
            "sha": sha,
            "lastModified": "2024-01-01T00:00:00.000Z",
            "private": False,
            "gated": "manual" if repo.gated else False,
            "disabled": False,
            "tags": [],
            "siblings": siblings,
        }
        self._json(info)

    def _file(self, path: str, sha: str, name: str, content: bytes) -> None:
        headers = {"X-Repo-Commit": sha, "Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
        if lfs := _file_entry(name, content).get("lfs"):
            headers |= {"ETag": f'"{lfs["oid"]}"', "X-Linked-Etag": f'"{lfs["oid"]}"'}
            headers["X-Linked-Size"] = str(len(content))
        else:
            headers["ETag"] = f'"{_git_oid(content)}"'
        status, start, stop = 200, 0, len(content)
        if self.command == "GET" and (requested := self.headers.get("Range")):
            self.hub.ranges.append((path, requested))
            match = re.fullmatch(r"bytes=(\d*)-(\d*)", requested)
            if match and (match[1] or match[2]):
                start = int(match[1]) if match[1] else max(0, len(content) - int(match[2]))
                stop = min(int(match[2]) + 1, len(content)) if match[1] and match[2] else len(content)
                if start >= stop:
                    raise _Refused(
                        416, None, "Range not satisfiable", Content_Range=f"bytes */{len(content)}"
                    )
                status = 206
                headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(content)}"
        cut = self.hub._take_cut(unquote(path)) if self.command == "GET" else None
        self._answer(status, headers, content[start:stop], cut)

    def _json(self, body: object, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        content = json.dumps(body).encode()
        self._answer(
            status, {"Content-Type": "application/json; charset=utf-8"} | dict(headers or {}), content
        )

    def _answer(self, status: int, headers: Mapping[str, str], body: bytes, cut: int | None = None) -> None:
        self.send_response(HTTPStatus(status))
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        # One request per connection, so that no idle connection holds up closing the server.
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:cut])
