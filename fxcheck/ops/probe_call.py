"""Measure one ATen overload as a scalar function of one of its arguments, and remember the result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fxcheck.errors import ProxyError
from fxcheck.ops.evaluate import apply_overload, overload
from fxcheck.ops.probe import Mode, measure
from fxcheck.ops.registry import out_of_place
from fxcheck.records.proxy import Proxy

_ONE_ENTRY = {"aten.prelu.default": "weight"}
"""Tensor arguments that do not broadcast and must hold one entry here."""
_REMEMBERED: dict[tuple[Any, ...], tuple[Proxy, ...] | ProxyError] = {}


def measure_call(
    op: str,
    arguments: Mapping[str, Any],
    operand: str,
    points: Sequence[float],
    dtype: torch.dtype,
    device: str = "cpu",
    mode: Mode = "backward",
) -> tuple[Proxy, ...]:
    """Measure the proxies of one operator.

    Args:
        op: overload, as ``aten.hardtanh.default``; an in-place one runs on a copy.
        arguments: the other arguments by schema name, defaults optional; a number where the schema wants a tensor
            stands for a tensor full of it.
        operand: the argument that varies.
        points: candidate kinks of the operand.
        dtype: of the operand.
        device: where to run.
        mode: ``backward`` or ``forward``.

    Returns:
        As ``measure``: one Proxy per point that the dtype can hold.

    Raises:
        ProxyError: this torch has no such overload, or it cannot be run or differentiated.
    """
    key = (op, _frozen(arguments), operand, tuple(points), dtype, device, mode)
    if key not in _REMEMBERED:
        try:
            _REMEMBERED[key] = _measure(op, arguments, operand, points, dtype, device, mode)
        except ProxyError as error:
            _REMEMBERED[key] = error
    found = _REMEMBERED[key]
    if isinstance(found, ProxyError):
        raise ProxyError(found.message, hint=found.hint)
    return found


def full_arguments(op: str, arguments: Mapping[str, Any], operand: str) -> dict[str, Any]:
    """The arguments in schema order with defaults filled in, the operand left out.

    Raises:
        ProxyError: this torch has no such overload.
    """
    schema = _overload(op)._schema
    return {a.name: arguments.get(a.name, a.default_value) for a in schema.arguments if a.name != operand}


def _measure(
    op: str, arguments: Mapping[str, Any], operand: str, points: Sequence[float], dtype: torch.dtype,
    device: str, mode: Mode,
) -> tuple[Proxy, ...]:  # fmt: skip
    complete = full_arguments(op, arguments, operand)
    in_place = out_of_place(op) != op
    single = _ONE_ENTRY.get(out_of_place(op))

    def function(x: Tensor) -> Tensor:
        given = dict(complete)
        if single is not None and isinstance(given[single], (int, float)):
            given[single] = x.new_full((1,), given[single])
        return apply_overload(op, {**given, operand: x.clone() if in_place else x}, x)

    return measure(function, points, dtype, device, mode)


def _overload(op: str) -> Any:
    found = overload(op)
    if found is None:
        raise ProxyError(f"torch {torch.__version__} has no {op}")
    return found


def _frozen(arguments: Mapping[str, Any]) -> tuple[tuple[str, type, Any], ...]:
    # The type is in the key because True == 1 == 1.0.
    return tuple((n, type(a), tuple(a) if isinstance(a, (list, tuple)) else a) for n, a in sorted(arguments.items()))
