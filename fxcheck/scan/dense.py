"""Dense CPU tensors as flat numpy arrays in the order of their memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
"""The dtypes that the compiled scans take."""
_PLAIN = tuple(tuple(range(dimensions)) for dimensions in range(8))


def widened(x: Tensor) -> Tensor:
    """The same numbers as float32 or float64, in memory as they are, which the processor compares; without gradients."""
    x = x.detach().resolve_neg()
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def order_of(x: Tensor) -> tuple[int, ...] | None:
    """The dimensions from outermost to innermost in memory, ``None`` when the memory has gaps or overlaps."""
    if x.is_contiguous():
        return _PLAIN[x.ndim] if x.ndim < len(_PLAIN) else tuple(range(x.ndim))
    order = tuple(sorted(range(x.ndim), key=lambda axis: (x.stride()[axis], -axis), reverse=True))
    return order if x.permute(order).is_contiguous() else None


def line(x: Tensor, order: tuple[int, ...]) -> Tensor:
    """The entries of a tensor that is dense in this order, as they lie in memory, in one dimension."""
    in_order = order == _PLAIN[x.ndim] if x.ndim < len(_PLAIN) else False
    return (x if in_order else x.permute(order)).reshape(-1)


def flat(x: Tensor, order: tuple[int, ...]) -> Any:
    """The memory of a tensor that is dense in this order."""
    return line(x, order).numpy()


def row_major(memory: Any, x: Tensor, order: tuple[int, ...]) -> Any:
    """Flat row-major indices of entries given by their place in memory."""
    if order == tuple(range(x.ndim)) or not memory.size:
        return memory
    places = np.unravel_index(memory, [x.shape[axis] for axis in order])
    by_axis = dict(zip(order, places, strict=True))
    return np.ravel_multi_index([by_axis[axis] for axis in range(x.ndim)], tuple(x.shape))
