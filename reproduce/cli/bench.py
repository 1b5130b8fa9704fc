"""The command ``reproduce bench``."""

from __future__ import annotations

from pathlib import Path

import click

from reproduce.cli.options import DATA_DIR, PATH


@click.command(short_help="Measure speed and memory, each as a ratio.")
@click.argument("names", nargs=-1)
@click.option("--quick", is_flag=True, help="Tiny sizes and few repetitions, to see that everything works.")
@click.option(
    "--out",
    type=PATH,
    default=Path("artifacts/bench"),
    show_default=True,
    help="Folder for the results; those of other benchmarks in it are kept.",
)
@click.option("--pairs", type=click.IntRange(min=1), help="How often both parts of a ratio are measured.")
@DATA_DIR
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
def bench(
    names: tuple[str, ...], quick: bool, out: Path, pairs: int | None, data_dir: Path | None, as_json: bool
) -> None:
    """Run the benchmarks NAMES, all by default, and write a file for each, a table and a picture.

    Each is a ratio of two things that are measured in one run, in alternating pairs: the machine should have
    nothing else to do.

    \b
    Example:
      reproduce bench --quick
      reproduce bench strategies loop --data-dir shared/data
    """
    from reproduce.bench.run import run_benchmarks

    run_benchmarks(names, out, quick=quick, data_dir=data_dir, pairs=pairs, print_json=as_json)
