"""Files of the Hugging Face hub: from its cache where they are, downloaded where they are not.

A commit that is wholly cached is read without a request; of a branch, the hub is asked first what it
holds now. ``HF_HUB_OFFLINE=1`` and a hub that does not answer leave what is cached.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lfreeze.errors import InputError

_LOCAL = {"model": "--model-path", "dataset": "--data-dir"}
_TIMEOUT = 30.0  # seconds for an answer of the hub, not for a download
_COMMIT = re.compile(r"[0-9a-f]{40}")


class HubError(InputError):
    """The hub does not give a file; the message says which, why, and what to do."""


class NothingThereError(HubError):
    """A repository that can be read, but holds none of the files that are needed."""


@dataclass(frozen=True)
class Snapshot:
    """A folder in the hub's cache, and the commit that its files are of."""

    folder: Path
    revision: str


def endpoint() -> str:
    """The hub's address (``HF_ENDPOINT``)."""
    from huggingface_hub import constants

    return str(constants.ENDPOINT)


def config_file(repo_id: str, revision: str) -> Path:
    """A model's ``config.json``.

    Raises:
        HubError: the hub has none, or does not answer.
    """

    def wanted(names: Sequence[str]) -> list[str]:
        return [name for name in names if name == "config.json"]

    found = snapshot(repo_id, revision, wanted, lambda folder: (folder / "config.json").is_file())
    return found.folder / "config.json"


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

    A download that is cut goes on where it stopped, and a file has its name only once it is whole.

    Args:
        revision: a commit, or a branch.
        choose: of the names of all files in the repository, those to download.
        complete: whether a cached folder holds all that is needed.
        kind: ``"model"`` or ``"dataset"``.
        reader: who asks, for the message of an error.

    Raises:
        NothingThereError: the repository holds no file that ``choose`` takes.
        HubError: the repository is gated or unknown, the revision is unknown, or a file is neither
            cached nor to be had.
    """
    cached = _cached(repo_id, revision, kind)
    if cached is not None and not complete(cached.folder):
        cached = None
    if cached is not None and _COMMIT.fullmatch(revision):
        return cached
    try:
        return _download(repo_id, revision, choose, kind)
    except NothingThereError:
        raise
    # What fails on the way to the hub has many types, which differ between the library's versions.
    except Exception as error:
        explained = _explain(error, repo_id, revision, kind)
        if cached is not None and not explained:
            return cached
        explained = explained or (
            f"the {kind} {repo_id} is not in the cache and {endpoint()} does not give it "
            f"({_first_line(error)}): run `reproduce fetch` where there is a network, or name a local copy "
            f"with {_LOCAL[kind]}"
        )
        raise HubError(f"{reader}: {explained}" if reader else explained) from error


@dataclass(frozen=True)
class Outlook:
    """Whether a repository could be read now.

    Attributes:
        cached: all that is needed is in the cache.
        n_bytes: to download, if the hub says.
        problem: why it could not be read; empty if it could.
    """

    cached: bool
    n_bytes: int | None = None
    problem: str = ""


def outlook(
    repo_id: str,
    revision: str,
    choose: Callable[[Sequence[str]], Sequence[str]],
    complete: Callable[[Path], bool],
    *,
    kind: str = "model",
) -> Outlook:
    """Ask, without downloading, what ``snapshot`` with the same arguments would meet."""
    from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_url

    found = _cached(repo_id, revision, kind)
    if found is not None and complete(found.folder):
        return Outlook(cached=True)
    try:
        info = HfApi().repo_info(
            repo_id, revision=revision, repo_type=kind, files_metadata=True, timeout=_TIMEOUT
        )
        sizes = {sibling.rfilename: sibling.size for sibling in info.siblings or ()}
        names = list(choose(list(sizes)))
        for name in names[:1]:
            # A gated repository shows its list to all, its files only to some.
            get_hf_file_metadata(hf_hub_url(repo_id, name, repo_type=kind, revision=info.sha))
    # As in snapshot: what fails on the way has many types.
    except Exception as error:
        reason = _explain(error, repo_id, revision, kind)
        return Outlook(False, problem=reason or f"{endpoint()} does not answer ({_first_line(error)})")
    known = [sizes[name] for name in names]
    return Outlook(False, n_bytes=None if None in known else sum(size or 0 for size in known))


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
    from huggingface_hub import HfApi, hf_hub_download

    with _quiet():
        info = HfApi().repo_info(repo_id, revision=revision, repo_type=kind, timeout=_TIMEOUT)
        names = choose([sibling.rfilename for sibling in info.siblings or ()])
        if not names:
            raise NothingThereError(f"the {kind} {repo_id} has none of the files that are needed on the hub")
        paths = [hf_hub_download(repo_id, name, repo_type=kind, revision=info.sha) for name in names]
        if not _COMMIT.fullmatch(revision):
            # Notes in the cache which commit the branch is at, for work without a network.
            hf_hub_download(repo_id, names[0], repo_type=kind, revision=revision)
    return Snapshot(Path(paths[0]).parents[names[0].count("/")], str(info.sha))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without remarks on every retry: what fails in the end is told in one sentence."""
    from huggingface_hub.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


def _explain(error: Exception, repo_id: str, revision: str, kind: str) -> str:
    """The refusal that an error stands for; empty if it is only that the hub was not reached."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    page = f"{endpoint()}/{'datasets/' if kind == 'dataset' else ''}{repo_id}"
    if isinstance(error, GatedRepoError):
        return (
            f"the {kind} {repo_id} is gated: accept its terms at {page} and give a token of that account "
            "in HF_TOKEN (the token there is now has no access, or there is none)"
        )
    if isinstance(error, RevisionNotFoundError):
        return f"the {kind} {repo_id} has no revision {revision!r} on the hub: {page} lists them"
    if isinstance(error, RepositoryNotFoundError):
        return f"there is no {kind} {repo_id} on the hub {endpoint()}, or HF_TOKEN gives no access to it"
    if isinstance(error, HFValidationError):
        return f"{repo_id!r} is not an identifier of the hub ({_first_line(error)})"
    if isinstance(error, OSError) and error.errno in (13, 28, 30):
        return f"the hub's cache cannot be written ({error.strerror}): set HF_HOME to another folder"
    return ""


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__
