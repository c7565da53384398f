"""A report for a terminal."""

from __future__ import annotations

import io
from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from fxcheck.records.finding import Verdict
from fxcheck.records.report import FailedTarget, Report
from fxcheck.render import words
from fxcheck.render.collapse import HEADINGS, Notice, Row, notices, rows

_STYLES = {
    Verdict.SMOOTH: "bold green",
    Verdict.CERTIFIED: "bold green",
    Verdict.RUNTIME: "bold yellow",
    Verdict.UNCOVERED: "bold red",
}

_MIN_WIDTHS = {
    "bias": 6, "verdict": 9, "by": 2, "codes": 5, "op": 10, "arguments": 9,
}  # fmt: skip
"""Columns that would otherwise be squeezed until their words break."""


def render(
    results: Sequence[Report | FailedTarget], *, all_layers: bool = False, width: int | None = None, color: bool = False
) -> str:
    """The reports, one after the other.

    Args:
        results: reports, and targets that could not be analysed.
        all_layers: one row for each layer instead of one for alike ones.
        width: columns; None for the terminal's.
        color: whether escape codes may be used; the environment's NO_COLOR still removes colours.

    Returns:
        Text that ends with a newline.
    """
    console = new_console(width, color)
    for i, result in enumerate(results):
        if i:
            console.print()
        if isinstance(result, FailedTarget):
            console.print(Text(f"{result.target}: not analysed"), Text(result.message), sep="\n")
        else:
            _report(console, result, all_layers)
    return text_of(console)


def new_console(width: int | None, color: bool) -> Console:
    """A console that prints into memory."""
    return Console(file=io.StringIO(), width=width, force_terminal=color, highlight=False, soft_wrap=False)


def text_of(console: Console) -> str:
    """What was printed on a console made by ``new_console``, without trailing blanks."""
    assert isinstance(console.file, io.StringIO)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines()) + "\n"


def _report(console: Console, report: Report, all_layers: bool) -> None:
    console.print(Text.assemble((report.target, "bold"), f"  ({words.header(report)})"))
    console.print()
    console.print(Text.assemble("verdict: ", (words.headline(report), _STYLES[report.verdict])))
    _indented(console, words.meaning(report))
    for name in report.assumptions:
        console.print(Text.assemble(("assumes ", "bold"), words.assumption(name)))
    console.print(Text("conditions: " + ", ".join(f"{n} {a}" for n, a in words.conditions(report))))
    console.print(Text("structure: " + words.structure(report)))
    if report.numeric:
        console.print(Text("numeric: " + report.numeric))
    if report.layers:
        console.print(table(HEADINGS, [_styled(row) for row in rows(report, all_layers=all_layers)]))
    for notice in notices(report):
        _notice(console, notice)


def table(headings: Sequence[str], lines: Sequence[Sequence[str | Text]]) -> Table:
    """A plain table whose columns wrap instead of losing text."""
    found = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    for heading in headings:
        found.add_column(heading, overflow="fold", min_width=_MIN_WIDTHS.get(heading))
    for line in lines:
        found.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in line))
    return found


def _styled(row: Row) -> list[str | Text]:
    cells: list[str | Text] = list(row.cells())
    cells[5] = Text(str(row.first.verdict), style=_STYLES[row.first.verdict])
    return cells


def _notice(console: Console, notice: Notice) -> None:
    times = f" (x{notice.count})" if notice.count > 1 else ""
    console.print()
    console.print(Text.assemble((notice.code, "bold"), f"{times} {notice.message}"))
    for location, source in notice.shown:
        _indented(console, f"at {location}" + (f"   {source}" if source else ""))
    if notice.left_out:
        _indented(console, f"and {notice.left_out} more places")
    if notice.hint:
        _indented(console, f"try: {notice.hint}")


def _indented(console: Console, sentence: str) -> None:
    console.print(Padding(Text(sentence), (0, 0, 0, 2)))
