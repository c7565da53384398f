"""Building blocks shared by the families: overload names, frequent facts, questions about a call."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from fxcheck.records.graph import Ref, refs_in
from fxcheck.records.semantics import Call, Kind, OpSemantics, Transfer

KEEP = OpSemantics(Kind.STRUCTURAL, Transfer.KEEP)
PAD = OpSemantics(Kind.STRUCTURAL, Transfer.PAD)
LINEAR = OpSemantics(Kind.LINEAR)
SMOOTH = OpSemantics(Kind.SMOOTH)
CONSTANT = OpSemantics(Kind.CONSTANT)

_INTEGRAL = ("int", "uint", "bool", "quint", "qint")


def aten(names: str) -> list[str]:
    """Overload names from words: ``relu`` is ``aten.relu.default``, ``add.Tensor`` is ``aten.add.Tensor``."""
    return [f"aten.{name}" if "." in name else f"aten.{name}.default" for name in names.split()]


def unknown(note: str) -> OpSemantics:
    """An operator, or a use of one, that no rule covers; the note says why."""
    return OpSemantics(Kind.UNKNOWN, note=note)


def discontinuous(note: str = "", *, code: str = "FX401", elementwise: bool = False) -> OpSemantics:
    """An operator that jumps; FX401 for values, FX404 for indices and masks."""
    return OpSemantics(Kind.DISCONTINUOUS, singular_code=code, elementwise=elementwise, note=note)


def breaking(code: str, note: str, transfer: Transfer = Transfer.LOST) -> OpSemantics:
    """An operator whose backward is not the derivative of its forward."""
    return OpSemantics(Kind.BREAKING, transfer, singular_code=code, note=note)


def singular(
    operand: str, note: str, *, code: str = "FX205", nonnegative: bool = False, elementwise: bool = False
) -> OpSemantics:
    """An operator that is analytic off a thin set of values of ``operand``."""
    return OpSemantics(
        Kind.SINGULAR, operand=operand, singular_code=code, nonnegative=nonnegative, elementwise=elementwise, note=note
    )


def kinked(
    *kinks: float, operand: str = "self", nondecreasing: bool = False, nonnegative: bool = False, positive: bool = False
) -> OpSemantics:
    """A scalar function of ``operand`` with the given candidate kinks."""
    return OpSemantics(
        Kind.KINKED, operand=operand, kinks=tuple(sorted(set(kinks))), elementwise=True, nondecreasing=nondecreasing,
        nonnegative=nonnegative or positive, positive=positive,
    )  # fmt: skip


def refs_of(call: Call, *names: str) -> list[int]:
    """Node ids inside the named arguments (inside all of them when none is named)."""
    return list(refs_in({n: call.arguments.get(n) for n in names} if names else dict(call.arguments)))


def all_constant(call: Call, *names: str) -> bool:
    """No trainable parameter reaches the named arguments, tensors inside tuples included."""
    return all(r in call.constants for r in refs_of(call, *names))


def scalar_of(call: Call, name: str, default: float | None = None) -> float | None:
    """A Python number argument; ``default`` when it is None, NaN never, None when it is not a known number."""
    value = call.arg(name)
    if value is None:
        return default
    if isinstance(value, (bool, Ref)) or not isinstance(value, (int, float)) or math.isnan(value):
        return None
    return float(value)


def ints_of(value: Any, length: int | None = None) -> tuple[int, ...] | None:
    """A size argument as a tuple, one entry repeated ``length`` times; None when it is not made of numbers."""
    items = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    if not items or not all(isinstance(i, int) for i in items):
        return None
    return items * length if length is not None and len(items) == 1 else items


def is_integral(dtype: Any) -> bool:
    """True for the text of an integer or boolean dtype."""
    return str(dtype).removeprefix("torch.").startswith(_INTEGRAL)


def is_floating(dtype: str | None) -> bool:
    """True for the text of a real floating dtype."""
    return (dtype or "").startswith(("float", "bfloat"))


def reduced_sizes(call: Call, operand: str = "self", dim: Any = None) -> tuple[int, ...] | None:
    """As ``Call.sizes_of``, sizes of the reduced dimensions (all of them for None or no entry); None when the shape is not
    known."""
    shape = call.sizes_of(operand)
    if shape is None:
        return None
    if dim is None or dim == () or dim == [] or not shape:
        return shape
    dims = ints_of(dim)
    if dims is None or any(not -len(shape) <= d < len(shape) for d in dims):
        return None
    return tuple(shape[d] for d in dims)


def one_entry(sizes: Iterable[int] | None) -> bool:
    """Exactly one entry is reduced."""
    return sizes is not None and all(s == 1 for s in sizes)


def not_empty(sizes: Iterable[int] | None) -> bool:
    """At least one entry is reduced."""
    return sizes is not None and all(s > 0 for s in sizes)
