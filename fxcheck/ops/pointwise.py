"""Pointwise activations with kinks, and smooth elementwise functions (theory 4.1, 4.3)."""

from __future__ import annotations

from fxcheck.ops.registry import constant_semantics, semantics_for
from fxcheck.records.semantics import Call, Kind, OpSemantics, Transfer


def kinked(*kinks: float, nondecreasing: bool = False, nonnegative: bool = False, operand: str = "self") -> OpSemantics:
    """A scalar function of ``operand`` with the given candidate kinks."""
    return OpSemantics(
        Kind.KINKED, operand=operand, kinks=tuple(sorted(set(kinks))), elementwise=True,
        nondecreasing=nondecreasing, nonnegative=nonnegative,
    )


constant_semantics(["aten.relu.default"], kinked(0.0, nondecreasing=True, nonnegative=True))
constant_semantics(["aten.relu6.default"], kinked(0.0, 6.0, nondecreasing=True, nonnegative=True))
constant_semantics(["aten.hardsigmoid.default"], kinked(-3.0, 3.0, nondecreasing=True, nonnegative=True))
constant_semantics(["aten.hardswish.default"], kinked(-3.0, 3.0))
constant_semantics(["aten.abs.default"], kinked(0.0, nonnegative=True))


@semantics_for("aten.hardtanh.default")
def hardtanh(call: Call) -> OpSemantics:
    low, high = call.arg("min_val"), call.arg("max_val")
    return kinked(low, high, nondecreasing=True, nonnegative=low >= 0)


SMOOTH_EVERYWHERE = ("aten.tanh.default", "aten.sin.default", "aten.cos.default", "aten.gelu.default", "aten.silu.default")
constant_semantics(SMOOTH_EVERYWHERE, OpSemantics(Kind.SMOOTH, elementwise=True))
SMOOTH_POSITIVE = ("aten.exp.default", "aten.sigmoid.default")
constant_semantics(SMOOTH_POSITIVE, OpSemantics(Kind.SMOOTH, elementwise=True, positive=True, nonnegative=True))

ADD = OpSemantics(Kind.LINEAR, Transfer.ADD, elementwise=True)
