"""What a published folder says of itself to an archive: an RO-Crate, version 1.1.

``ro-crate-metadata.json`` names the folder's files with their sizes and checksums, the software that made them, the
models and data that the trials used, the article and the licence.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from lfreeze.errors import InputError
from reproduce.store.manifest import load_json, write_json

CRATE_FILE = "ro-crate-metadata.json"
# Larger ones are no crate of this program's, and are not read.
_MOST_BYTES = 10_000_000
_LICENCE = "https://spdx.org/licenses/Apache-2.0"
_PROFILE = "https://w3id.org/ro/crate/1.1"
# The context of this version has no term for a checksum.
_CONTEXT = [f"{_PROFILE}/context", {"sha256": "https://schema.org/sha256"}]
_PARQUET, _TOML = "application/vnd.apache.parquet", "application/toml"
_FORMATS = {".parquet": _PARQUET, ".toml": _TOML}
_CONTENTS = {
    "trials": "One row for each trial: factors, accuracy, speed, memory, recipe, inputs, versions and hardware.",
    "steps": "One row for each training step of each trial.",
    "predictions": "One row for each validation example of each trial.",
    "evaluations": "One row for each evaluation during training.",
    "inputs.lock": "Hashes and revisions of the models and data.",
}
ARTICLE = {
    "@id": "https://doi.org/10.3390/app151910434",
    "name": "Exploring Selective Layer Freezing Strategies in Transformer Fine-Tuning: NLI Classifiers with "
    "Sub-3B Parameter Models",
    "creditText": "Hwang, Seo, Jung and Jung, Applied Sciences 15(19), 10434, 2025",
}


class _Entity(BaseModel):
    """An entry of a crate, as far as it is read."""

    model_config = ConfigDict(extra="ignore", populate_by_name=True)

    id: str = Field(alias="@id")
    type: str | list[str] = Field(alias="@type")
    sha256: str | None = None
    size: int | None = Field(default=None, alias="contentSize")


class _Crate(BaseModel):
    model_config = ConfigDict(extra="ignore")

    graph: list[_Entity] = Field(alias="@graph")


def write_crate(root: Path, files: Sequence[Path], trials: pl.DataFrame) -> Path:
    """Describe the files of a published folder; the path of the description.

    Args:
        files: the folder's files.
        trials: the rows of its trials.

    Raises:
        OSError: a file cannot be read, or the description cannot be written.
    """
    spaces = ", ".join(sorted(set(trials["space"])))
    listed = [_file(path) for path in files]
    programs, inputs = list(_programs(trials)), list(_inputs(trials))
    article: dict[str, Any] = {**ARTICLE, "@type": "ScholarlyArticle"}
    dataset = {
        "@id": "./",
        "@type": "Dataset",
        "name": f"Selective layer freezing: {trials.height:,} trials of the search space {spaces}",
        "description": "Results of fine-tuning classifiers with frozen layers. To check them, install lfreeze with "
        "its extra 'reproduce' and run `reproduce verify FOLDER`: it compares the files with the checksums in this "
        "description, and every number with what it was computed from. `sha256sum FILE` gives the checksum of a file.",
        "datePublished": _date(trials),
        "license": {"@id": _LICENCE},
        "citation": _reference(article),
        "hasPart": _references(listed),
        "isBasedOn": _references(inputs),
        "mentions": {"@id": "#trials"},
    }
    run = {
        "@id": "#trials",
        "@type": "CreateAction",
        "name": "Training and evaluation of the trials",
        "instrument": _references(programs),
        "object": _references(inputs),
        "result": _references(listed),
    }
    licence = {"@id": _LICENCE, "@type": "CreativeWork", "name": "Apache License 2.0"}
    descriptor = {
        "@id": CRATE_FILE,
        "@type": "CreativeWork",
        "conformsTo": {"@id": _PROFILE},
        "about": {"@id": "./"},
    }
    graph = [descriptor, dataset, *listed, run, *programs, *inputs, article, licence]
    write_json(root / CRATE_FILE, {"@context": _CONTEXT, "@graph": graph})
    return root / CRATE_FILE


def crate_faults(root: Path) -> list[str] | None:
    """How a folder's files differ from their description, one clause each; None without a description."""
    path = root / CRATE_FILE
    if not path.exists():
        return None
    try:
        if not path.is_file() or path.stat().st_size > _MOST_BYTES:
            return [f"{CRATE_FILE} is damaged: it is no file of at most {_MOST_BYTES:,} bytes"]
        files = [e for e in load_json(path, _Crate, InputError).graph if "File" in _types(e)]
    except InputError as error:
        return [str(error).removeprefix(f"{root}{os.sep}")]
    except OSError as error:
        return [f"{CRATE_FILE} cannot be read ({error.strerror or error})"]
    if not files:
        return [f"{CRATE_FILE} is damaged: it names no file"]
    return [fault for entity in files if (fault := _fault(root, entity))]


def _fault(root: Path, entity: _Entity) -> str | None:
    # A description of someone else's must not make this program read files elsewhere.
    name = entity.id.removeprefix("./")
    if name != Path(name).name:
        return f"{entity.id!r:.80} is not the name of a file in the folder"
    path = root / name
    try:
        if not path.is_file():
            return f"{name} is missing"
        if entity.size is not None and path.stat().st_size != entity.size:
            return f"{name} has {path.stat().st_size:,} bytes, in the description {entity.size:,}"
        if entity.sha256 is None:
            return f"{name} has no checksum in the description"
        if _sha256(path) != entity.sha256:
            return f"{name} has been changed: its SHA-256 is not that of the description"
    except OSError as error:
        return f"{name} cannot be read ({error.strerror or error})"
    return None


def _date(trials: pl.DataFrame) -> str:
    """The day of the last trial, so that equal trials have equal descriptions; an archive has a date of its own."""
    last = max(trials["finished_at"].drop_nulls(), default=datetime.now(UTC))
    return str(last.date().isoformat())


def _types(entity: _Entity) -> Sequence[str]:
    return [entity.type] if isinstance(entity.type, str) else entity.type


def _file(path: Path) -> dict[str, Any]:
    return {
        "@id": path.name,
        "@type": "File",
        "name": path.name,
        "description": _CONTENTS[path.stem],
        "encodingFormat": _FORMATS[path.suffix],
        "contentSize": str(path.stat().st_size),
        "sha256": _sha256(path),
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _programs(trials: pl.DataFrame) -> Iterable[dict[str, Any]]:
    """Each version and commit of this program that ran trials."""
    columns = ("lfreeze_version", "git_commit", "git_dirty")
    for number, commit, dirty in sorted(set(trials.select(columns).iter_rows()), key=str):
        commit = commit or "unknown"
        yield {
            "@id": f"#lfreeze-{number}-{commit[:12]}{'-with-changes' if dirty else ''}",
            "@type": "SoftwareApplication",
            "name": "lfreeze",
            "version": f"{number} (commit {commit}{', with uncommitted changes' if dirty else ''})",
            "license": {"@id": _LICENCE},
        }


def _inputs(trials: pl.DataFrame) -> Iterable[dict[str, Any]]:
    """Each model and data set that the trials used, with its revision or hash."""
    for kind, types, columns in (
        ("model", "CreativeWork", ("model", "model_id", "model_revision", "weights_hash")),
        ("task", "Dataset", ("task", "dataset_id", "dataset_revision", "dataset_fingerprint")),
    ):
        known = set(trials.select(columns).iter_rows())
        for name, identifier, revision, digest in sorted(known, key=str):
            version = f"revision {revision}" if revision else f"hash {digest or 'unknown'}"
            yield {
                "@id": f"#{kind}-{quote(name, safe='')}-{(revision or digest or 'unknown')[:12]}",
                "@type": types,
                "name": f"{name} ({identifier})",
                "description": f"The {kind} {name}, {version}; its licence is its owner's",
                "version": version,
            }


def _reference(entity: dict[str, Any]) -> dict[str, Any]:
    return {"@id": entity["@id"]}


def _references(entities: Sequence[dict[str, Any]]) -> list[dict[str, Any]] | dict[str, Any]:
    # As the specification recommends, one value is no list.
    references = [_reference(each) for each in entities]
    return references[0] if len(references) == 1 else references
