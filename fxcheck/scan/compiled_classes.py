"""The steps of ``class_steps`` with numba."""

from __future__ import annotations

from math import prod
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fxcheck.scan.class_steps import Keys, bits_of
from fxcheck.scan.threads import items_worth, pieces
from fxcheck.scan.windows import Windows

_LEAST = 1 << 16  # words per thread


def hashed(x: Tensor, keys: tuple[Keys, Keys]) -> Tensor:
    """As ``class_steps.hashed``."""
    classes = torch.empty(2, x.shape[0], *x.shape[2:], dtype=torch.int64)
    cells = bits_of(x).reshape(*x.shape[:2], prod(x.shape[2:]))
    tensors = cells.numpy(), np.array(keys, np.uint64), _words(classes, 2, x.shape[0], cells.shape[2])
    _run(_loops().hashed, tensors, x.shape[0], x.numel())
    return classes


def weighted(
    x: Tensor, windows: Windows, dimension: int, keys: tuple[Keys, Keys], padding: Keys, salts: Keys
) -> Tensor:
    """As ``class_steps.weighted``."""
    table = windows.arrays[dimension]
    before, after = x.shape[1 : dimension + 2], x.shape[dimension + 3 :]
    total = torch.empty(2, *before, len(table), *after, dtype=torch.int64)
    numbers = table, np.array(keys, np.uint64), np.array(padding, np.uint64), np.array(salts, np.uint64)
    inner = (prod(after),) if after else ()
    cells = _words(x.contiguous(), 2, prod(before), x.shape[dimension + 2], *inner)
    loop = _loops().weighted if after else _loops().weighted_last
    tensors = cells, *numbers, _words(total, 2, prod(before), len(table), *inner)
    _run(loop, tensors, prod(before), total[0].numel() * table.shape[1])
    return total


def salted(classes: Tensor, keys: Keys) -> Tensor:
    """As ``class_steps.salted``."""
    total = torch.empty(classes.shape, dtype=torch.int64)
    number = classes[0].numel()
    tensors = _words(classes.contiguous(), 2, number), np.array(keys, np.uint64), _words(total, 2, number)
    _run(_loops().salted, tensors, number, number)
    return total


def mixed(classes: Tensor, windows: Windows) -> Tensor:
    """As ``classes.mixed``."""
    added = (1,) * (3 - len(windows.size_in))
    result = torch.empty(classes.shape[1], *windows.size_out, dtype=torch.bool)
    cells = _words(classes.contiguous(), *classes.shape[:2], *added, *windows.size_in)
    tensors = cells, *windows.three, result.numpy().reshape(-1, *added, *windows.size_out)
    _run(_loops().mixed, tensors, classes.shape[1], result.numel() * windows.taps)
    return result


def _run(loop: Any, tensors: tuple[Any, ...], total: int, work: int) -> None:
    """Run a loop over ``total`` items, in pieces that are worth a thread; ``work`` is the number of words that it mixes."""
    pieces(lambda first, last: loop(*tensors, first, last), total, items_worth(_LEAST, total, work))


def _words(x: Tensor, *shape: int) -> Any:
    """The memory of a contiguous int64 tensor as unsigned words of this shape."""
    return x.numpy().view(np.uint64).reshape(shape)


def _loops() -> ModuleType:
    from fxcheck.scan import class_loops  # imports numba

    return class_loops
