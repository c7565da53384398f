"""Loops that OpenMP threads run without Python: no interpreter lock to wait for, no Python frame on a foreign thread.

A loop is given one block of 64-bit words: which pieces have been handed out, as bits, the number of pieces, the number of
items, the address of a function that says the number of a thread (0: there is one thread), and then addresses and numbers of
its own. Importing this module imports numba, so only loops do.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped,import-not-found,unused-ignore]
from numba import carray, types  # type: ignore[import-untyped,import-not-found,unused-ignore]

from fxcheck.scan.jit import as_c, generated, inlined
from fxcheck.scan.threads import Body, in_team

_HEADER = 4
"""Words of a block before those of the loop itself."""


@generated
def pointer(_, address):  # type: ignore[no-untyped-def]
    """An address as what ``carray`` takes."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.inttoptr(values[0], context.get_value_type(types.voidptr))

    return types.voidptr(types.int64), generate


@generated
def _claimed(_, block, piece):  # type: ignore[no-untyped-def]
    """The pieces that had been taken, as bits; this one is, by this."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        word = context.get_value_type(types.int64)
        bit = builder.shl(word(1), values[1])
        return builder.atomic_rmw("or", builder.bitcast(values[0], word.as_pointer()), bit, "seq_cst")

    return types.int64(types.voidptr, types.int64), generate


@generated
def _answer(_, function):  # type: ignore[no-untyped-def]
    """What a C function without arguments, at this address, returns: an ``int``."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        kind = ir.FunctionType(ir.IntType(32), ())
        return builder.sext(builder.call(builder.inttoptr(values[0], kind.as_pointer()), ()), ir.IntType(64))

    return types.int64(types.int64), generate


@inlined
def next_piece(block):  # type: ignore[no-untyped-def]
    """A piece that no thread has: its number, its first and its last (exclusive) item; all -1 when they are taken.

    A thread begins with the piece of its own number. PyTorch's operators share out their work like that, so what the last of
    them has written there is in this thread's own cache.
    """
    header = carray(block, _HEADER, np.int64)
    number, total, own = header[1], header[2], 0
    if header[3]:
        own = _answer(header[3])
    for i in range(number):
        piece = (own + i) % number
        if not (_claimed(block, piece) >> piece) & 1:
            return piece, total * piece // number, total * (piece + 1) // number
    return -1, -1, -1


@inlined
def items(block):  # type: ignore[no-untyped-def]
    """How many items there are."""
    return carray(block, _HEADER, np.int64)[2]


@inlined
def own_words(block, number):  # type: ignore[no-untyped-def]
    """The loop's own words, of which there are so many."""
    return carray(block, _HEADER + number, np.int64)[_HEADER:]


class Team:
    """A loop over items, compiled at its first call.

    Args:
        function: of the address of a block; it asks for ``next_piece`` until there is none.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    @cached_property
    def body(self) -> Any:
        """The compiled loop."""
        return ctypes.cast(as_c(self.function, types.void(types.voidptr)), Body)

    def __call__(self, total: int, least: int, *words: int) -> Any:
        """Run it.

        Args:
            total: the number of items.
            least: the number of items below which another thread costs more than it saves.
            words: addresses and numbers, behind the header of the block.

        Returns:
            The block, an array of ctypes, into which the loop may have written.
        """
        block = _words(_HEADER + len(words))(0, 0, total, 0, *words)
        in_team(self.body, block, total, least)
        return block


@lru_cache(maxsize=64)
def _words(number: int) -> type[ctypes.Array[ctypes.c_int64]]:
    return ctypes.c_int64 * number
