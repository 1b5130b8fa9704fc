"""The files in a model's folder: which contain the weights and the tokenizer, and their hashes.

Nothing here imports torch.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from lfreeze.errors import InputError, shown
from lfreeze.json_text import JsonError, parse_json
from lfreeze.plain_files import read_plain

_SHARD_INDEX = ".index.json"
# In order of preference; each may be split into shards, which an index file with the suffix lists.
_WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
_TOKENIZER_FILES = re.compile(
    r".*token.*\.(json|txt)|.*\.model|vocab\.(json|txt)|merges\.txt|chat_template.*"
)

_LARGEST_JSON = 64 << 20  # bytes; the index of a checkpoint lists every tensor
MOST_LAYERS = 10_000
MOST_NUMBER = 2**63 - 1
# Keys under which architectures name a number of layers, of which each is built.
_LAYERS = re.compile(r"(.*_)?(layers?|blocks|depths?)|(num|n)_(.*_)?(experts|labels)")


class ModelError(InputError):
    """A model that cannot be used; the message names it and the problem."""


def read_config(name: str, path: Path) -> dict[str, object]:
    """Read a ``config.json`` or another file with a JSON object.

    Raises:
        ModelError: it is missing, cannot be read or is not a JSON object.
    """
    try:
        loaded = parse_json(read_plain(path, _LARGEST_JSON).decode())
    except FileNotFoundError:
        raise ModelError(f"model {name}: {path.parent} lacks the file {path.name}") from None
    except OSError as error:
        raise ModelError(f"model {name}: {path} cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise ModelError(f"model {name}: {path} is not JSON (it is not UTF-8 text)") from None
    except JsonError as error:
        raise ModelError(f"model {name}: {path} is {error}") from None
    if not isinstance(loaded, dict):
        raise ModelError(f"model {name}: {path} is not a JSON object")
    return loaded


def read_model_config(name: str, path: Path) -> dict[str, object]:
    """Read a model's ``config.json``, whose values have the types and sizes that models can have.

    Raises:
        ModelError: as ``read_config``, or a value cannot be one of a model.
    """
    values = read_config(name, path)
    kind, classes = values.get("model_type"), values.get("architectures")
    if not isinstance(kind, str | None):
        raise ModelError(f"model {name}: {path} has model_type = {shown(kind)}, which is no text")
    if classes is not None and not (isinstance(classes, list) and all(isinstance(c, str) for c in classes)):
        raise ModelError(
            f"model {name}: {path} has architectures = {shown(classes)}, which is no list of texts"
        )
    for key, value in _numbers("", values):
        if not -MOST_NUMBER <= value <= MOST_NUMBER:
            raise ModelError(f"model {name}: {path} has {key} = {shown(value)}, beyond 64 bits")
        if _LAYERS.fullmatch(key) and not 0 <= value <= MOST_LAYERS:
            raise ModelError(
                f"model {name}: {path} has {key} = {shown(value)}, which is not from 0 to {MOST_LAYERS:,}"
            )
    return values


def _numbers(key: str, value: object) -> Iterator[tuple[str, int]]:
    """Every whole number with the key that it, or the list that it is in, has."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _numbers(str(name), inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _numbers(key, inner)
    elif isinstance(value, int) and not isinstance(value, bool):
        yield key, value


def weight_files(name: str, folder: Path) -> tuple[Path, ...]:
    """The files with a model's weights, chosen as the transformers library does.

    Raises:
        ModelError: a shard in the index is missing, or the index is malformed.
    """
    present = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    chosen = _chosen_weights(present)
    if not chosen or not chosen.endswith(_SHARD_INDEX):
        return (folder / chosen,) if chosen else ()
    shards = _shards(name, folder / chosen)
    for shard in shards:
        if shard not in present:
            raise ModelError(f"model {name}: {folder} lacks the file {shard}, which {chosen} lists")
    return tuple(folder / shard for shard in shards)


def tokenizer_files(folder: Path) -> tuple[Path, ...]:
    """The files of a tokenizer, sorted."""
    return tuple(sorted(p for p in folder.iterdir() if _TOKENIZER_FILES.fullmatch(p.name) and p.is_file()))


def _chosen_weights(names: set[str]) -> str:
    for name in _WEIGHT_FILES:
        for candidate in (name, name + _SHARD_INDEX):
            if candidate in names:
                return candidate
    return ""


def _shards(name: str, index: Path) -> list[str]:
    listed = read_config(name, index).get("weight_map")
    if not isinstance(listed, dict) or not listed or not all(isinstance(v, str) for v in listed.values()):
        raise ModelError(f"model {name}: {index} lists no shards")
    return sorted(set(listed.values()))


def has_weights(names: Iterable[str]) -> bool:
    """Whether a repository holds weights in a known format."""
    return bool(_chosen_weights(set(names)))


def needed_files(names: Sequence[str]) -> list[str]:
    """The files of a repository to download: configuration, tokenizer, and the weights in one format."""
    top = {name for name in names if "/" not in name}
    stem = _chosen_weights(top).removesuffix(_SHARD_INDEX)
    start, suffix = stem.rsplit(".", 1) if stem else ("", "")
    shard = re.compile(rf"{re.escape(start)}(-\d+-of-\d+)?\.{suffix}({re.escape(_SHARD_INDEX)})?")
    return sorted(
        name
        for name in top
        if name == "config.json" or _TOKENIZER_FILES.fullmatch(name) or (stem and shard.fullmatch(name))
    )


def is_complete(folder: Path) -> bool:
    """Whether a folder contains a configuration, all weights and a tokenizer."""
    try:
        return (folder / "config.json").is_file() and bool(
            weight_files("", folder) and tokenizer_files(folder)
        )
    except ModelError:
        return False


def tokenizer_hash(folder: Path, pad_token: str | None) -> str:
    """SHA-256 of the tokenizer's files and of the pad token, if one is set for a tokenizer without."""
    files = hash_files(tokenizer_files(folder))
    return files if pad_token is None else hashlib.sha256(f"{files} {pad_token}".encode()).hexdigest()


@functools.cache
def hash_files(files: tuple[Path, ...]) -> str:
    """SHA-256 of the files' hashes, in order."""
    digest = hashlib.sha256()
    for path in files:
        digest.update(bytes.fromhex(file_hash(path)))
    return digest.hexdigest()


@functools.cache
def file_hash(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
