"""The windows that a pooling or convolution operator reads, from its arguments and actual sizes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fxcheck.scan import Windows, WindowSpec, adaptive, sliding


def pooling_windows(
    operator: str, arguments: Mapping[str, Any], size_in: tuple[int, ...], size_out: tuple[int, ...]
) -> Windows:
    """The windows of a (max or average, sliding or adaptive) pool.

    Args:
        operator: overload, as ``aten.max_pool2d.default``.
        arguments: by schema name.
        size_in: spatial sizes of the operand.
        size_out: spatial sizes of the result.
    """
    if "adaptive" in operator:
        return adaptive(size_in, size_out)
    n = len(size_in)
    kernel = numbers(arguments["kernel_size"], n)
    spec = WindowSpec(
        kernel, numbers(arguments.get("stride") or kernel, n), numbers(arguments.get("padding") or 0, n),
        numbers(arguments.get("dilation") or 1, n),
    )  # fmt: skip
    return sliding(spec, size_in, size_out)


def convolution_windows(
    arguments: Mapping[str, Any], kernel: tuple[int, ...], size_in: tuple[int, ...], size_out: tuple[int, ...]
) -> Windows | None:
    """The windows of a convolution; None for padding that is named rather than counted."""
    n = len(size_in)
    padding = arguments.get("padding")
    if isinstance(padding, str):
        return None
    spec = WindowSpec(
        kernel, numbers(arguments.get("stride") or 1, n), numbers(padding or 0, n),
        numbers(arguments.get("dilation") or 1, n),
    )  # fmt: skip
    return sliding(spec, size_in, size_out)


def numbers(value: Any, count: int) -> tuple[int, ...]:
    """A size argument as a tuple of ``count`` numbers."""
    items = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    return tuple(int(i) for i in (items * count if len(items) == 1 else items))
