"""A saved table of measured proxies: what ``fxcheck proxies --format json`` writes, and how two of them differ."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from fxcheck.errors import ProxyError
from fxcheck.records.proxy import Proxy

SCHEMA = "fxcheck/proxies/1"
_NOT_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
_CLOSE = 1e-6
_HINT = "save one with: fxcheck proxies --format json -o proxies.json"


@dataclass(frozen=True)
class ProxyRow:
    """One measured point of a scalar function, or one measured tie of a max, or a case that could not be measured."""

    op: str
    """Overload (``aten.relu.default``) or the expression that was measured."""
    dtype: str
    device: str
    mode: str
    """``backward`` or ``forward``."""
    constants: Mapping[str, Any] = field(default_factory=dict)
    """The other arguments by schema name, defaults filled in; a number may stand for a tensor full of it."""
    operand: str = "self"
    index: int = 0
    """Which of the points of this call, ascending; for a tie, the number of tied entries."""
    kink: float | None = None
    left: float | None = None
    ad: float | None = None
    right: float | None = None
    weight: float | None = None
    stable: bool = True
    continuous: bool = True
    pick: str | None = None
    """For a tie: ``one_hot_first``, ``one_hot_last``, ``one_hot_other``, ``split``, ``other``, ``unsupported``."""
    tie: tuple[float, ...] | None = None
    """The gradient's weights on the tied entries."""
    note: str = ""

    @property
    def key(self) -> tuple[Any, ...]:
        return (self.op, self.arguments, self.operand, self.dtype, self.device, self.mode, self.index)

    @property
    def arguments(self) -> str:
        """``min_val=-1.0, max_val=1.0``; arguments that are None are left out."""
        return ", ".join(f"{n}={v}" for n, v in self.constants.items() if v is not None)

    @property
    def measured(self) -> bool:
        return self.ad is not None or self.pick is not None

    @property
    def outcome(self) -> str:
        """What AD does here, in a few words."""
        if self.pick is not None:
            return f"{self.pick.replace('_', ' ')} ({', '.join(f'{w:g}' for w in self.tie or ())})"
        if self.ad is None:
            return "not measured"
        side = "" if self.weight is None else f", weight {self.weight:g}"
        return f"{self.ad:g}{side}{'' if self.stable else ', not stable'}"

    @property
    def proxy(self) -> Proxy | None:
        """The measured point; None for a tie and for a case that could not be measured."""
        if self.kink is None or self.left is None or self.ad is None or self.right is None:
            return None
        return Proxy(self.kink, self.left, self.ad, self.right, self.weight, self.stable, self.continuous, self.note)

    def to_dict(self) -> dict[str, Any]:
        """JSON values; what equals its default is left out."""
        out: dict[str, Any] = {}
        for f in fields(self):
            value = getattr(self, f.name)
            if f.name in _REQUIRED or (value != f.default and value != {}):
                out[f.name] = _encode(value)
        return out


_REQUIRED = ("op", "dtype", "device", "mode")
_TYPES: dict[str, tuple[type, ...]] = {
    "op": (str,), "dtype": (str,), "device": (str,), "mode": (str,), "constants": (dict,), "operand": (str,),
    "index": (int,), "kink": (float, int), "left": (float, int), "ad": (float, int), "right": (float, int),
    "weight": (float, int), "stable": (bool,), "continuous": (bool,), "pick": (str,), "tie": (list,), "note": (str,),
}  # fmt: skip


@dataclass(frozen=True)
class ProxyTable:
    """Everything measured on one installation of torch."""

    torch: str
    rows: tuple[ProxyRow, ...]

    def to_dict(self) -> dict[str, Any]:
        return {"schema": SCHEMA, "torch": self.torch, "rows": [row.to_dict() for row in self.rows]}

    def to_json(self) -> str:
        """The document as text, one row a line, ending in a newline."""
        rows = ",\n".join("  " + json.dumps(row.to_dict()) for row in self.rows)
        body = f"\n{rows}\n " if rows else ""
        return f'{{"schema": {json.dumps(SCHEMA)}, "torch": {json.dumps(self.torch)},\n "rows": [{body}]}}\n'

    @classmethod
    def from_dict(cls, document: Any, where: str = "the proxy table") -> ProxyTable:
        """Read a parsed JSON document.

        Args:
            document: what ``to_dict`` returned, after JSON.
            where: the file, for messages.

        Raises:
            ProxyError: it is not a table that this version understands; the message names the first fault.
        """
        if not isinstance(document, dict) or "schema" not in document:
            raise ProxyError(f"{where} is not a table of proxies: it names no schema", hint=_HINT)
        if document["schema"] != SCHEMA:
            raise ProxyError(f"{where} has schema {document['schema']!r}, wanted {SCHEMA!r}", hint=_HINT)
        if not isinstance(document.get("torch"), str) or not isinstance(document.get("rows"), list):
            raise ProxyError(f"{where} needs 'torch' (text) and 'rows' (a list)", hint=_HINT)
        rows = tuple(_row(row, f"{where}, row {i}") for i, row in enumerate(document["rows"]))
        seen: set[tuple[Any, ...]] = set()
        for i, row in enumerate(rows):
            if row.key in seen:
                raise ProxyError(f"{where}, row {i} measures {row.op} in {row.dtype} a second time", hint=_HINT)
            seen.add(row.key)
        return cls(document["torch"], rows)


def read_table(path: str | Path) -> ProxyTable:
    """Load a saved table.

    Raises:
        ProxyError: the file cannot be read, is not JSON, or is not a table of proxies.
    """
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ProxyError(f"cannot read saved proxies from {path}: {error.strerror or error}", hint=_HINT) from error
    except (ValueError, RecursionError) as error:
        raise ProxyError(f"{path} is not JSON: {error}", hint=_HINT) from error
    return ProxyTable.from_dict(document, str(path))


@dataclass(frozen=True)
class Change:
    """One measurement with different outcomes in two tables."""

    op: str
    arguments: str
    operand: str
    dtype: str
    mode: str
    kink: float | None
    before: str
    after: str


def diff(old: ProxyTable, new: ProxyTable) -> tuple[Change, ...]:
    """Compare two tables measurement by measurement.

    Args:
        old: measured earlier.
        new: measured later, perhaps for fewer operators or dtypes; what only one of them holds is no change.

    Returns:
        What changed, in the order of ``old``. Notes do not count as differences. An operator that ``new`` tried
        and could not measure counts as changed.
    """
    later = {row.key: row for row in new.rows}
    failed = {(r.op, r.operand, r.dtype, r.device, r.mode): r for r in new.rows if not r.measured}
    changes = []
    for row in old.rows:
        after = later.get(row.key) or failed.get((row.op, row.operand, row.dtype, row.device, row.mode))
        if after is not None and not _same(row, after):
            changes.append(
                Change(row.op, row.arguments, row.operand, row.dtype, row.mode, row.kink, row.outcome, after.outcome)
            )
    return tuple(changes)


def _same(a: ProxyRow, b: ProxyRow) -> bool:
    flags = (a.measured, a.stable, a.continuous, a.pick) == (b.measured, b.stable, b.continuous, b.pick)
    pairs = [(a.kink, b.kink), (a.ad, b.ad), (a.weight, b.weight)]
    if a.stable:  # Slopes that do not settle are not comparable.
        pairs += [(a.left, b.left), (a.right, b.right)]
    ties = len(a.tie or ()) == len(b.tie or ())
    return flags and ties and all(_close(x, y) for x, y in (*pairs, *zip(a.tie or (), b.tie or (), strict=False)))


def _close(a: float | None, b: float | None) -> bool:
    if a is None or b is None:
        return a is b
    if not (math.isfinite(a) and math.isfinite(b)):
        return a == b or (math.isnan(a) and math.isnan(b))
    return abs(a - b) <= _CLOSE * max(1.0, abs(a), abs(b))


def _encode(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {n: _encode(v) for n, v in value.items()}
    return [_encode(v) for v in value] if isinstance(value, (tuple, list)) else value


def _row(row: Any, where: str) -> ProxyRow:
    if not isinstance(row, dict):
        raise ProxyError(f"{where} should be an object, found {type(row).__name__}", hint=_HINT)
    missing = [name for name in _REQUIRED if name not in row]
    if missing:
        raise ProxyError(f"{where} has no {missing[0]!r}", hint=_HINT)
    values: dict[str, Any] = {n: _decode(n, row[n], where) for n in _TYPES if n in row}
    return ProxyRow(**values)


def _decode(name: str, value: Any, where: str) -> Any:
    types: Any = _TYPES[name]
    if float in types:
        return _number(value, name, where)
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        raise ProxyError(f"{where}: {name!r} should be {types[0].__name__}, found {value!r}", hint=_HINT)
    if isinstance(value, list):
        return tuple(_number(v, name, where) for v in value)
    if isinstance(value, dict):
        return {n: _NOT_FINITE.get(v, v) if isinstance(v, str) else v for n, v in value.items()}
    return value


def _number(value: Any, name: str, where: str) -> float:
    if isinstance(value, str) and value in _NOT_FINITE:
        return _NOT_FINITE[value]
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ProxyError(f"{where}: {name!r} should be a number, found {value!r}", hint=_HINT)
    return float(value)


def points_of(rows: Sequence[ProxyRow]) -> tuple[Proxy, ...] | None:
    """The proxies of one call, ascending; None when one of its rows is not a measured point."""
    proxies = [row.proxy for row in sorted(rows, key=lambda r: r.index)]
    return None if any(p is None for p in proxies) else tuple(p for p in proxies if p is not None)
