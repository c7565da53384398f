"""Plant each known fault in fxcheck and see that the test named for it fails: a table of what was killed, by what, in what time.

    python tools/planted_faults.py [--only NAME] [--report FILE.md]

Exit status 1 if a fault survives, merely crashes, or if a named test fails without any fault.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.soundness.faults import CRASHED, FAULTS, VARIABLE, Fault  # noqa: E402

_OUTCOMES = {0: "survived", 1: "killed", CRASHED: "crashed"}
_COLUMNS = ("fault", "what", "theory", "outcome", "killed by", "seconds")


@dataclass(frozen=True)
class Trial:
    """One fault, planted."""

    fault: Fault
    outcome: str
    seconds: float
    output: str

    @property
    def is_killed(self) -> bool:
        return self.outcome == "killed"

    @property
    def cells(self) -> tuple[str, ...]:
        f = self.fault
        return f.name, f.what, f.section, self.outcome, f.killer.removeprefix("tests/"), f"{self.seconds:.1f}"


def run_tests(nodes: Sequence[str], fault: str = "") -> tuple[int, str]:
    """(exit status, output) of pytest on some nodes in a process of its own, with a fault in force or without."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "--no-header", "-p", "no:cacheprovider",
               "-p", "tests.soundness.faults", *nodes]  # fmt: skip
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, VARIABLE: fault},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    return done.returncode, done.stdout


def try_fault(fault: Fault) -> Trial:
    """Run the fault's killer with the fault in force."""
    started = time.perf_counter()
    status, output = run_tests([fault.killer], fault.name)
    return Trial(fault, _OUTCOMES.get(status, f"pytest exit {status}"), time.perf_counter() - started, output)


def rich_table(trials: Sequence[Trial]) -> Table:
    """The trials for a terminal; survivors in red."""
    table = Table(*_COLUMNS, title=_summary(trials))
    for trial in trials:
        table.add_row(*trial.cells, style="" if trial.is_killed else "bold red")
    return table


def markdown(trials: Sequence[Trial]) -> str:
    """The same for a file."""
    lines = ["# Planted faults", "", _summary(trials), "", _line(_COLUMNS), _line(["---"] * len(_COLUMNS))]
    return "\n".join([*lines, *(_line(t.cells) for t in trials), ""])


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |"


def _summary(trials: Sequence[Trial]) -> str:
    return f"{sum(t.is_killed for t in trials)} of {len(trials)} planted faults killed by the test named for each"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=[f.name for f in FAULTS], metavar="NAME", help="repeatable")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write the table as Markdown")
    parser.add_argument(
        "--verbose", action="store_true", help="print what pytest said about faults that were not killed"
    )
    options = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 200)
    chosen = [f for f in FAULTS if not options.only or f.name in options.only]
    status, output = run_tests(list(dict.fromkeys(f.killer for f in chosen)))
    if status:
        console.print(output, "the named tests must pass without a fault", markup=False)
        return 1
    progress = Console(stderr=True)
    trials = [try_fault(f) for f in track(chosen, "planting", console=progress, disable=not progress.is_terminal)]
    console.print(rich_table(trials))
    if options.report:
        options.report.write_text(markdown(trials))
    for trial in trials if options.verbose else ():
        if not trial.is_killed:
            console.rule(trial.fault.name)
            console.print(trial.output, markup=False)
    return 0 if all(t.is_killed for t in trials) else 1


if __name__ == "__main__":
    sys.exit(main())
