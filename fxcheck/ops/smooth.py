"""Elementwise functions that are analytic wherever they are finite, or analytic off single points."""

from __future__ import annotations

import math
from dataclasses import replace

from fxcheck.ops.common import SMOOTH, aten, discontinuous, singular, unknown
from fxcheck.ops.registry import constant_semantics, semantics_for
from fxcheck.records.semantics import Call, Kind, OpSemantics

_ELEMENTWISE = OpSemantics(Kind.SMOOTH, elementwise=True)
_NONNEGATIVE = OpSemantics(Kind.SMOOTH, elementwise=True, nonnegative=True)
_POSITIVE = OpSemantics(Kind.SMOOTH, elementwise=True, positive=True, nonnegative=True)

constant_semantics(
    aten(
        "tanh sin cos tan sinh asinh arcsinh atan arctan gelu silu mish log_sigmoid erf special_erf erfinv "
        "special_erfinv special_ndtri expm1 special_expm1 log log2 log10 log1p special_log1p lgamma special_gammaln "
        "digamma special_digamma special_psi sinc special_sinc i0 special_i1 special_i1e special_log_ndtr logaddexp "
        "logaddexp2 polygamma special_polygamma mvlgamma special_multigammaln"
    ),
    _ELEMENTWISE,
)
constant_semantics(
    aten("exp exp2 special_exp2 sigmoid special_expit cosh erfc special_erfc special_erfcx special_ndtr rsqrt"), _POSITIVE
)
constant_semantics(aten("square special_i0"), _NONNEGATIVE)
constant_semantics(aten("log_sigmoid_forward"), replace(SMOOTH, cut_outputs=(1,)))
constant_semantics(
    aten("acos arccos asin arcsin atanh arctanh acosh arccosh"),
    singular("self", "its slope is infinite at the end of its domain", elementwise=True),
)
constant_semantics(
    aten("special_entr"), singular("self", "x log x has an infinite slope at 0", elementwise=True)
)
constant_semantics(
    aten("xlogy.Tensor special_xlogy special_xlog1py"),
    singular("self", "x log x is not Lipschitz at 0", elementwise=True),
)


@semantics_for(*aten("xlogy.Scalar_Self special_xlogy.self_scalar special_xlog1py.self_scalar"))
def scaled_log(call: Call) -> OpSemantics:
    return _ELEMENTWISE


@semantics_for(*aten("xlogy.Scalar_Other special_xlogy.other_scalar special_xlog1py.other_scalar"))
def times_log_of_constant(call: Call) -> OpSemantics:
    return OpSemantics(Kind.LINEAR, elementwise=True)


@semantics_for(*aten("atan2 arctan2"))
def atan2(call: Call) -> OpSemantics:
    """Analytic in the open upper and right half-planes of (other, self)."""
    if max(call.lower_bound("self"), call.lower_bound("other")) > 0:
        return _ELEMENTWISE
    return discontinuous("the angle jumps across the negative axis and has no limit at the origin", elementwise=True)


@semantics_for(*aten("hypot"))
def hypot(call: Call) -> OpSemantics:
    if max(call.lower_bound("self"), call.lower_bound("other")) > 0:
        return _POSITIVE
    return singular("self", "the length of (self, other) is not differentiable at (0, 0)", nonnegative=True)


@semantics_for(*aten("sqrt"))
def sqrt(call: Call) -> OpSemantics:
    if call.lower_bound("self") > 0:
        return _POSITIVE
    return singular(
        "self", "its slope at 0 is infinite; add a positive constant first", nonnegative=True, elementwise=True
    )


@semantics_for(*aten("reciprocal"))
def reciprocal(call: Call) -> OpSemantics:
    return _POSITIVE if call.lower_bound("self") > 0 else _ELEMENTWISE


@semantics_for(*aten("pow.Tensor_Scalar float_power.Tensor_Scalar"))
def pow_scalar(call: Call) -> OpSemantics:
    return _power(call, call.number("exponent"))


def _power(call: Call, exponent: float | None) -> OpSemantics:
    if call.lower_bound("self") > 0:
        return _POSITIVE
    if exponent is not None and math.isfinite(exponent) and (exponent == int(exponent) or not 0 < exponent < 1):
        even_or_real = exponent != int(exponent) or exponent % 2 == 0
        return _NONNEGATIVE if even_or_real else _ELEMENTWISE
    return singular("self", "a power below 1 has an infinite slope at 0; add a positive constant first",
                    nonnegative=exponent is not None, elementwise=True)  # fmt: skip


@semantics_for(*aten("pow.Tensor_Tensor float_power.Tensor_Tensor"))
def pow_tensor(call: Call) -> OpSemantics:
    if call.is_constant("exponent"):
        return _power(call, call.number("exponent"))
    return _exponential(call, call.lower_bound("self"))


@semantics_for(*aten("pow.Scalar float_power.Scalar"))
def exponential(call: Call) -> OpSemantics:
    return _exponential(call, call.lower_bound("self"))


def _exponential(call: Call, base: float) -> OpSemantics:
    return _POSITIVE if base > 0 else unknown("the base of a power with a trainable exponent may be 0 or negative")
