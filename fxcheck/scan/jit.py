"""Compilation of the loops at their first call. Importing this module imports numba, so only loops do."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np
from numba import cfunc, njit  # type: ignore[import-untyped,import-not-found,unused-ignore]
from numba.extending import intrinsic  # type: ignore[import-untyped,import-not-found,unused-ignore]
from numba.np.unsafe.ndarray import to_fixed_tuple  # type: ignore[import-untyped,import-not-found,unused-ignore]

inlined: Callable[[Callable[..., Any]], Callable[..., Any]] = njit(inline="always")
"""For the pieces of a loop: an array that is passed to a call costs a reference count, more than a short row does."""

outlined: Callable[[Callable[..., Any]], Callable[..., Any]] = njit(error_model="numpy")
"""For loops over a whole image: LLVM vectorises them better on their own than inside a longer function."""

generated: Callable[[Callable[..., Any]], Callable[..., Any]] = intrinsic(prefer_literal=True)
"""For pieces of a loop that are written in LLVM's own terms. Their changes do not reach the cache of the loops around them
unless both are in one file."""

as_tuple: Callable[..., Any] = to_fixed_tuple
"""Of a flat array, and how many entries it has."""


def named(function: Any, name: str, **values: Any) -> Any:
    """A copy of a function under a name of its own, with other values of some global names.

    Every function with a closure that is to be compiled needs a name that says what its closure holds. numba names compiled
    code by the function, a number that counts functions in this process, and the types of its arguments; when code that two
    processes compiled comes out of the cache, the numbers may be equal, and one function runs for the other. Nor may a
    compiled function be in a closure, whose values are a part of the key in the cache: it has no lasting identity, so that
    every process would compile anew and add to the cache. It belongs among the globals.
    """
    copy = FunctionType(function.__code__, {**function.__globals__, **values}, name, None, function.__closure__)
    copy.__qualname__ = name
    copy.__module__ = function.__module__
    return copy


def _apart(function: Any, kinds: Any = ()) -> Any:
    """A copy of a function that shares no file of numba's cache with other sources of the loops or other kinds of arguments.

    numba writes the index of a function's compiled variants before the code of a new one, under a number that the index had
    free. Meanwhile another process finds under that number what an older version left there, or what a third process puts
    there for other arguments, and runs it.
    """
    digest = blake2b(repr(kinds).encode(), key=_sources(), digest_size=8).hexdigest()
    return named(function, f"{function.__qualname__}_{digest}")


@lru_cache(maxsize=1)
def _sources() -> bytes:
    """Tells the sources of compiled loops apart from those of another version."""
    found = blake2b(digest_size=32)
    for path in sorted(Path(__file__).parent.glob("*.py")):
        found.update(path.read_bytes())
    return found.digest()


class Kernel:
    """A function compiled at its first call for arguments of one kind, kept in numba's cache on disk where that can be written.

    Compiled loops are serial and without the GIL.

    Args:
        function: the loop, in the Python that numba compiles.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.compiled: dict[tuple[Any, ...], Callable[..., Any]] = {}

    def __call__(self, *arguments: Any) -> Any:
        """Run the compiled loop."""
        kinds = tuple(map(_kind, arguments))
        compiled = self.compiled.get(kinds)
        if compiled is None:
            compiled = self.compiled[kinds] = _cached(
                lambda cache: njit(nogil=True, cache=cache, error_model="numpy"), _apart(self.function, kinds)
            )  # fmt: skip
        try:
            return compiled(*arguments)
        except OSError:  # the cache was writable when asked, and then was not
            compiled = self.compiled[kinds] = njit(nogil=True, error_model="numpy")(self.function)
            return compiled(*arguments)


def _kind(argument: Any) -> Any:
    """Tells apart what numba compiles apart; its own ``typeof`` takes several times as long."""
    if isinstance(argument, np.ndarray):
        return argument.dtype, argument.ndim, argument.flags.c_contiguous, argument.flags.writeable
    return tuple(map(_kind, argument)) if isinstance(argument, tuple) else type(argument)


def as_c(function: Callable[..., Any], signature: Any) -> Any:
    """A compiled function as C calls it.

    Args:
        function: in the Python that numba compiles; it makes arrays of addresses by ``carray``.
        signature: numba's, of plain C types.

    Returns:
        A ctypes function pointer, which runs without the GIL.
    """
    return _cached(lambda cache: cfunc(signature, cache=cache, error_model="numpy"), _apart(function)).ctypes


def as_builtin(function: Callable[..., Any], signature: Any) -> Callable[..., Any]:
    """A compiled function as Python calls it, with the GIL: such a call costs a quarter of one through ctypes.

    Args:
        function: in the Python that numba compiles.
        signature: numba's, of numbers; an address is an ``intp``.
    """
    compiled = _cached(lambda cache: njit([signature], cache=cache, error_model="numpy"), _apart(function))
    entry: Callable[..., Any] = compiled.get_overload(*compiled.signatures)
    return entry


def _cached(compiler: Callable[[bool], Callable[..., Any]], function: Callable[..., Any]) -> Any:
    try:
        return compiler(True)(function)
    except (RuntimeError, OSError):  # no place to keep the cache in
        return compiler(False)(function)
