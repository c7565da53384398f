"""Pieces of a compiled scan side by side, in Python threads.

Their gain needs idle cores: after a parallel operator PyTorch's OpenMP threads spin for some milliseconds, unless the
process was started with ``OMP_WAIT_POLICY=passive``.

Not numba's own threading layers: OpenMP's cannot be used after a fork and would be a second pool spinning beside
PyTorch's, the built-in one aborts the process when two threads enter it, and ``parallel=True`` compiles for much longer.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TypeVar

import torch

Result = TypeVar("Result")

_pools: dict[int, ThreadPoolExecutor] = {}
# A forked child inherits the pool but not its threads.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pools.clear)


def pieces(scan: Callable[[int, int], Result], total: int, least: int) -> list[Result]:
    """Run ``scan`` over [0, total) in pieces, at most ``torch.get_num_threads()`` of them.

    Args:
        scan: called with the first and the last (exclusive) item; must release the GIL to gain anything.
        total: the number of items.
        least: the number of items below which another thread costs more than it saves.

    Returns:
        The results in order.
    """
    number = max(1, min(torch.get_num_threads(), total // max(least, 1)))
    bounds = [total * piece // number for piece in range(number + 1)]
    pool = _pool(number - 1) if number > 1 else None
    others = [pool.submit(scan, *pair) for pair in pairwise(bounds[1:])] if pool else []
    return [scan(0, bounds[1]), *(other.result() for other in others)]


def _pool(workers: int) -> ThreadPoolExecutor:
    if workers not in _pools:
        _pools[workers] = ThreadPoolExecutor(workers, thread_name_prefix="fxcheck-scan")
    return _pools[workers]
