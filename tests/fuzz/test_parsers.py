"""Every parser of what people write or files hold, on input that nobody wrote: a value, or one sentence.

By default some dozen inputs each, always the same. ``LFREEZE_FUZZ=100000`` tries as many others.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tomli_w
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lfreeze.data.rows import read_archived, read_parquet
from lfreeze.data.tasks import get_task
from lfreeze.errors import InputError
from lfreeze.model_shape import ModelShape, has_formula
from lfreeze.models.files import read_model_config
from lfreeze.models.formats import require_full_precision
from lfreeze.recipe import Recipe, coerce, field_types
from lfreeze.strategy import Strategy, kinds
from reproduce.plan.search_space import load_space
from reproduce.plan.shards import parse_shard
from reproduce.run.gpu_share import parse_share
from reproduce.store.artifacts import read_folder
from reproduce.store.contents import checked_contents
from reproduce.store.inputs_lock import read_lock
from reproduce.store.parquet import write_trial
from reproduce.store.schema import TRIAL_SCHEMA
from reproduce.store.trial_row import SCHEMA_VERSION
from tests.reproduce.store.test_parquet import result, row
from tests.support.checkpoints import MINICPM

ROOT = Path(__file__).parents[2]
MANY = os.environ.get("LFREEZE_FUZZ", "")
# Longest message: what is quoted is cut, lists of what is accepted are not.
LONGEST = 2000


def tries(default: int) -> Any:
    return settings(
        max_examples=int(MANY or default),
        derandomize=not MANY,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


def parses(parse: Callable[[], Any]) -> Any:
    """What a parser makes of its input; None if it refuses it in one sentence."""
    try:
        return parse()
    except InputError as error:
        text = str(error)
        assert text
        assert "\n" not in text
        assert len(text) <= LONGEST, text
        return None


numbers = st.one_of(
    st.integers(),
    st.integers(-(2**70), 2**70),
    st.sampled_from([0, -1, 1, 2**31, 2**63, -(2**63) - 1, 10**9, 10**30, 1 << 10_000]),
    st.floats(),
)
texts = st.one_of(
    st.text(max_size=20),
    st.text(string.printable, max_size=20),
    st.sampled_from(
        ["", "\0", "٢٥", "9" * 5000, "x" * 300, "~a/b", "/", "..", "\ud800", "1e999", "nan", "-0"]
    ),
    st.integers().map(str),
    st.floats().map(str),
)
scalars = st.one_of(st.none(), st.booleans(), numbers, texts)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=8,
)


def changed(original: bytes) -> st.SearchStrategy[bytes]:
    """The bytes of a sound file with some replaced, inserted, removed or doubled."""
    place = st.integers(0, max(len(original) - 1, 0))
    change = st.tuples(place, st.integers(0, 12), st.binary(max_size=6))

    def apply(changes: list[tuple[int, int, bytes]]) -> bytes:
        content = original
        for start, length, new in changes:
            content = content[:start] + new + content[start + length :]
        return content

    return st.one_of(
        st.binary(max_size=200),
        st.lists(change, min_size=1, max_size=4).map(apply),
        place.map(lambda end: original[:end]),
        place.map(lambda start: original[start:] + original[:start]),
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


LABELS = [*kinds(), "adt-l", "INT", "BOT-"]


@tries(40)
@given(
    st.one_of(
        texts,
        st.tuples(st.sampled_from(LABELS), texts | numbers.filter(lambda n: n < 2**70).map(str)).map("".join),
    )
)
def test_strategy_names(text: str) -> None:
    strategy = parses(lambda: Strategy.parse(text))
    if strategy is not None:
        assert Strategy.parse(strategy.name) == strategy
        assert len(strategy.name) < 30
        parses(lambda: strategy.frozen_count(32))


SOUND = dataclasses.asdict(load_space("embedded").recipe)


@tries(40)
@given(st.dictionaries(st.sampled_from(sorted(SOUND)) | texts, values, min_size=1, max_size=3))
def test_recipe_values(changes: dict[str, Any]) -> None:
    recipe = parses(lambda: Recipe.from_mapping(SOUND | changes))
    if recipe is not None:
        # What is accepted fits the columns of a row.
        for name, value in dataclasses.asdict(recipe).items():
            if not (name == "data_seed" and value == "trial"):
                pl.Series([value], dtype=TRIAL_SCHEMA[f"recipe_{name}"])


@tries(40)
@given(st.sampled_from(sorted(SOUND)), texts | numbers.filter(lambda n: n < 2**70).map(str))
def test_values_of_set(name: str, text: str) -> None:
    value = parses(lambda: coerce(name, text))
    if value is not None:
        parses(lambda: Recipe.from_mapping(SOUND | {name: value}))


@tries(25)
@given(texts)
def test_other_options(text: str) -> None:
    parses(lambda: parse_shard(text))
    parses(lambda: parse_share(text))
    for axis in ("models", "tasks", "strategies", "seeds"):
        parses(lambda axis=axis: load_space("embedded", {axis: [text]}))
    parses(lambda: load_space(text))


KEYS = [
    "extends",
    "description",
    "weights",
    "exclusive",
    "gpu",
    "models",
    "tasks",
    "strategies",
    "seeds",
    "recipe",
    "grid",
]
EMBEDDED = (ROOT / "search_spaces" / "embedded.toml").read_bytes()
tables = st.dictionaries(st.sampled_from(KEYS) | texts, values, max_size=4)


def _toml(content: dict[str, Any]) -> bytes:
    try:
        return tomli_w.dumps(content).encode()
    # Not everything can be written.
    except (AttributeError, TypeError, ValueError):
        return repr(content).encode(errors="replace")


@tries(25)
@given(st.one_of(changed(EMBEDDED), tables.map(lambda t: _toml({"extends": "embedded", **t}))))
def test_search_spaces(folder: Path, content: bytes) -> None:
    (folder / "space.toml").write_bytes(content)
    space = parses(lambda: load_space(str(folder / "space.toml")))
    if space is not None:
        assert len(space.factors()) <= 20_000


OWN = [
    "train",
    "validation",
    "dataset",
    "config",
    "revision",
    "splits",
    "validation_fraction",
    "text",
    "label",
    "labels",
]
SOURCE = {"train": "a.csv", "validation": "b.csv", "text": ["a", "b"], "label": "c"}


@tries(40)
@given(st.just("mine") | texts, st.dictionaries(st.sampled_from(OWN) | texts, values, max_size=3))
def test_tasks_of_ones_own(folder: Path, name: str, changes: dict[str, Any]) -> None:
    content = {"extends": "embedded", "tasks": {name: SOURCE | changes}}
    (folder / "own.toml").write_bytes(_toml(content))
    parses(lambda: load_space(str(folder / "own.toml")))


LINES = ["index\tsentence1\tsentence2\tlabel", "0\ta man\tsleeps\tentailment", "1\tb\tc\tnot_entailment"]
TSV = "\n".join(LINES).encode()
JSONL = b"\n".join(
    json.dumps({"premise": "a man", "hypothesis": "b", "label": label, "idx": i}).encode()
    for i, label in enumerate(("entailment", "contradiction", "neutral"))
)
pieces = st.lists(
    st.sampled_from(
        ["\t", "\n", "\r", '"', ",", "a", "\\", "label", "premise", "entailment", "{", "}", ":", "\0", "é"]
    )
)


@tries(15)
@given(st.one_of(changed(TSV), pieces.map(lambda p: TSV + b"\n" + "".join(p).encode())))
def test_tab_separated_and_csv_files(folder: Path, content: bytes) -> None:
    for name, text in (("a.tsv", content), ("a.csv", content.replace(b"\t", b","))):
        (folder / name).write_bytes(text)
        parses(lambda name=name: read_archived(get_task("rte"), folder / name))


@tries(15)
@given(
    st.one_of(
        changed(JSONL),
        st.dictionaries(st.sampled_from(["premise", "hypothesis", "label", "idx"]), values).map(
            lambda record: JSONL + b"\n" + json.dumps(record, default=str).encode(errors="replace")
        ),
    )
)
def test_json_lines(folder: Path, content: bytes) -> None:
    (folder / "a.jsonl").write_bytes(content)
    parses(lambda: read_archived(get_task("cb"), folder / "a.jsonl"))


def _parquet(folder: Path) -> bytes:
    columns = {"sentence1": ["a", "b"], "sentence2": ["c", "d"], "label": [0, 1], "idx": [0, 1]}
    pq.write_table(pa.table(columns), folder / "sound.parquet")
    return (folder / "sound.parquet").read_bytes()


columns = st.one_of(
    st.lists(st.integers(-3, 3) | st.none(), min_size=2, max_size=2),
    st.lists(st.text(max_size=3) | st.none(), min_size=2, max_size=2),
    st.lists(st.lists(st.integers(0, 9), max_size=2), min_size=2, max_size=2),
    st.lists(st.binary(max_size=3), min_size=2, max_size=2),
    st.lists(st.dates(), min_size=2, max_size=2),
)


@tries(15)
@given(st.data())
def test_parquet_files_of_a_task(folder: Path, data: st.DataObject) -> None:
    path = folder / "a.parquet"
    if data.draw(st.booleans()):
        path.write_bytes(data.draw(changed(_parquet(folder))))
    else:
        names = st.sampled_from(["sentence1", "sentence2", "label", "idx", "other"])
        pq.write_table(pa.table(data.draw(st.dictionaries(names, columns, min_size=1))), path)
    parses(lambda: read_parquet(get_task("rte"), [path]))


GEMMA = json.loads((ROOT / "lfreeze" / "configs" / "gemma-2b.json").read_text("utf-8"))
sections = st.sampled_from(
    ["quantization_config", "text_config", "architectures", "model_type", "head_dim", "n_layer"]
)


@tries(40)
@given(
    st.one_of(
        changed(json.dumps(GEMMA).encode()),
        st.tuples(
            st.sampled_from([GEMMA, MINICPM, GEMMA | {"model_type": "opt"}]),
            st.dictionaries(st.sampled_from(sorted(GEMMA)) | sections | texts, values, max_size=3),
        ).map(lambda pair: json.dumps(pair[0] | pair[1], default=str).encode(errors="replace")),
    )
)
def test_model_configurations(folder: Path, content: bytes) -> None:
    (folder / "config.json").write_bytes(content)
    config = parses(lambda: read_model_config("m", folder / "config.json"))
    if config is not None:
        parses(lambda: require_full_precision("m", config))
        if has_formula(config) and (shape := parses(lambda: ModelShape.from_config(config))):
            assert 0 < shape.parameters(2) < 2**90


@pytest.fixture(scope="module")
def sound(folder: Path) -> Path:
    """An artifact folder of one trial."""
    root = folder / "sound"
    write_trial(
        root, result(schema_version=SCHEMA_VERSION, recipe_steps=2, n_validation=1, validation_accuracy=0.0)
    )
    trial = {name: row()[name] for name in ("model", "task", "strategy", "seed", "run_id")}
    manifest = {
        "space": "test",
        "recipe": {"steps": 2},
        "inputs": {"m/t": {"model_id": "m"}},
        "trials": [trial],
    }
    (root / "sweep.json").write_text(json.dumps(manifest))
    lock = {"version": 1, "models": {"m": {"model_id": "m", "weights_hash": "w", "tokenizer_hash": "t"}}}
    (root / "inputs.lock.toml").write_text(tomli_w.dumps(lock))
    assert not checked_contents(read_folder(root).table).damaged
    assert read_lock(root).models
    return root


def _damaged(sound: Path, file: str, data: st.DataObject) -> Path:
    """A copy of the folder in which one file has other bytes."""
    root = sound.parent / "damaged"
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(sound, root)
    (path,) = root.glob(file)
    path.write_bytes(data.draw(changed(path.read_bytes())))
    return root


def _contents(root: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@tries(40)
@given(st.sampled_from(["trials", "steps", "predictions"]), st.data())
def test_files_of_a_trial(sound: Path, table: str, data: st.DataObject) -> None:
    root = _damaged(sound, f"{table}/*/*/*/*.parquet", data)
    before = _contents(root)
    state = read_folder(root)
    checked = checked_contents(state.table)
    assert checked.frame.height + len(checked.damaged) >= 1
    assert _contents(root) == before


@tries(40)
@given(st.dictionaries(st.sampled_from(sorted(TRIAL_SCHEMA)), scalars, min_size=1, max_size=3))
def test_rows_of_other_values(sound: Path, changes: dict[str, Any]) -> None:
    root = sound.parent / "rows"
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(sound, root)
    (path,) = root.glob("trials/*/*/*/*.parquet")
    frame = pl.read_parquet(path, hive_partitioning=False)
    for name, value in changes.items():
        try:
            frame = frame.with_columns(pl.Series(name, [value]))
        # No column holds it.
        except (OverflowError, TypeError, UnicodeEncodeError, pl.exceptions.PolarsError):
            return
    frame.write_parquet(path)
    table = checked_contents(read_folder(root).table)
    assert table.frame.height + len(table.damaged) >= 1


@tries(40)
@given(st.data())
def test_manifests(sound: Path, data: st.DataObject) -> None:
    root = _damaged(sound, "sweep.json", data)
    parses(lambda: read_folder(root))


@tries(40)
@given(st.dictionaries(st.sampled_from(["space", "recipe", "inputs", "trials", "other"]), values))
def test_manifests_of_other_values(sound: Path, content: dict[str, Any]) -> None:
    root = sound.parent / "manifest"
    (root / "trials").mkdir(parents=True, exist_ok=True)
    present = json.loads((sound / "sweep.json").read_text())
    (root / "sweep.json").write_bytes(json.dumps(present | content, default=str).encode(errors="replace"))
    parses(lambda: read_folder(root))


@tries(25)
@given(st.data())
def test_input_locks(sound: Path, data: st.DataObject) -> None:
    parses(lambda: read_lock(_damaged(sound, "inputs.lock.toml", data)))


def test_every_recipe_value_is_fuzzed() -> None:
    assert set(SOUND) == set(field_types())
