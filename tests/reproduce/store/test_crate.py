"""The RO-Crate of a published folder: what it says, and that ``verify`` reads it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from reproduce.cli.app import main
from reproduce.store.crate import ARTICLE, CRATE_FILE, crate_faults
from tests.reproduce.verify.test_verify import folder_of_a_sweep as folder_of_a_sweep

ROOT = Path(__file__).parents[3]


def run(*arguments: str | Path) -> tuple[int, str]:
    done = CliRunner().invoke(main, [str(argument) for argument in arguments])
    return done.exit_code, done.output


@pytest.fixture
def published(folder_of_a_sweep: Path, tmp_path: Path) -> Path:
    status, text = run("publish", folder_of_a_sweep, tmp_path / "out", "--with-steps")
    assert status == 0, text
    assert CRATE_FILE in text
    return tmp_path / "out"


def archive(folder: Path, status: int = 1) -> str:
    """The line of the check, with its details."""
    done, text = run("verify", folder, "--against", folder, "--json")
    assert done == status, text
    (check,) = [each for each in json.loads(text)["checks"] if each["name"] == "archive"]
    assert check["passed"] is (status == 0)
    return "\n".join([check["sentence"], *check["details"]])


def test_the_crate_names_each_file_with_its_checksum(published: Path) -> None:
    crate = json.loads((published / CRATE_FILE).read_text("utf-8"))
    entities = {entity["@id"]: entity for entity in crate["@graph"]}
    assert len(entities) == len(crate["@graph"])
    assert entities[CRATE_FILE]["about"] == {"@id": "./"}
    files = sorted(path.name for path in published.iterdir() if path.name != CRATE_FILE)
    assert files == sorted(part["@id"] for part in entities["./"]["hasPart"])
    for name in files:
        digest = subprocess.run(["sha256sum", published / name], capture_output=True, text=True, check=True)
        assert entities[name]["sha256"] == digest.stdout.split()[0]
        assert int(entities[name]["contentSize"]) == (published / name).stat().st_size
    for name in ("name", "description", "datePublished", "license", "citation"):
        assert entities["./"][name]
    assert "reproduce verify" in entities["./"]["description"]
    (program,) = [e for e in entities.values() if e["@type"] == "SoftwareApplication"]
    assert "commit " in program["version"]

    def references(value: Any) -> list[str]:
        if isinstance(value, list):
            return [name for each in value for name in references(each)]
        return [value["@id"]] if isinstance(value, dict) else []

    named = {name for e in entities.values() for value in e.values() for name in references(value)}
    assert named - set(entities) == {"https://w3id.org/ro/crate/1.1"}
    assert (
        archive(published, status=0)
        == f"of 1 folders with a {CRATE_FILE}, 1 have the files that it describes"
    )


def test_the_article_is_the_one_to_cite() -> None:
    article = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))["preferred-citation"]
    assert ARTICLE["@id"] == f"https://doi.org/{article['doi']}"
    assert ARTICLE["name"] == article["title"]
    for part in (*(a["family-names"] for a in article["authors"]), article["journal"], article["year"]):
        assert str(part) in ARTICLE["creditText"]


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def _edit(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    def edited(folder: Path) -> None:
        crate = json.loads((folder / CRATE_FILE).read_text("utf-8"))
        change({entity["@id"]: entity for entity in crate["@graph"]})
        (folder / CRATE_FILE).write_text(json.dumps(crate), "utf-8")

    return edited


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda f: _flip(f / "steps.parquet"), "steps.parquet has been changed: its SHA-256 is not"),
        (lambda f: (f / "steps.parquet").unlink(), "steps.parquet is missing"),
        (lambda f: (f / "steps.parquet").write_bytes(b"PAR1"), "has 4 bytes, in the description"),
        (lambda f: (f / CRATE_FILE).write_bytes(b"\xff"), f"{CRATE_FILE} is damaged: it is not JSON"),
        (lambda f: (f / CRATE_FILE).write_text("[" * 10**5), "nested too deeply"),
        (lambda f: (f / CRATE_FILE).write_text("[]"), f"{CRATE_FILE} is damaged: "),
        (lambda f: (f / CRATE_FILE).write_text('{"@graph": []}'), "it names no file"),
        (_edit(lambda e: e["steps.parquet"].update({"@id": "../sweep/sweep.json"})), "is not the name of a file"),
        (_edit(lambda e: e["steps.parquet"].pop("sha256")), "has no checksum in the description"),
    ],
)  # fmt: skip
def test_verify_names_what_does_not_match(
    damage: Callable[[Path], object], sentence: str, published: Path
) -> None:
    damage(published)
    faults = crate_faults(published)
    assert faults is not None
    (fault,) = faults
    assert sentence in fault
    assert fault in archive(published)


def test_a_crate_that_is_a_folder_or_a_pipe_is_damaged(published: Path) -> None:
    (published / CRATE_FILE).unlink()
    (published / CRATE_FILE).mkdir()
    assert "it is no file of at most" in str(crate_faults(published))


def test_a_published_folder_without_a_crate_stays_readable(published: Path) -> None:
    (published / CRATE_FILE).unlink()
    assert crate_faults(published) is None
    status, text = run("verify", published, "--against", published)
    assert status == 0, text
    assert "archive" not in text
