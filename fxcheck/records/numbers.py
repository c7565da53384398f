"""Numbers in JSON without loss: floats as hex, fractions as hex or p/q, and a reader that trusts nothing."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, TypeVar

import numpy as np

from fxcheck.errors import FxcheckError

_T = TypeVar("_T")
_ZEROS = re.compile(r"\.?0+p")
_RATIO = re.compile(r"([0-9]{1,4000})/([1-9][0-9]{0,3999})")
_LARGEST = 2**31
_KINDS = {str: "text", int: "a whole number from 0 to 2147483647", list: "a list", dict: "an object"}


def to_hex(values: np.ndarray) -> list[str]:
    """Each float as ``float.hex`` writes it, less trailing zeros: ``float.fromhex`` gives it back exactly."""
    return [_ZEROS.sub("p", value.hex()) for value in np.asarray(values, np.float64).tolist()]


def from_hex(text: Any) -> float:
    """The finite float that was written by ``to_hex`` or ``float.hex``.

    Raises:
        ValueError: it is anything else, including a number that would have to be rounded.
    """
    if not isinstance(text, str) or len(text) > 32:
        raise ValueError("not a hexadecimal float")
    try:
        value = float.fromhex(text)
    except OverflowError as error:
        raise ValueError("too large for a float") from error
    if not math.isfinite(value) or text not in (value.hex(), _ZEROS.sub("p", value.hex())):
        raise ValueError("not finite, or not as float.hex writes it")
    return value


def fraction_text(value: Fraction) -> str:
    """A fraction >= 0 as a hexadecimal float where that is exact, else ``p/q``."""
    try:
        rounded = float(value)
    except OverflowError:
        rounded = math.inf
    if math.isfinite(rounded) and Fraction(rounded) == value:
        return to_hex(np.array([rounded]))[0]
    return f"{value.numerator}/{value.denominator}"


def from_fraction_text(text: Any) -> Fraction:
    """The fraction that ``fraction_text`` wrote.

    Raises:
        ValueError: it is anything else.
    """
    ratio = _RATIO.fullmatch(text) if isinstance(text, str) else None
    return Fraction(int(ratio[1]), int(ratio[2])) if ratio else Fraction(from_hex(text))


@dataclass(frozen=True)
class Reader:
    """Typed access to the members of a JSON object; every fault is one FxcheckError that says where."""

    document: Any
    where: str
    hint: str

    def text(self, name: str) -> str:
        return str(self._member(name, str))

    def whole(self, name: str) -> int:
        value = self._member(name, int)
        if isinstance(value, bool) or not 0 <= value < _LARGEST:
            raise self._wanted(name, _KINDS[int])
        return int(value)

    def items(self, name: str) -> list[Any]:
        return list(self._member(name, list))

    def texts(self, name: str) -> tuple[str, ...]:
        items = self.items(name)
        if not all(isinstance(item, str) for item in items):
            raise self._wanted(name, "a list of texts")
        return tuple(items)

    def vector(self, name: str) -> np.ndarray:
        """(n,) float64."""
        return np.array(self._each(name, self.items(name), from_hex), dtype=np.float64)

    def matrix(self, name: str, width: int) -> np.ndarray:
        """(n, width) float64; ragged rows are a fault."""
        rows = self.items(name)
        if not all(isinstance(row, list) and len(row) == width for row in rows):
            raise self._wanted(name, f"a list of rows of {width} numbers")
        values = [self._each(name, row, from_hex) for row in rows]
        return np.array(values, dtype=np.float64).reshape(len(rows), width)

    def fractions(self, name: str) -> tuple[Fraction, ...]:
        return tuple(self._each(name, self.items(name), from_fraction_text))

    def _each(self, name: str, items: list[Any], read: Callable[[Any], _T]) -> list[_T]:
        try:
            return [read(item) for item in items]
        except ValueError as error:
            raise self._wanted(name, "finite numbers, as float.hex writes them") from error

    def _member(self, name: str, kind: type) -> Any:
        if not isinstance(self.document, dict):
            raise FxcheckError(
                f"{self.where} should be an object, found {type(self.document).__name__}", hint=self.hint
            )
        if not isinstance(self.document.get(name), kind):
            raise self._wanted(name, _KINDS[kind])
        return self.document[name]

    def _wanted(self, name: str, wanted: str) -> FxcheckError:
        return FxcheckError(f"{self.where}: {name!r} should be {wanted}", hint=self.hint)
