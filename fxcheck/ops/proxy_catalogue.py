"""The table behind ``fxcheck proxies``: every case of the written list, measured on the installed torch."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Sequence
from dataclasses import replace

import torch

from fxcheck.errors import ProxyError, UsageError
from fxcheck.ops.probe import Mode, measure
from fxcheck.ops.probe_call import full_arguments, measure_call
from fxcheck.ops.proxy_cases import CASES, ScalarCase, TieCase
from fxcheck.ops.registry import out_of_place
from fxcheck.ops.ties import classify_tie, measure_tie
from fxcheck.records.proxy_table import ProxyRow, ProxyTable

DTYPES = ("float32", "float64", "bfloat16", "float16")
MODES: tuple[Mode, ...] = ("backward", "forward")


def catalogue(
    ops: Sequence[str] | None = None,
    dtypes: Sequence[str] = DTYPES,
    modes: Sequence[Mode] = MODES,
    device: str = "cpu",
) -> ProxyTable:
    """Measure the proxies of the named operators, or of all in the list.

    Args:
        ops: ``relu``, ``aten.relu``, ``aten.relu.default`` or an in-place spelling; ``clamp`` also names
            ``clamp_min`` and ``clamp_max``. None or empty for all.
        dtypes: any of ``DTYPES``.
        modes: ``backward``, ``forward``.
        device: where to run, as ``cpu``.

    Returns:
        Rows in the order of the list, then dtypes, modes and points. What cannot be measured (a dtype without a
        kernel, an operator that this torch does not have) is a row with a note and no values.

    Raises:
        UsageError: an operator, dtype or device that nobody knows.
    """
    _check(dtypes, device)
    wanted = _selected(ops)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rows = tuple(
            row
            for case in CASES
            if case.op in wanted
            for dtype in dtypes
            for mode in modes
            for row in _rows(case, dtype, mode, device)
        )
    return ProxyTable(torch.__version__.partition("+")[0], rows)


def known_operators() -> tuple[str, ...]:
    """Every name in the list, in order."""
    return tuple(dict.fromkeys(case.op for case in CASES))


def _check(dtypes: Sequence[str], device: str) -> None:
    for dtype in dtypes:
        if dtype not in DTYPES:
            raise UsageError(f"proxies are not measured in dtype {dtype!r}", hint=", ".join(DTYPES))
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UsageError(f"proxies cannot be measured on device {device!r}: {reason}", hint="cpu") from error


def _selected(ops: Sequence[str] | None) -> frozenset[str]:
    known = known_operators()
    if not ops:
        return frozenset(known)
    chosen: set[str] = set()
    for asked in ops:
        found = {op for op in known if _names(asked, op)}
        if not found:
            raise UsageError(f"no proxies are listed for operator {asked!r}", hint=_alternatives(asked, known))
        chosen |= found
    return frozenset(chosen)


def _names(asked: str, op: str) -> bool:
    if asked == op:
        return True
    bare = asked.removeprefix("aten.")
    if asked != bare and not op.startswith("aten."):
        return False
    if "." in bare:
        return out_of_place(f"aten.{bare}") == op
    bare = bare.removesuffix("_")
    return bool(bare) and (bare == _base(op) or _base(op).startswith(f"{bare}_"))


def _base(op: str) -> str:
    """``relu`` of ``aten.relu.default``, ``where`` of ``where(x > 0, x, 0)``."""
    return op.split(".")[1] if op.startswith("aten.") else op.partition("(")[0].strip()


def _alternatives(asked: str, known: Sequence[str]) -> str:
    bases = {base for op in known if (base := _base(op)).isidentifier()}
    close = difflib.get_close_matches(asked.removeprefix("aten.").partition(".")[0], sorted(bases), 5, 0.5)
    return ", ".join(close) if close else "fxcheck proxies without a name lists all of them"


def _rows(case: ScalarCase | TieCase, dtype: str, mode: Mode, device: str) -> list[ProxyRow]:
    if isinstance(case, TieCase):
        return [_tie_row(case, count, dtype, mode, device) for count in case.tied]
    kind: torch.dtype = getattr(torch, dtype)
    constants = dict(case.arguments)
    try:
        if case.function is not None:
            proxies = measure(case.function, case.points, kind, device, mode)
        else:
            filled = full_arguments(case.op, case.arguments, case.operand)
            constants = {name: value for name, value in filled.items() if value is not None}
            proxies = measure_call(case.op, case.arguments, case.operand, case.points, kind, device, mode)
    except ProxyError as error:
        return [ProxyRow(case.op, dtype, device, mode, constants, case.operand, note=error.message)]
    return [
        ProxyRow(case.op, dtype, device, mode, constants, case.operand, i, p.kink, p.left, p.ad, p.right, p.weight,
                 p.stable, p.continuous, note=p.note)
        for i, p in enumerate(proxies)
    ]  # fmt: skip


def _tie_row(case: TieCase, count: int, dtype: str, mode: Mode, device: str) -> ProxyRow:
    kind: torch.dtype = getattr(torch, dtype)
    row = ProxyRow(case.op, dtype, device, mode, {"tied": count}, index=count)
    losing = [0.5 if case.largest else 1.5] if case.padded else []
    tied = range(len(losing), len(losing) + count)
    try:
        weights = measure_tie(case.function, losing + [1.0] * count + losing, kind, device, mode)
    except ProxyError as error:
        return replace(row, note=error.message)
    row = replace(row, pick=classify_tie(weights, tied, kind), tie=tuple(weights[i] for i in tied))
    return replace(row, note="; ".join(filter(None, (f"tie: {row.outcome}", case.note))))
