"""The commands that check, publish and join artifact folders."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from reproduce.cli.options import PATH


@click.command(short_help="Check folders and compare them with a reference.")
@click.argument("folders", type=PATH, nargs=-1, required=True)
@click.option(
    "--against",
    "reference",
    type=PATH,
    help="Artifact folder, or published folder, to compare with.  [default: the published results of "
    "the folders' space, if there are any]",
)
@click.option("--partial", is_flag=True, help="Accept that FOLDERS lack trials of the --against folder.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of sentences.")
def verify(folders: tuple[Path, ...], reference: Path | None, partial: bool, as_json: bool) -> None:
    """Check that FOLDERS are complete and homogeneous, and that their numbers match the reference's.

    Several folders count as one, as `reproduce merge` would join them.

    On equal hardware and versions the numbers must be bitwise equal, otherwise within the stated
    tolerances. Exit status 1 if a check fails.

    \b
    Example:
      reproduce verify artifacts/embedded
      reproduce verify artifacts/paper --against a-colleagues-folder
    """
    from reproduce.cli.commands import verify_folders

    sys.exit(verify_folders(folders, reference, partial, as_json))


@click.command(short_help="Write the trials of folders into a few files.")
@click.argument("folders", type=PATH, nargs=-1, required=True)
@click.argument("out", type=PATH)
@click.option("--with-steps", "steps", is_flag=True, help="Include every training step, for loss curves.")
@click.option("--with-predictions", "predictions", is_flag=True, help="Include every prediction.")
@click.option(
    "--with-evaluations", "evaluations", is_flag=True, help="Include the evaluations during training."
)
@click.option("--incomplete", is_flag=True, help="Publish even if trials have no result.")
def publish(folders: tuple[Path, ...], out: Path, **options: bool) -> None:
    """Write the trials of FOLDERS into trials.parquet in the new folder OUT, to archive or share.

    Every command that reads an artifact folder also reads a published one. An RO-Crate describes the files,
    with their checksums, for an archive; `reproduce verify` compares them.

    \b
    Example:
      reproduce publish artifacts/embedded-full published/embedded-full
    """
    from reproduce.cli.commands import publish_folders

    publish_folders(folders, out, **options)


@click.command(short_help="Join artifact folders of one recipe.")
@click.argument("folders", type=PATH, nargs=-1, required=True)
@click.option("--into", type=PATH, required=True, help="Folder for the trials: a new one, or one to add to.")
def merge(folders: tuple[Path, ...], into: Path) -> None:
    """Join artifact FOLDERS of one recipe, such as those of shards, in one folder.

    Folders with another recipe, other inputs or other results of the same trial are refused before anything is
    written. FOLDERS are not changed.

    \b
    Example:
      reproduce merge artifacts/shard-1 artifacts/shard-2 --into artifacts/embedded
    """
    from reproduce.cli.commands import merge_folders

    merge_folders(folders, into)
