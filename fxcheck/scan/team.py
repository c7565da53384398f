"""Loops that OpenMP threads run without Python: no interpreter lock to wait for, no Python frame on a foreign thread.

A loop is given one block of 64-bit words: the number of pieces handed out so far, the number of pieces, the number of
items, and then addresses and numbers of its own. Importing this module imports numba, so only loops do.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import carray, types  # type: ignore[import-untyped,import-not-found,unused-ignore]

from fxcheck.scan.jit import Native, generated, inlined
from fxcheck.scan.threads import Body, in_team

HEADER = 3
"""Words of a block before those of the loop itself."""


@generated
def pointer(_, address):  # type: ignore[no-untyped-def]
    """An address as what ``carray`` takes."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.inttoptr(values[0], context.get_value_type(types.voidptr))

    return types.voidptr(types.int64), generate


@generated
def _taken(_, block):  # type: ignore[no-untyped-def]
    """How many pieces had been handed out; one more is, by this."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        word = context.get_value_type(types.int64)
        return builder.atomic_rmw("add", builder.bitcast(values[0], word.as_pointer()), word(1), "seq_cst")

    return types.int64(types.voidptr), generate


@inlined
def next_piece(block):  # type: ignore[no-untyped-def]
    """A piece that no thread has: its number, its first and its last (exclusive) item; all -1 when they are taken."""
    piece, header = _taken(block), carray(block, 3, np.int64)
    if piece >= header[1]:
        return -1, -1, -1
    return piece, header[2] * piece // header[1], header[2] * (piece + 1) // header[1]


class Team:
    """A loop over items, compiled at its first call.

    Args:
        function: of the address of a block; it asks for ``next_piece`` until there is none.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.native = Native(function, types.void(types.voidptr))
        self.body: Any = None

    def __call__(self, total: int, least: int, *words: int) -> Any:
        """Run it.

        Args:
            total: the number of items.
            least: the number of items below which another thread costs more than it saves.
            words: addresses and numbers, behind the header of the block.

        Returns:
            The block (int64), into which the loop may have written.
        """
        if self.body is None:
            self.body = ctypes.cast(self.native.compile(), Body)
        block = np.array((0, 0, total, *words), np.int64)
        in_team(self.body, block, total, least)
        return block
