"""Tables of own tasks in a space: what they describe, how they are inherited, and which are refused."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import jsonschema
import pytest

from lfreeze.data.tasks import TASKS, Hosted, TaskError
from reproduce.plan.cost import assumptions, plan_space
from reproduce.plan.inputs import find_inputs, trial_specs
from reproduce.plan.keys import SpaceError
from reproduce.plan.search_space import load_space
from reproduce.plan.space_file import space_schema

HEAD = 'extends = "embedded"\nmodels = ["tiny-gemma"]\nstrategies = ["ALL"]\nseeds = [1, 2]\n'
KEYS = 'text = "review"\nlabel = "stars"\n'


def write(folder: Path, name: str, table: str, head: str = HEAD) -> str:
    (folder / name).write_text(f"{head}{table}")
    return str(folder / name)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = "".join(f'{i},"text, {i}",{i % 3}\n' for i in range(60))
    (tmp_path / "a.csv").write_text(f"n,review,stars\n{rows}")
    (tmp_path / "b.csv").write_text(f"n,review,stars\n{rows[:200]}".rsplit("\n", 1)[0] + "\n")
    return tmp_path


def test_files_are_beside_the_spaces_file_and_are_read_for_the_plan(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = f'[tasks.mine]\ntrain = "a.csv"\nvalidation_fraction = 0.1\n{KEYS}[tasks.tiny-cb]\n'
    path = write(folder, "s.toml", table)
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    space = load_space(path)
    assert list(space.tasks) == ["mine", "tiny-cb"]
    mine = space.tasks["mine"]
    assert (mine.labels, mine.n_train, mine.n_validation) == (("0", "1", "2"), 54, 6)
    assert space.tasks["tiny-cb"] is TASKS["tiny-cb"]
    assert len(plan_space(space, assumptions(space))) == len(space.factors()) == 4
    jsonschema.validate(tomllib.loads(Path(path).read_text()), space_schema())


def test_a_space_that_extends_another_selects_and_replaces_its_tasks(folder: Path) -> None:
    both = f'[tasks.one]\ntrain = "a.csv"\nvalidation = "b.csv"\n{KEYS}'
    write(folder, "base.toml", both + both.replace("one", "two"))
    (folder / "sub").mkdir()
    child = write(folder, "child.toml", 'tasks = ["two"]\n', 'extends = "base.toml"\n')
    assert list(load_space(child).tasks) == ["two"]
    assert list(load_space(child, {"tasks": ["one", "tiny-rte"]}).tasks) == ["one", "tiny-rte"]
    replaced = write(
        folder,
        "again.toml",
        f'[tasks.two]\ntrain = "b.csv"\nvalidation_fraction = 0.5\n{KEYS}',
        'extends = "base.toml"\n',
    )
    assert load_space(replaced).tasks["two"].n_train < 10
    with pytest.raises(TaskError, match="unknown task 'three'; known are one, two, rte"):
        load_space(child, {"tasks": ["three"]})


def test_a_list_selects_and_orders_tasks_beside_their_tables(folder: Path) -> None:
    one = f'[tasks.one]\ntrain = "a.csv"\nvalidation = "b.csv"\n{KEYS}'
    two = one.replace("one", "two")
    listed = write(folder, "s.toml", f'tasks = [\n  "two",  # first\n  "tiny-cb",\n]\n{one}{two}')
    assert list(load_space(listed).tasks) == ["two", "tiny-cb"]
    unknown = write(folder, "u.toml", f"tasks = ['three']\n{one}")
    with pytest.raises(TaskError, match="unknown task 'three'; known are one, rte"):
        load_space(unknown)
    wrong = write(folder, "w.toml", f"tasks = 3\n{one}")
    with pytest.raises(SpaceError, match="tasks = 3 is not a list of names"):
        load_space(wrong)


def test_run_ids_depend_on_the_texts_and_on_what_is_drawn(folder: Path) -> None:
    def ids(table: str, **recipe: str) -> list[str]:
        space = load_space(write(folder, "s.toml", f"[tasks.mine]\n{table}{KEYS}"), {}, recipe)
        return [spec.run_id for spec in trial_specs(space, find_inputs(space))]

    drawn = 'train = "a.csv"\nvalidation_fraction = 0.2\n'
    first = ids(drawn)
    assert ids(drawn) == first
    assert not {*ids(drawn, data_seed="1")} & {*first}
    assert not {*ids('train = "a.csv"\nvalidation = "b.csv"\n')} & {*first}
    (folder / "a.csv").write_text((folder / "a.csv").read_text().replace("text, 5", "text; 5"))
    assert not {*ids(drawn)} & {*first}
    assert len({*first}) == 2
    # With data_seed = "trial", each seed draws its own validation examples.
    space = load_space(str(folder / "s.toml"), {}, {"data_seed": "trial"})
    assert len({data.fingerprint for data in find_inputs(space).every_data()}) == 2


def test_a_dataset_that_is_not_downloaded_is_planned_with_assumed_sizes(tmp_path: Path) -> None:
    source = '[tasks.mine]\ndataset = "org/texts"\nconfig = "en"\nrevision = "v2"\n'
    space = load_space(write(tmp_path, "s.toml", source + KEYS))
    task = space.tasks["mine"]
    assert task.hosted == Hosted("org/texts", "v2", "en", ("train", "validation"), ("review",))
    assert (task.dataset_id, task.labels) == ("org/texts/en", ())
    assert all(trial.training_bytes > 0 for trial in plan_space(space, assumptions(space)))


FILES = 'train = "a.csv"\nvalidation = "b.csv"\n'


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (f"[tasks.rte]\n{FILES}{KEYS}", "[tasks.rte] has the name of a built-in task: choose another one"),
        (
            f"[tasks.'a b']\n{FILES}{KEYS}",
            "[tasks.a b]: a task's name consists of up to 100 letters, digits, hyphens",
        ),
        (
            f"[tasks.mine]\ntrian = 'x'\n{KEYS}",
            "[tasks.mine]: unknown key 'trian'; known are train, validation",
        ),
        (f"[tasks.mine]\n{FILES}text = 'a'\n", "[tasks.mine] lacks the key label"),
        (
            f"[tasks.mine]\n{FILES}{KEYS}labels = ['x']\n",
            "labels = ['x'] is not a list of two labels or more",
        ),
        (f"[tasks.mine]\n{FILES}{KEYS}labels = ['x', 'x']\n", "labels has a label twice"),
        (
            f"[tasks.mine]\n{FILES}label = 'y'\ntext = []\n",
            "text = [] is not the name of a column, or a list",
        ),
        (
            f"[tasks.mine]\n{FILES}label = 'y'\ntext = ['y', 'x']\n",
            "text and label must be different columns",
        ),
        (
            f"[tasks.mine]\n{KEYS}",
            "[tasks.mine] needs the key train (a file) or dataset (on the hub), and not both",
        ),
        (f"[tasks.mine]\n{FILES}dataset = 'a/b'\n{KEYS}", "needs the key train (a file) or dataset"),
        (
            f"[tasks.mine]\ntrain = 'a.csv'\n{KEYS}",
            "needs the key validation (a file) or validation_fraction",
        ),
        (
            f"[tasks.mine]\n{FILES}validation_fraction = 0.1\n{KEYS}",
            "needs the key validation (a file) or validation_fraction, and not both",
        ),
        (
            f"[tasks.mine]\ntrain = 'a.csv'\nvalidation_fraction = 1.5\n{KEYS}",
            "validation_fraction = 1.5 is not a number between 0 and 1",
        ),
        (
            f"[tasks.mine]\n{FILES}splits = ['a']\n{KEYS}",
            "has splits, which goes with dataset, not with train",
        ),
        (
            f"[tasks.mine]\ndataset = 'a/b'\nvalidation = 'b.csv'\n{KEYS}",
            "has a validation file, which goes with",
        ),
        (
            f"[tasks.mine]\ndataset = 'a/b'\nsplits = ['train']\n{KEYS}",
            "needs two names in splits, or one name and",
        ),
        (
            "[tasks]\nmine = 3\n",
            "tasks = {'mine': 3} is not a list of names, or a table [tasks.NAME] for each",
        ),
    ],
)
def test_each_refusal_is_one_sentence(table: str, message: str, folder: Path) -> None:
    path = write(folder, "s.toml", table)
    with pytest.raises(SpaceError, match=re.escape(message)) as error:
        load_space(path)
    assert str(error.value).startswith(f"search space {path!r}: ")
    assert "\n" not in str(error.value)


def test_a_file_that_cannot_be_used_is_refused_before_anything_is_planned(folder: Path) -> None:
    path = write(folder, "s.toml", f'[tasks.mine]\n{FILES}text = "reviews"\nlabel = "stars"\n')
    with pytest.raises(
        TaskError, match=r"a.csv: no column reviews; it has n, review, stars, task mine needs"
    ):
        load_space(path)
    assert list(load_space(path, {"tasks": ["tiny-cb"]}).tasks) == ["tiny-cb"]
