"""What an artifact folder accepts when its sweep is continued."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from reproduce.plan.search_space import recipe_values
from reproduce.plan.spec import TrialSpec
from reproduce.store.artifacts import ArtifactError, prepare_folder, read_folder
from tests.support.old_folders import specs


def with_separator(spec: TrialSpec, separator: str) -> TrialSpec:
    return replace(spec, inputs=replace(spec.inputs, pair_separator=separator))


@pytest.mark.parametrize(("before", "now"), [("", "\n"), ("\n", ""), ("\n", " ")])
def test_a_value_that_only_one_identity_has_is_a_difference(before: str, now: str, tmp_path: Path) -> None:
    # An identity omits the separator where there is none, as those of folders from before it do.
    spec = specs()[0]
    recipe = recipe_values(spec.recipe)
    prepare_folder(tmp_path, [with_separator(spec, before)], recipe)
    prepare_folder(tmp_path, [with_separator(spec, before)], recipe)
    names = {"": "none", "\n": r"'\\n'", " ": "' '"}
    message = rf"with another pair_separator \({names[before]} there, {names[now]} now\): .*--accept-inputs"
    with pytest.raises(ArtifactError, match=message):
        prepare_folder(tmp_path, [with_separator(spec, now)], recipe)
    prepare_folder(tmp_path, [with_separator(spec, now)], recipe, accept_inputs=True)
    assert [entry.run_id for entry in read_folder(tmp_path).listed] == [with_separator(spec, now).run_id]


def test_a_long_key_of_a_manifest_is_not_quoted_in_full(tmp_path: Path) -> None:
    (tmp_path / "trials").mkdir()
    content = {"space": "a", "recipe": {}, "inputs": {"9" * 5000: None}, "trials": []}
    (tmp_path / "sweep.json").write_text(json.dumps(content))
    with pytest.raises(ArtifactError, match=r"is damaged: inputs.9{73} = None: ") as caught:
        read_folder(tmp_path)
    assert len(str(caught.value)) < 400
