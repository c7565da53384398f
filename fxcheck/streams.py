"""What goes to which stream: documents to standard output, messages and progress to the error stream."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping


def complain(message: str) -> None:
    """Say something on the error stream, under the program's name."""
    sys.stderr.write(f"fxcheck: {message}\n")


@contextlib.contextmanager
def quiet(debug: bool) -> Iterator[None]:
    """While user code and torch run, standard output is the error stream, and warnings are hidden unless debugging."""
    import logging
    import warnings

    before = logging.root.manager.disable
    with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
        if not debug:
            warnings.simplefilter("ignore")
            logging.disable(logging.WARNING)  # torch gives its loggers levels and handlers while it is imported
        try:
            yield
        finally:
            logging.disable(before)


def write(document: str, path: str | None) -> None:
    """Write to a file, whole or not at all, or to standard output."""
    from fxcheck.render.write import write as write_whole

    write_whole(document, path)


def show_statistics(counts: Mapping[str, Mapping[str, int]]) -> None:
    """Print counts on the error stream, under their titles."""
    for title, counted in counts.items():
        sys.stderr.write(f"{title}:\n" + "".join(f"  {count:>5}  {name}\n" for name, count in counted.items()))


def use_color(output: str | None = None) -> bool:
    """Whether a document may hold escape codes: NO_COLOR beats FORCE_COLOR, which beats what the stream is."""
    if output is not None or os.environ.get("NO_COLOR"):
        return False
    return bool(os.environ.get("FORCE_COLOR")) or sys.stdout.isatty()


@contextlib.contextmanager
def progress(total: int) -> Iterator[Callable[[str], None]]:
    """A bar on the error stream while ``total`` models are analysed, on a terminal only.

    Yields:
        What to call with the name of each model when its turn comes.
    """
    if total < 2 or not sys.stderr.isatty():
        yield lambda name: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False) as bar:
        task = bar.add_task("", total=total)
        started = iter(range(total))

        def begin(name: str) -> None:
            bar.update(task, completed=next(started, total), description=name)

        yield begin
