"""Recipe values that a space varies: trials of other recipes, which the grid only lists."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from lfreeze.data.loading import load_task
from lfreeze.errors import InputError
from reproduce.plan.cost import assumptions, plan_space
from reproduce.plan.inputs import find_inputs, trial_specs
from reproduce.plan.search_space import SearchSpace, load_space

BASE = 'extends = "embedded"\ntasks = ["tiny-cb"]\nstrategies = ["ALL", "BOT50"]\nseeds = [1, 2]\n'
RATES = "[grid]\nlearning_rate = [3e-4, 1e-3]\n"


def space(tmp_path: Path, text: str, overrides: Mapping[str, str] | None = None) -> SearchSpace:
    (tmp_path / "mine.toml").write_text(BASE + text)
    return load_space(str(tmp_path / "mine.toml"), {}, overrides)


def ids(of: SearchSpace) -> dict[str, str]:
    return {str(spec.factors): spec.run_id for spec in trial_specs(of, find_inputs(of))}


def test_a_point_is_the_trial_of_that_recipe(tmp_path: Path) -> None:
    """The same run id as without a grid, and a name of its own."""
    grid = ids(space(tmp_path, RATES))
    assert len(grid) == len(set(grid.values())) == 8
    for rate in ("0.0003", "0.001"):
        alone = ids(space(tmp_path, "", {"learning_rate": rate}))
        assert {
            f"{name}/learning_rate={rate}": run_id for name, run_id in alone.items()
        }.items() <= grid.items()


def test_several_keys_are_every_combination(tmp_path: Path) -> None:
    both = space(tmp_path, '[grid]\nsteps = [10, 20]\nlora_targets = [["q_proj"], ["q_proj", "v_proj"]]\n')
    assert list(both.recipes) == [
        (("steps", steps), ("lora_targets", targets))
        for steps in (10, 20)
        for targets in (("q_proj",), ("q_proj", "v_proj"))
    ]
    assert {(r.steps, r.lora_targets) for r in both.recipes.values()} == {
        (steps, targets) for steps in (10, 20) for targets in (("q_proj",), ("q_proj", "v_proj"))
    }
    planned = plan_space(both, assumptions(both))
    assert len(planned) == len({trial.factors for trial in planned}) == 4 * 2 * 2
    # Twice the steps cost more; the names of the adapted modules cost ALL nothing.
    seconds = {(t.factors.strategy, t.factors.seed, *t.factors.grid): t.seconds for t in planned}
    for (strategy, seed, steps, targets), time in seconds.items():
        if steps == ("steps", 20):
            assert time > 1.2 * seconds[strategy, seed, ("steps", 10), targets]


def test_a_value_given_apart_takes_the_place_of_the_list(tmp_path: Path) -> None:
    whole = ids(space(tmp_path, RATES))
    narrowed = space(tmp_path, RATES, {"learning_rate": "1e-3"})
    assert not narrowed.grid
    assert set(ids(narrowed).values()) < set(whole.values())
    (tmp_path / "child.toml").write_text('extends = "mine.toml"\n[recipe]\nlearning_rate = 1e-3\n')
    assert ids(load_space(str(tmp_path / "child.toml"))) == ids(narrowed)
    wider = load_space(str(tmp_path / "mine.toml"), {}, grid={"learning_rate": ["1e-3", "2e-3"]})
    assert wider.grid == {"learning_rate": (0.001, 0.002)}
    with pytest.raises(InputError, match="--set learning_rate and --grid learning_rate exclude each other"):
        load_space(
            str(tmp_path / "mine.toml"), {}, {"learning_rate": "1"}, grid={"learning_rate": ["1", "2"]}
        )


def test_values_that_select_texts_have_data_of_their_own(tmp_path: Path) -> None:
    sizes = space(tmp_path, '[grid]\nmax_train_examples = [20, 40]\ndata_seed = [0, "trial"]\n')
    inputs = find_inputs(sizes)
    for spec in trial_specs(sizes, inputs):
        recipe, seed = spec.recipe, spec.factors.seed
        expected = load_task("tiny-cb", recipe.max_train_examples, recipe.drawing_seed(seed))
        assert inputs.data["tiny-cb"][spec.factors.data_key].fingerprint == expected.fingerprint
        assert spec.inputs.dataset_fingerprint == expected.fingerprint
        assert len(expected.train) == recipe.max_train_examples


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[grid]\nrate = [1, 2]\n", "unknown recipe value 'rate' in [grid]; known are batch_size"),
        ("[grid]\nlearning_rate = [1e-3, 0.001]\n", "[grid] lists learning_rate = 0.001 twice"),
        ("[grid]\nlearning_rate = [1, 1.0]\n", "[grid] lists learning_rate = 1.0 twice"),
        ("[grid]\nlearning_rate = []\n", "grid = {'learning_rate': []} is not a table with a list of values"),
        ("[grid]\nlearning_rate = 1e-3\n", "is not a table with a list of values for each key"),
        ("[grid]\nlearning_rate = [1e-3, -1.0]\n", "learning_rate = -1.0 is below 0"),
        ("[grid]\nlearning_rate = [1e-3, 'fast']\n", "learning_rate = 'fast' is not a number"),
        ("[grid]\nsteps = [100, 1.5]\n", "steps = 1.5 is not of type int"),
        ("[grid]\nmicro_batch_size = [8, 64]\n", "micro_batch_size = 64 is above batch_size = 32"),
        (
            "[grid]\nbatch_size = [8, 16]\n[recipe]\nbatch_size = 8\n",
            "batch_size is in [recipe] and in [grid]",
        ),
    ],
)
def test_bad_grids_are_refused(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as raised:
        space(tmp_path, text)
    assert message in str(raised.value)


def test_a_strategy_must_fit_every_point(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(
        'extends = "embedded"\nstrategies = ["ADT-L50"]\n[grid]\nsteps = [100, 5]\n'
    )
    with pytest.raises(InputError, match="ADT-L50 needs steps above probe_steps = 5, not 5"):
        load_space(str(tmp_path / "mine.toml"))
