"""Files of the Hugging Face hub: read from its cache, and downloaded where they are not cached.

A commit that is completely cached is read without a request; for a branch, the hub is queried first for
its current commit. With ``HF_HUB_OFFLINE=1``, or where the hub does not answer, the cache is used.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lfreeze.errors import InputError, first_line
from lfreeze.hf_logging import silence_hub

_LOCAL = {"model": "--model-path", "dataset": "--data-dir"}
_TIMEOUT = 30.0  # seconds to wait for a response, not for a download
_COMMIT = re.compile(r"[0-9a-f]{40}")


class HubError(InputError):
    """A file is not available from the hub; the message names it, the reason, and what to do."""


class NoMatchingFilesError(HubError):
    """A repository that can be read but has none of the required files."""


@dataclass(frozen=True)
class Snapshot:
    """A folder in the hub's cache, and the commit of its files."""

    folder: Path
    revision: str


def endpoint() -> str:
    """The hub's address (``HF_ENDPOINT``)."""
    from huggingface_hub import constants

    return str(constants.ENDPOINT)


def config_file(repo_id: str, revision: str, choose: Callable[[Sequence[str]], Sequence[str]]) -> Path:
    """A model's ``config.json``.

    Args:
        choose: selects it from the names of all files in the repository.

    Raises:
        HubError: the repository has none, or the hub does not answer.
        InputError: what ``choose`` raises.
    """
    downloaded = snapshot(repo_id, revision, choose, lambda folder: (folder / "config.json").is_file())
    return downloaded.folder / "config.json"


def snapshot(
    repo_id: str,
    revision: str,
    choose: Callable[[Sequence[str]], Sequence[str]],
    complete: Callable[[Path], bool],
    *,
    kind: str = "model",
    reader: str = "",
) -> Snapshot:
    """A repository's files at a revision.

    An interrupted download continues where it stopped, and a file gets its name once it is complete.

    Args:
        revision: a commit, or a branch.
        choose: selects the files to download from the names of all files in the repository.
        complete: whether a cached folder holds every required file.
        kind: ``"model"`` or ``"dataset"``.
        reader: what the files are for, such as ``"task rte"``; starts the message of an error.

    Raises:
        NoMatchingFilesError: ``choose`` selects none of the repository's files.
        InputError: what ``choose`` raises.
        HubError: the repository is gated or unknown, the revision is unknown, or a file is neither
            cached nor available.
    """
    cached = _cached(repo_id, revision, kind)
    if cached is not None and not complete(cached.folder):
        cached = None
    if cached is not None and _COMMIT.fullmatch(revision):
        return cached
    try:
        return _download(repo_id, revision, choose, kind)
    except InputError:
        raise
    # Failed requests raise many types of errors, which differ between the library's versions.
    except Exception as error:
        explained = _explain(error, repo_id, revision, kind)
        if cached is not None and not explained:
            return cached
        explained = explained or (
            f"the {kind} {repo_id} is not in the cache and cannot be downloaded from {endpoint()} "
            f"({first_line(error, with_type=True)}): run `reproduce fetch` on a machine with network access, or "
            f"name a local copy with {_LOCAL[kind]}"
        )
        raise HubError(f"{reader}: {explained}" if reader else explained) from error


@dataclass(frozen=True)
class Availability:
    """Whether a repository's files can be read now.

    Attributes:
        cached: every required file is in the cache.
        n_bytes: size of the download, if known.
        problem: why the files cannot be read; empty if they can.
    """

    cached: bool
    n_bytes: int | None = None
    problem: str = ""


def check_availability(
    repo_id: str,
    revision: str,
    choose: Callable[[Sequence[str]], Sequence[str]],
    complete: Callable[[Path], bool],
    *,
    kind: str = "model",
    ask_hub: bool = True,
) -> Availability:
    """Check, without downloading, whether ``snapshot`` with the same arguments would succeed.

    Args:
        ask_hub: False looks only into the cache.
    """
    from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_url

    cached = _cached(repo_id, revision, kind)
    if cached is not None and complete(cached.folder):
        return Availability(cached=True)
    if not ask_hub:
        return Availability(cached=False)
    try:
        info = HfApi().repo_info(
            repo_id, revision=revision, repo_type=kind, files_metadata=True, timeout=_TIMEOUT
        )
        sizes = {sibling.rfilename: sibling.size for sibling in info.siblings or ()}
        names = list(choose(list(sizes)))
        for name in names[:1]:
            # A gated repository shows its list of files to everyone, their content only to some.
            get_hf_file_metadata(hf_hub_url(repo_id, name, repo_type=kind, revision=info.sha))
    except InputError as error:
        return Availability(False, problem=str(error))
    # As in snapshot: failed requests raise many types of errors.
    except Exception as error:
        reason = _explain(error, repo_id, revision, kind)
        no_answer = f"{endpoint()} does not answer ({first_line(error, with_type=True)})"
        return Availability(False, problem=reason or no_answer)
    known = [sizes[name] for name in names]
    return Availability(False, n_bytes=None if None in known else sum(size or 0 for size in known))


def cached_bytes(repo_id: str, kind: str = "model") -> int:
    """Bytes of a repository's files in the cache, of any revision, those of interrupted downloads included."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    blobs = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repo_id, repo_type=kind) / "blobs"
    return sum(path.stat().st_size for path in blobs.iterdir() if path.is_file()) if blobs.is_dir() else 0


def _cached(repo_id: str, revision: str, kind: str) -> Snapshot | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = snapshot_download(
            repo_id, repo_type=kind, revision=revision, local_files_only=True, allow_patterns=["config.json"]
        )
    except (LocalEntryNotFoundError, ValueError):
        return None
    return Snapshot(Path(folder), Path(folder).name)


def _download(
    repo_id: str, revision: str, choose: Callable[[Sequence[str]], Sequence[str]], kind: str
) -> Snapshot:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.utils import tqdm

    class TerminalBar(tqdm):
        """A progress bar that is shown on terminals only."""

        def __init__(self, *args: Any, **options: Any):
            super().__init__(*args, **{"disable": None} | options)

    # The retries of a request are not worth a warning each: the last failure is an error.
    with silence_hub():
        info = HfApi().repo_info(repo_id, revision=revision, repo_type=kind, timeout=_TIMEOUT)
        names = choose([sibling.rfilename for sibling in info.siblings or ()])
        if not names:
            raise NoMatchingFilesError(f"the {kind} {repo_id} has none of the required files on the hub")
        # A branch, not its commit, so that the cache records the commit for work without a network.
        folder = Path(
            snapshot_download(
                repo_id,
                repo_type=kind,
                revision=revision,
                allow_patterns=[glob.escape(name) for name in names],
                tqdm_class=TerminalBar,
            )
        )
    for name in names:
        # The library returns what is cached where the hub stops answering.
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{name} was not downloaded")
    return Snapshot(folder, folder.name)


def _explain(error: Exception, repo_id: str, revision: str, kind: str) -> str:
    """Why the hub refuses, as one sentence; empty if it could not be reached at all."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    page = f"{endpoint()}/{'datasets/' if kind == 'dataset' else ''}{repo_id}"
    if isinstance(error, GatedRepoError):
        return (
            f"the {kind} {repo_id} is gated: accept its terms at {page} and set HF_TOKEN to a token of that "
            "account (the present token has no access, or none is set)"
        )
    if isinstance(error, RevisionNotFoundError):
        return f"the {kind} {repo_id} has no revision {revision!r} on the hub: {page} lists them"
    if isinstance(error, RepositoryNotFoundError):
        return f"there is no {kind} {repo_id} on the hub {endpoint()}, or HF_TOKEN has no access to it"
    if isinstance(error, HFValidationError):
        return f"{repo_id!r} is not a hub identifier ({first_line(error, with_type=True)})"
    if isinstance(error, OSError) and error.errno in (13, 28, 30):
        return f"the hub's cache is not writable ({error.strerror}): set HF_HOME to another folder"
    return ""
