"""The long run: every fault many times, as a table.

``python -m tests.faults --repeats 10 --out artifacts/reference/faults``
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
from dataclasses import asdict
from pathlib import Path

from reproduce.store.artifacts import read_folder
from tests.faults.faults import FAULTS
from tests.faults.harness import Outcome, experiment, scratch, undisturbed
from tests.faults.sweep import N_TRIALS


def main() -> None:
    """Run the experiments, one after another, and write each outcome as it is known; a later run adds to them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[*FAULTS, []], help="faults; all by default")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("artifacts/faults"))
    arguments = parser.parse_args()
    # A shell's ``nohup`` would have the sweeps ignore it.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    arguments.out.mkdir(parents=True, exist_ok=True)
    log = arguments.out / "outcomes.jsonl"
    with scratch() as folder:
        baseline = arguments.out / "baseline"
        if not (baseline / "trials").is_dir() or read_folder(baseline).done < N_TRIALS:
            shutil.rmtree(baseline, ignore_errors=True)
            print(f"undisturbed: {undisturbed(baseline.resolve(), folder):.0f} s", flush=True)
        for name in arguments.names or FAULTS:
            for seed in range(arguments.first_seed, arguments.first_seed + arguments.repeats):
                outcome = experiment(FAULTS[name], seed, baseline, folder)
                words = "; ".join(outcome.faults) or (
                    "as it should be" if outcome.injected else "not injected"
                )
                print(f"{name}, {seed}: {outcome.finished_before} finished, {words}", flush=True)
                with log.open("a") as file:
                    file.write(
                        json.dumps(asdict(outcome) | {"output": outcome.output if outcome.faults else ""})
                        + "\n"
                    )
    outcomes = [Outcome(**json.loads(line)) for line in log.read_text().splitlines()]
    (arguments.out / "faults.md").write_text(table(outcomes))


def table(outcomes: list[Outcome]) -> str:
    """A line for each fault: how often it was injected and survived, and what was lost or differed."""
    lines = [
        "| fault | injected | survived | finished trials run again | numbers that differ | seconds to the end (most) |",
        "|---|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(outcome.fault for outcome in outcomes if outcome.injected):
        of = [outcome for outcome in outcomes if outcome.fault == name and outcome.injected]
        survived = sum(not outcome.faults for outcome in of)
        most = max((outcome.seconds_to_end for outcome in of), default=0.0)
        lost, different = sum(o.lost for o in of), sum(o.different for o in of)
        lines.append(f"| {name} | {len(of)} | {survived} | {lost} | {different} | {most:.0f} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
