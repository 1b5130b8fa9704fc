"""Makes a lost or damaged ``sweep.json`` anew, from the rows of the folder's trials."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from reproduce.plan.search_space import recipe_values
from reproduce.store.grid import grid_names, grid_of
from reproduce.store.manifest import (
    MANIFEST_FILE,
    ArtifactError,
    Manifest,
    ManifestTrial,
    inputs_key,
    load_json,
)
from reproduce.store.parquet import read_trials
from reproduce.store.row_spec import spec_of
from reproduce.store.trial_row import TRIAL_COLUMNS


def restore_manifest(root: Path) -> str | None:
    """Rebuild the manifest of a folder that the caller holds for writing, if it needs to be rebuilt.

    It then lists the trials with rows; a run of their space adds those without.

    Returns:
        What was done, in a sentence; None if nothing had to be done.

    Raises:
        ArtifactError: it is a folder, or the rows have several recipes.
    """
    path = root / MANIFEST_FILE
    if path.is_dir():
        raise ArtifactError(
            f"{path} is a folder, where a sweep has a file: remove it, and the same command rebuilds the file"
        )
    what = f"{path} is lost"
    if path.is_file():
        try:
            load_json(path, Manifest, ArtifactError)
        except ArtifactError as error:
            what = str(error)
        else:
            return None
    manifest = _from_rows(root) if (root / "trials").is_dir() else None
    if manifest is not None:
        manifest.write(path)
        return f"{what}; it was rebuilt from the rows of {len(manifest.trials):,} trials"
    if path.is_file():
        path.unlink()
        return f"{what}; the folder has no trials, and begins anew"
    return None


def _from_rows(root: Path) -> Manifest | None:
    frame = read_trials([root]).frame
    names = grid_names(frame)
    found = {
        row["run_id"]: spec
        for row in frame.select(*TRIAL_COLUMNS).iter_rows(named=True)
        if (spec := spec_of(row))
    }
    specs = {
        run_id: replace(
            spec,
            factors=replace(spec.factors, grid=tuple((name, getattr(spec.recipe, name)) for name in names)),
        )
        for run_id, spec in found.items()
    }
    if not specs:
        return None
    grid = grid_of(specs.values())
    recipes = [
        {k: v for k, v in recipe_values(spec.recipe).items() if k not in grid} for spec in specs.values()
    ]
    if any(recipe != recipes[0] for recipe in recipes):
        raise ArtifactError(
            f"{root / MANIFEST_FILE} cannot be rebuilt: the rows of {root} have more than one recipe"
        )
    space = next(iter(specs.values())).space
    manifest = Manifest(space=space, recipe=recipes[0], grid=grid, inputs={}, trials=[])
    for run_id, spec in specs.items():
        entry = ManifestTrial.of(spec, grid).model_copy(update={"run_id": run_id})
        manifest.inputs[inputs_key(entry, manifest.recipe)] = spec.inputs.identity()
        manifest.trials.append(entry)
    return manifest
