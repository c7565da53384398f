"""Sums, products and quotients, entry by entry (theory 4.7)."""

from __future__ import annotations

from dataclasses import replace

from fxcheck.ops.common import aten, discontinuous
from fxcheck.ops.registry import constant_semantics, semantics_for
from fxcheck.records.graph import Ref
from fxcheck.records.semantics import Call, Kind, OpSemantics, Transfer

ADD = OpSemantics(Kind.LINEAR, Transfer.ADD, elementwise=True)
LOST = OpSemantics(Kind.LINEAR, elementwise=True)


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) else None


def _scaled(*scales: float | None) -> OpSemantics:
    known = tuple(s for s in scales if s is not None)
    return replace(ADD, scales=known) if len(known) == len(scales) else LOST


@semantics_for(*aten("add.Tensor add.Scalar"))
def add(call: Call) -> OpSemantics:
    return _scaled(1.0, _number(call.arg("alpha", 1)))


@semantics_for(*aten("sub.Tensor sub.Scalar subtract.Tensor subtract.Scalar"))
def subtract(call: Call) -> OpSemantics:
    alpha = _number(call.arg("alpha", 1))
    return _scaled(1.0, None if alpha is None else -alpha)


@semantics_for(*aten("rsub.Tensor rsub.Scalar"))
def reversed_subtract(call: Call) -> OpSemantics:
    alpha = _number(call.arg("alpha", 1))
    return _scaled(None if alpha is None else -alpha, 1.0)


constant_semantics(aten("neg negative"), _scaled(-1.0))


@semantics_for(*aten("mul.Tensor mul.Scalar multiply.Tensor multiply.Scalar"))
def multiply(call: Call) -> OpSemantics:
    left, right = call.arg("self"), call.arg("other")
    square = isinstance(left, Ref) and left == right
    return OpSemantics(Kind.LINEAR, Transfer.MULTIPLY, elementwise=True, nonnegative=square)


@semantics_for(
    *aten(
        "div.Tensor div.Scalar div.Tensor_mode div.Scalar_mode divide.Tensor divide.Scalar divide.Tensor_mode "
        "divide.Scalar_mode true_divide.Tensor true_divide.Scalar"
    )
)
def divide(call: Call) -> OpSemantics:
    if call.arg("rounding_mode") is not None:
        return discontinuous("it rounds", elementwise=True)
    kind = Kind.LINEAR if call.is_constant("other") else Kind.SMOOTH
    return OpSemantics(kind, Transfer.DIVIDE, elementwise=True)


constant_semantics(aten("addcmul lerp.Scalar lerp.Tensor"), LOST)
constant_semantics(aten("cross linalg_cross diff"), OpSemantics(Kind.LINEAR))
constant_semantics(aten("glu"), OpSemantics(Kind.SMOOTH))
constant_semantics(aten("addcdiv"), OpSemantics(Kind.SMOOTH, elementwise=True))
constant_semantics(aten("positive"), OpSemantics(Kind.STRUCTURAL, Transfer.KEEP, elementwise=True))
