"""A report as Markdown, for pull requests and wikis."""

from __future__ import annotations

from collections.abc import Sequence

from fxcheck.records.report import FailedTarget, Report
from fxcheck.render import words
from fxcheck.render.collapse import HEADINGS, Notice, notices, rows


def render(results: Sequence[Report | FailedTarget], *, all_layers: bool = False) -> str:
    """The reports, one section each."""
    return "\n".join(
        f"## {plain(r.target)}\n\nNot analysed: {plain(r.message)}\n"
        if isinstance(r, FailedTarget)
        else _report(r, all_layers)
        for r in results
    )


def table(headings: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table."""
    ruled = [_line(headings), "|" + " --- |" * len(headings)]
    return ruled + [_line([plain(cell) for cell in line]) for line in lines]


def _report(report: Report, all_layers: bool) -> str:
    lines = [f"## {plain(report.target)}", "", f"**{words.headline(report)}** ({words.header(report)})", ""]
    lines += [words.meaning(report), ""]
    lines += [f"- Assumes {plain(words.assumption(name))}" for name in report.assumptions]
    lines.append("- Conditions: " + ", ".join(f"{n} {a}" for n, a in words.conditions(report)))
    lines.append("- Structure: " + words.structure(report))
    lines += [f"- Numeric: {plain(report.numeric)}"] if report.numeric else []
    if report.layers:
        lines += ["", *table(HEADINGS, [row.cells() for row in rows(report, all_layers=all_layers)])]
    for notice in notices(report):
        lines += ["", *_notice(notice)]
    return "\n".join(lines) + "\n"


def _notice(notice: Notice) -> list[str]:
    times = f" (x{notice.count})" if notice.count > 1 else ""
    lines = [f"- **{notice.code}**{times} {plain(notice.message)}"]
    lines += [f"  - {plain(location)}" + (f" `{source}`" if source else "") for location, source in notice.shown]
    lines += [f"  - and {notice.left_out} more places"] if notice.left_out else []
    return lines + ([f"  - Try: {plain(notice.hint)}"] if notice.hint else [])


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def plain(text: str) -> str:
    """Text that Markdown shows as it is."""
    flat = " ".join(text.split())
    for sign in ("\\", "|", "*", "_", "<", "`", "["):
        flat = flat.replace(sign, "\\" + sign)
    return flat
