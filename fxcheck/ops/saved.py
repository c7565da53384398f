"""Proxies of another installation of torch, read from a saved table (theory 4.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from fxcheck.ops.measured import Measured
from fxcheck.records.graph import Node
from fxcheck.records.proxy import Proxy
from fxcheck.records.proxy_table import ProxyRow, ProxyTable, points_of

_HALF = ("float16", "bfloat16")


class Saved:
    """Looks measurements up in a table; what the table does not settle is None, never a guess.

    Args:
        table: the saved proxies.
        installed: measures the one-sided slopes of calls whose bounds the table does not hold.
    """

    def __init__(self, table: ProxyTable, installed: Measured | None = None) -> None:
        self.table = table
        self.installed = installed or Measured()
        self._calls: dict[tuple[str, str, str], dict[str, list[ProxyRow]]] = {}
        self._ties: dict[tuple[str, str], list[ProxyRow]] = {}
        for row in table.rows:
            if row.mode == "backward" and row.device == self.installed.device:
                self._add(row)

    def _add(self, row: ProxyRow) -> None:
        if row.pick is not None:
            self._ties.setdefault((row.op, row.dtype), []).append(row)
        else:
            calls = self._calls.setdefault((row.op, row.dtype, row.operand), {})
            calls.setdefault(row.arguments, []).append(row)

    def scalar(
        self, op: str, arguments: Mapping[str, Any], operand: str, points: tuple[float, ...], dtype: str
    ) -> tuple[Proxy, ...] | None:
        """Proxies of one operator as a function of one operand; see ``Measured.scalar``.

        A call with the same arguments is taken as it was saved. Otherwise the weights of saved calls of the same
        form (the same arguments given, kinks at the same ordinals) are used, if they all agree, with the one-sided
        slopes of the installed torch: which side AD takes belongs to the operator, the slopes to the arguments.

        Returns:
            One proxy per point, or None when the table does not settle it.
        """
        calls = [rows for rows in self._calls.get((op, dtype, operand), {}).values()]
        given = _given(arguments)
        for rows in calls:
            saved = points_of(rows)
            if saved is not None and _given(rows[0].constants) == given:
                found = _at_points(saved, points, dtype)
                if found is not None:
                    return found
        return self._from_similar(calls, op, arguments, operand, points, dtype)

    def _from_similar(
        self, calls: Sequence[list[ProxyRow]], op: str, arguments: Mapping[str, Any], operand: str,
        points: tuple[float, ...], dtype: str,
    ) -> tuple[Proxy, ...] | None:  # fmt: skip
        installed = self.installed.scalar(op, arguments, operand, points, dtype) if calls else None
        if installed is None or (dtype in _HALF and any(p.kink != k for p, k in zip(installed, points, strict=True))):
            # In half precision the kernel may compare with a bound that no tensor entry can equal.
            return None
        form = _given(arguments).keys()
        weights = {_weights(rows, installed) for rows in calls if _given(rows[0].constants).keys() == form}
        weights.discard(None)
        if len(weights) != 1:
            return None
        (chosen,) = weights
        return tuple(_with_weight(p, w) for p, w in zip(installed, chosen or (), strict=True))

    def chain(
        self, nodes: tuple[Node, ...], root: int, points: tuple[float, ...], dtype: str,
        constants: Mapping[int, float],
    ) -> None:  # fmt: skip
        """A chain that is not a piecewise polynomial was not saved: the installed torch must measure it."""
        return None

    def pick(self, op: str, dtype: str = "float32") -> str | None:
        """Who gets the gradient at a tie of a max.

        Returns:
            ``one_hot``, ``split``, ``other`` (a mixture, or not the same for two and three tied entries),
            ``unsupported``, or None when the table has no tie of this operator.
        """
        picks = {"one_hot" if (row.pick or "").startswith("one_hot") else row.pick
                 for row in self._ties.get((op, dtype), [])}  # fmt: skip
        if len(picks) > 1:
            return "unsupported" if "unsupported" in picks else "other"
        return next(iter(picks), None)


class SavedFirst:
    """A saved table where it answers, else the installed torch; ``missing`` lists what was not in the table."""

    def __init__(self, table: ProxyTable) -> None:
        self.installed = Measured()
        self.saved = Saved(table, self.installed)
        self.missing: set[str] = set()
        """Overloads, and chains as ``chain(op, op)``, that the installed torch measured instead."""

    def scalar(
        self, op: str, arguments: Mapping[str, Any], operand: str, points: tuple[float, ...], dtype: str
    ) -> tuple[Proxy, ...] | None:
        """As ``Measured.scalar``."""
        found = self.saved.scalar(op, arguments, operand, points, dtype)
        if found is None:
            self.missing.add(op)
            return self.installed.scalar(op, arguments, operand, points, dtype)
        return found

    def pick(self, op: str, dtype: str) -> str | None:
        """As ``Measured.pick``."""
        return self.saved.pick(op, dtype) or self.installed.pick(op, dtype)

    def chain(
        self, nodes: tuple[Node, ...], root: int, points: tuple[float, ...], dtype: str,
        constants: Mapping[int, float],
    ) -> tuple[Proxy, ...] | None:  # fmt: skip
        """As ``Measured.chain``."""
        self.missing.add(f"chain({', '.join(node.op for node in nodes)})")
        return self.installed.chain(nodes, root, points, dtype, constants)


def _given(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that are not None, numbers as floats."""
    return {n: float(a) if type(a) is int else a for n, a in arguments.items() if a is not None}


def _at_points(saved: Sequence[Proxy], points: tuple[float, ...], dtype: str) -> tuple[Proxy, ...] | None:
    """The saved proxies at the points asked for; None when one was not measured."""
    rounded = torch.tensor(points, dtype=torch.float64).to(getattr(torch, dtype)).double().tolist()
    by_kink = {p.kink: p for p in saved}
    return tuple(by_kink[k] for k in rounded) if all(k in by_kink for k in rounded) else None


def _weights(rows: Sequence[ProxyRow], installed: Sequence[Proxy]) -> tuple[float | None, ...] | None:
    """The weight at each kink, if the saved call has its kinks where the installed one has."""
    saved = points_of(rows)
    if saved is None or len(saved) != len(installed):
        return None
    usable = all(
        a.stable and b.stable and a.is_kink == b.is_kink and (a.weight is not None if a.is_kink else a.ad == a.left)
        for a, b in zip(saved, installed, strict=True)
    )
    return tuple(p.weight for p in saved) if usable else None


def _with_weight(proxy: Proxy, weight: float | None) -> Proxy:
    if weight is None:
        return proxy
    return replace(proxy, ad=weight * proxy.left + (1 - weight) * proxy.right, weight=weight)
