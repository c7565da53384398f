"""Proxies of the installed torch, measured on demand and remembered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fxcheck.errors import ProxyError
from fxcheck.ops.evaluate import apply_overload, chain_function
from fxcheck.ops.probe import ROUNDING, measure
from fxcheck.ops.probe_call import measure_call
from fxcheck.ops.ties import classify_tie, measure_tie
from fxcheck.records.graph import Node
from fxcheck.records.proxy import Proxy

_TWO_OPERANDS = {f"aten.{name}": ("self", "other") for name in (
    "maximum.default", "minimum.default", "max.other", "min.other", "fmax.default", "fmin.default")} | {
    "aten.clamp_min.Tensor": ("self", "min"), "aten.clamp_max.Tensor": ("self", "max"),
}  # fmt: skip


class Measured:
    """Runs autograd of the installed torch at the kinks and beside them (theory 4.1)."""

    device = "cpu"

    def scalar(
        self, op: str, arguments: Mapping[str, Any], operand: str, points: tuple[float, ...], dtype: str
    ) -> tuple[Proxy, ...] | None:
        """Proxies of one operator as a function of one operand.

        Args:
            op: overload, as ``aten.hardtanh.default``.
            arguments: the other arguments; a number stands for a tensor full of it.
            operand: name of the argument that varies.
            points: candidate kinks.
            dtype: of the operand, as ``float32``.

        Returns:
            One proxy per point, or None when the operator cannot be measured.
        """
        kind = getattr(torch, dtype, None)
        if kind not in ROUNDING:
            return None
        try:
            found = measure_call(op, arguments, operand, points, kind, self.device)
        except ProxyError:
            return None
        return found if len(found) == len(points) else None

    def pick(self, op: str, dtype: str) -> str | None:
        """Who gets the gradient at a tie of two tensors, as ``ties.classify_tie`` says; None when not measured.

        Pools and maxima over dimensions are as the operator table says.
        """
        kind = getattr(torch, dtype, None)
        names = _TWO_OPERANDS.get(op)
        if names is None or kind not in ROUNDING:
            return None

        def largest(x: Tensor) -> Tensor:
            return apply_overload(op, dict(zip(names, x, strict=True)), x)

        try:
            return classify_tie(measure_tie(largest, (1.0, 1.0), kind, self.device), (0, 1), kind)
        except ProxyError:
            return None

    def chain(
        self, nodes: tuple[Node, ...], root: int, points: tuple[float, ...], dtype: str,
        constants: Mapping[int, float],
    ) -> tuple[Proxy, ...] | None:  # fmt: skip
        """Proxies of a chain of operators as a function of its root; None when it cannot be measured."""
        try:
            found = measure(chain_function(nodes, root, constants), points, getattr(torch, dtype), self.device)
        except (KeyError, ProxyError):
            return None
        return found if len(found) == len(points) else None
