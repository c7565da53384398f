"""Pieces of a compiled scan side by side, in PyTorch's own OpenMP team.

After a parallel operator PyTorch's workers spin for some milliseconds, waiting for the next one: a thread of ours would
share a core with one of them and gain nothing, but the team itself starts at once. So the scan enters it, through the
function that compilers call for ``#pragma omp parallel`` (``GOMP_parallel``: GNU's libgomp, and LLVM's and Intel's
libraries as well). Where PyTorch brings none of these, pieces run one after another.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch

Result = TypeVar("Result")

Body = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
"""What an OpenMP team runs."""
_forked = False
_MOST_PIECES = 64
"""Of a native loop, which keeps in the bits of a word which of them are taken."""


def _after_fork() -> None:
    # A forked child inherits the team but not its threads.
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


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
    team = _team() if number > 1 and not _forked else None
    if team is None:
        return [scan(0, total)]
    results: list[Any] = [None] * number
    errors: list[BaseException] = []
    numbers = count()

    def body(_: int | None) -> None:
        # By a counter, because the team may have fewer threads than were asked for.
        try:
            while (piece := next(numbers)) < number:
                results[piece] = scan(total * piece // number, total * (piece + 1) // number)
        except BaseException as error:  # an exception cannot leave a foreign thread
            errors.append(error)

    team.parallel(Body(body), None, number, 0)
    if errors:
        raise errors[0]
    return results


def items_worth(least: int, items: int, work: int) -> int:
    """How many of the items hold as much work as is worth a thread, if all of them hold ``work``."""
    return -(-least * items // max(work, 1))


def in_team(body: Any, block: Any, total: int, least: int) -> None:
    """Run a native loop that hands out its own pieces, as ``team`` says, in as many threads as are worth it.

    Args:
        body: a ``Body``, given the address of the block.
        block: an array of ctypes, of 64-bit words; its second becomes the number of pieces, its fourth the address of
            ``omp_get_thread_num``.
        total: the number of items.
        least: the number of items below which another thread costs more than it saves.
    """
    number = max(1, min(torch.get_num_threads(), total // max(least, 1), _MOST_PIECES))
    team = _team() if number > 1 and not _forked else None
    if team is None:
        block[1] = 1
        body(ctypes.addressof(block))
    else:
        block[1], block[3] = number, team.thread_number
        team.parallel(body, ctypes.addressof(block), number, 0)


class _Team(NamedTuple):
    """Functions of the OpenMP library that PyTorch has loaded."""

    parallel: Callable[..., None]
    """``GOMP_parallel(body, data, threads, flags)``."""
    thread_number: int
    """The address of ``omp_get_thread_num()``."""


@lru_cache(maxsize=1)
def _team() -> _Team | None:
    if not hasattr(os, "RTLD_NOLOAD"):
        return None
    folder = Path(torch.__file__).parent / "lib"
    for path in (p for name in ("libgomp*", "libiomp5*", "libomp*") for p in sorted(folder.glob(name))):
        try:
            # Never load another one: two OpenMP runtimes in a process fight for the cores.
            library = ctypes.CDLL(str(path), mode=os.RTLD_NOLOAD)
            parallel, thread_number = library.GOMP_parallel, library.omp_get_thread_num
        except (OSError, AttributeError):
            continue
        parallel.argtypes, parallel.restype = [Body, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint], None
        return _Team(parallel, ctypes.cast(thread_number, ctypes.c_void_p).value or 0)
    return None
