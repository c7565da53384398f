"""Tables of measured proxies, and what changed between two of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fxcheck.records.proxy_table import Change, ProxyRow, ProxyTable

ROW_HEADINGS = (
    "op", "arguments", "operand", "dtype", "device", "mode", "kink", "left", "ad", "right", "weight", "tie", "note"
)  # fmt: skip
CHANGE_HEADINGS = ("op", "arguments", "operand", "dtype", "mode", "kink", "before", "after")

_HOISTED = ("operand", "dtype", "device", "mode")
"""Columns that go to the title when all their cells are the same."""


def render_table(found: ProxyTable, form: str, *, width: int | None = None, color: bool = False) -> str:
    """A proxy table as ``rich``, ``json`` or ``markdown``."""
    if form == "json":
        return found.to_json()
    lines = [_row(row) for row in found.rows]
    return _tabular(f"proxies of torch {found.torch}", ROW_HEADINGS, lines, form, width, color)


def render_changes(
    old: str, new: str, changes: Sequence[Change], form: str, *, width: int | None = None, color: bool = False
) -> str:
    """What changed from torch ``old`` to torch ``new``."""
    if form == "json":
        listed = [{f.name: getattr(change, f.name) for f in fields(change)} for change in changes]
        return _json({"schema": "fxcheck/proxies-diff/1", "before": old, "after": new, "changes": listed})
    title = f"torch {old} to {new}: " + (f"{len(changes)} proxies changed" if changes else "no proxy changed")
    lines = [[_cell(getattr(change, name)) for name in CHANGE_HEADINGS] for change in changes]
    return _tabular(title, CHANGE_HEADINGS, lines, form, width, color)


def _row(row: ProxyRow) -> list[str]:
    cells = {name: _cell(getattr(row, name)) for name in ROW_HEADINGS}
    cells["op"] = row.op.removeprefix("aten.").removesuffix(".default")
    if row.pick is not None:
        cells |= {"tie": row.outcome, "note": ""}
    return list(cells.values())


def _tabular(
    title: str, headings: Sequence[str], lines: list[list[str]], form: str, width: int | None, color: bool
) -> str:
    if form == "markdown":
        from fxcheck.render import markdown

        return "\n".join([f"## {title}", "", *(markdown.table(headings, lines) if lines else []), ""])
    from fxcheck.render import text

    values = [{line[i] for line in lines} for i in range(len(headings))]
    alike = [i for i, heading in enumerate(headings) if heading in _HOISTED and len(values[i]) == 1]
    used = [i for i in range(len(headings)) if i not in alike and values[i] - {"", "-"}]
    console = text.new_console(width, color)
    console.print(", ".join([title, *(f"{headings[i]} {lines[0][i]}" for i in alike)]))
    if lines:
        console.print(text.table([headings[i] for i in used], [[line[i] for i in used] for line in lines]))
    return text.text_of(console)


def _json(document: object) -> str:
    from fxcheck.render import json

    return json.dump(document)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:g}" if isinstance(value, float) else str(value)
