"""Hunt for a step that is certified and wrong: random tiny networks, each with many weights and inputs, beside an oracle.

``python tools/soundness.py --minutes 10 --jobs 2``; exit status 1 when something was found (its smallest form is then
written as a test into --out), 2 for bad input, else 0. It ends at --minutes or --cases, whichever comes first, or at
Ctrl-C, and prints what there is; files are written whole or not at all.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table as RichTable

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from fxcheck.errors import FxcheckError  # noqa: E402
from fxcheck.render.write import write  # noqa: E402
from tests.soundness.families import FAMILIES, Net  # noqa: E402
from tests.soundness.laboratory import CRASHED, CaseRecord, run_network, seed_point  # noqa: E402
from tests.soundness.shrink import shrink, source_of_test  # noqa: E402
from tests.soundness.tally import Tally  # noqa: E402

TRIALS = 33
"""Weights and inputs of each network."""
_MOST_WRITTEN = 10
console = Console(stderr=True)


@dataclass(frozen=True)
class Hunt:
    """What to run, and when to stop."""

    names: tuple[str, ...]
    first: int
    trials: int
    jobs: int
    seconds: float
    """0: until interrupted."""
    cases: int
    """0: no limit."""

    def tasks(self) -> Iterator[tuple[str, int]]:
        """One network of each family, then the next of each, without end."""
        seed = self.first
        while True:
            yield from ((name, seed) for name in self.names)
            seed += 1


def _start_worker() -> None:
    """One thread a process; Ctrl-C is the parent's."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)


@contextmanager
def _deaf() -> Iterator[None]:
    """Ignore Ctrl-C for a moment: a process that starts inherits that, and does not die of it while it imports."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def run(hunt: Hunt, each: Callable[[Tally], None] = lambda tally: None, every: float = 60.0) -> Tally:
    """Run networks in parallel until the time, the cases or the patience is over.

    Args:
        hunt: what to run.
        each: called with what there is, now and then.
        every: seconds between two calls.
    """
    tally, started = Tally(), time.monotonic()
    due = started + every
    pool = ProcessPoolExecutor(hunt.jobs, multiprocessing.get_context("spawn"), _start_worker)
    with _bar(hunt.cases or hunt.seconds or None) as (progress, bar):
        try:
            for records in _results(pool, hunt, started + hunt.seconds if hunt.seconds else None):
                tally.add(records)
                if time.monotonic() >= due:
                    each(tally)
                    due = time.monotonic() + every
                progress.update(bar, completed=_done(hunt, tally, started), description=_told(tally))
                if hunt.cases and tally.cases >= hunt.cases:
                    break
        except KeyboardInterrupt:
            console.print("interrupted: the tables hold what was done so far")
        except WorkerDied as error:
            console.print(f"{error}; the tables hold what was done before", style="red", markup=False)
            tally.failures.append(CaseRecord(CRASHED, reason=str(error)))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            for child in multiprocessing.active_children():
                child.terminate()
    return tally


class WorkerDied(Exception):
    """A process ended without a result."""


def _results(pool: ProcessPoolExecutor, hunt: Hunt, until: float | None) -> Iterator[list[CaseRecord]]:
    """Results as they come, a few networks ahead of the workers."""
    tasks, waiting = hunt.tasks(), dict[Future, tuple[str, int]]()
    while until is None or time.monotonic() < until:
        while len(waiting) < 3 * hunt.jobs:
            task = next(tasks)
            with _deaf():
                waiting[pool.submit(run_network, *task, hunt.trials)] = task
        left = None if until is None else max(0.0, until - time.monotonic())
        for future in wait(waiting, left, FIRST_COMPLETED).done:
            try:
                yield future.result()
            except BrokenProcessPool:
                names = ", ".join(f"{name} {seed}" for name, seed in waiting.values())
                raise WorkerDied(f"a worker process died, on one of: {names}") from None
            del waiting[future]


@contextmanager
def _bar(total: float | None) -> Iterator[tuple[Progress, TaskID]]:
    """A progress bar with one task."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        yield progress, progress.add_task("starting", total=total)


def _done(hunt: Hunt, tally: Tally, started: float) -> float:
    return tally.cases if hunt.cases else time.monotonic() - started


def _told(tally: Tally) -> str:
    return f"{sum(tally.networks.values()):,} networks, {tally.cases:,} cases, {len(tally.failures)} failures"


def write_failures(tally: Tally, out: Path, patience: float) -> list[Path]:
    """Shrink the first failures and write each as a test; Ctrl-C leaves the rest as large as they are."""
    written = []
    for record in [r for r in tally.failures if r.family][:_MOST_WRITTEN]:
        plan = FAMILIES[record.family].plan(record.seed)
        smallest = plan, seed_point(Net(plan), record.seed, record.trial)
        try:
            with console.status(f"shrinking {record.family} {record.seed} {record.trial}"):
                smallest = shrink(*smallest, seconds=patience) if patience else smallest
        except KeyboardInterrupt:
            patience = 0.0
        name = "".join(c if c.isalnum() else "_" for c in f"{record.family}_{record.seed}_{record.trial}")
        path = out / f"test_found_{name}.py"
        title = f"Found by tools/soundness.py: {record.family}, seed {record.seed}, trial {record.trial}."
        _write(path, source_of_test(*smallest, title))
        written.append(path)
    return written


def _write(path: Path, text: str) -> None:
    """A file that is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write(text, str(path))


def _keep(tally: Tally, report: Path | None) -> None:
    """Write the tables, if they are wanted; a full disk ends no run."""
    if report is None:
        return
    try:
        _write(report, "\n".join(t.markdown() for t in tally.tables()))
    except FxcheckError as error:
        console.print(f"soundness: {error}", style="red", markup=False)


def _show(tally: Tally) -> None:
    printer = Console(width=max(120, Console().width))
    for table in tally.tables():
        shown = RichTable(title=table.title, title_justify="left")
        for i, column in enumerate(table.columns):
            shown.add_column(column, justify="right" if i else "left")
        for row in table.rows:
            shown.add_row(*row)
        printer.print(shown)


def _names(family: str) -> tuple[str, ...]:
    """Families whose name starts with what was given."""
    found = tuple(n for n in FAMILIES if n.startswith(family))
    if not found:
        themes = sorted({n.partition(":")[0] for n in FAMILIES})
        _refuse(f"no family is called {family!r} or starts so; the themes are {', '.join(themes)}")
    return found


def _refuse(message: str) -> None:
    console.print(f"soundness: {message}", style="red", markup=False)
    raise typer.Exit(2)


def main(
    minutes: Annotated[float, typer.Option(help="How long to run; 0: no limit.")] = 5.0,
    jobs: Annotated[int, typer.Option(help="Processes.")] = os.cpu_count() or 1,
    cases: Annotated[
        int, typer.Option(help="Stop after so many cases, if the minutes are not over before; 0: no limit.")
    ] = 0,
    family: Annotated[str, typer.Option(help="One family, or the start of several names, as 'pool:'.")] = "",
    seed: Annotated[int, typer.Option(help="The first seed of every family.")] = 0,
    trials: Annotated[int, typer.Option(help="Weights and inputs of each network.")] = TRIALS,
    out: Annotated[Path, typer.Option(help="Folder for the tests of what is found.")] = Path("found"),
    report: Annotated[
        Path | None, typer.Option(help="Write the tables to this Markdown file too, every minute and at the end.")
    ] = None,
    patience: Annotated[float, typer.Option(help="Seconds to shrink each find.")] = 120.0,
) -> None:
    """Hunt for a step that is certified although backward's gradient is no Clarke subgradient."""
    if minutes < 0 or jobs < 1 or cases < 0 or trials < 1 or patience < 0:
        _refuse("--minutes, --cases and --patience cannot be negative, --jobs and --trials must be at least 1")
    if out.exists() and not out.is_dir():
        _refuse(f"--out {out} is a file, not a folder")
    if report is not None and not report.resolve().parent.is_dir():
        _refuse(f"--report {report}: its folder does not exist")
    if report is not None and report.is_dir():
        _refuse(f"--report {report} is a folder, not a file")

    tally = run(Hunt(_names(family), seed, trials, jobs, 60 * minutes, cases), lambda so_far: _keep(so_far, report))
    _show(tally)
    _keep(tally, report)
    for record in tally.failures:
        console.print(f"FAILED {record.family} {record.seed} {record.trial}: {record.verdict} by {record.path} "
                      f"{record.reason}; oracle {record.oracle}", style="red", markup=False)  # fmt: skip
    for path in write_failures(tally, out, patience):
        console.print(f"wrote {path}")
    raise typer.Exit(1 if tally.failures else 0)


if __name__ == "__main__":
    typer.run(main)
