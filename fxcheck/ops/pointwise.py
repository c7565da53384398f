"""Pointwise activations with kinks: the constants that an operator compares with are candidates (theory 4.1, 4.3)."""

from __future__ import annotations

import math

from fxcheck.ops.common import LINEAR, aten, discontinuous, kinked, singular, unknown
from fxcheck.ops.registry import constant_semantics, semantics_for
from fxcheck.records.semantics import Call, Kind, OpSemantics, Transfer

_IDENTITY = OpSemantics(Kind.STRUCTURAL, Transfer.KEEP, elementwise=True)
_SMOOTH = OpSemantics(Kind.SMOOTH, elementwise=True)
_POSITIVE = OpSemantics(Kind.SMOOTH, elementwise=True, positive=True, nonnegative=True)


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) else None


constant_semantics(aten("relu"), kinked(0.0, nondecreasing=True, nonnegative=True))
constant_semantics(aten("relu6"), kinked(0.0, 6.0, nondecreasing=True, nonnegative=True))
constant_semantics(aten("hardsigmoid"), kinked(-3.0, 3.0, nondecreasing=True, nonnegative=True))
constant_semantics(aten("hardswish"), kinked(-3.0, 3.0))
constant_semantics(aten("selu"), kinked(0.0, nondecreasing=True))


@semantics_for(*aten("abs absolute"), over_complex=True)
def absolute(call: Call) -> OpSemantics:
    """The modulus of a complex number has its kinks elsewhere than |x|, so no chain may go through it."""
    operand = call.arg("self")
    dtype = call.dtypes.get(getattr(operand, "id", -1)) or ""
    if "complex" in dtype:
        return singular("self", "the modulus of a complex number has no derivative at 0", nonnegative=True)
    return kinked(0.0, nonnegative=True)


@semantics_for(*aten("hardtanh"))
def hardtanh(call: Call) -> OpSemantics:
    return clip(call.arg("min_val", -1.0), call.arg("max_val", 1.0))


def clip(low: float | None, high: float | None) -> OpSemantics:
    """min(max(x, low), high); an absent or infinite bound is no kink."""
    bounds = [float(b) for b in (low, high) if b is not None]
    kinks = [b for b in bounds if math.isfinite(b)]
    if low == math.inf or high == -math.inf or any(map(math.isnan, bounds)):
        return unknown("a bound that no finite number satisfies")
    if not kinks:
        return _IDENTITY
    least = -math.inf if low is None else min(bounds)
    return kinked(*kinks, nondecreasing=True, nonnegative=least >= 0, positive=least > 0)


@semantics_for(*aten("clamp clip"))
def clamp(call: Call) -> OpSemantics:
    return clip(call.arg("min"), call.arg("max"))


@semantics_for(*aten("clamp_min"))
def clamp_min(call: Call) -> OpSemantics:
    return clip(call.arg("min"), None)


@semantics_for(*aten("clamp_max"))
def clamp_max(call: Call) -> OpSemantics:
    return clip(None, call.arg("max"))


@semantics_for(*aten("leaky_relu"))
def leaky_relu(call: Call) -> OpSemantics:
    slope = _number(call.arg("negative_slope", 0.01))
    return kinked(0.0, nondecreasing=slope is not None and slope >= 0)


@semantics_for(*aten("prelu _prelu_kernel"))
def prelu(call: Call) -> OpSemantics:
    if call.is_constant("self") and not call.is_constant("weight"):
        return LINEAR  # in the slope
    slope = call.number("weight")
    return kinked(0.0, nondecreasing=slope is not None and slope >= 0)


@semantics_for(*aten("rrelu rrelu_with_noise rrelu_with_noise_functional"))
def rrelu(call: Call) -> OpSemantics:
    # In training every entry draws its own slope: it is no longer one function that commutes with a max.
    lower, upper = _number(call.arg("lower", 0.125)), _number(call.arg("upper", 1 / 3))
    rising = not call.arg("training") and lower is not None and upper is not None and lower + upper >= 0
    return kinked(0.0, nondecreasing=rising)


@semantics_for(*aten("elu"))
def elu(call: Call) -> OpSemantics:
    alpha, scale, inner = (_number(call.arg(n, 1)) for n in ("alpha", "scale", "input_scale"))
    if alpha is None or scale is None or inner is None:
        return unknown("elu with factors that are not numbers")
    if alpha * inner == 1:
        return _SMOOTH
    return kinked(0.0, nondecreasing=scale >= 0 and alpha * scale * inner >= 0)


@semantics_for(*aten("celu"))
def celu(call: Call) -> OpSemantics:
    alpha = _number(call.arg("alpha", 1.0))
    return _SMOOTH if alpha else unknown("celu with alpha 0")


@semantics_for(*aten("softshrink hardshrink"))
def shrink(call: Call) -> OpSemantics:
    width = float(call.arg("lambd", 0.5))
    return kinked(-width, width, nondecreasing=True)


@semantics_for(*aten("threshold"))
def threshold(call: Call) -> OpSemantics:
    at, value = float(call.arg("threshold")), float(call.arg("value"))
    return kinked(at, nondecreasing=value <= at, nonnegative=value >= 0 and at >= 0)


@semantics_for(*aten("logit special_logit"))
def logit(call: Call) -> OpSemantics:
    eps = _number(call.arg("eps"))
    if eps is None:
        return _SMOOTH
    return kinked(eps, 1 - eps, nondecreasing=True) if 0 < eps < 0.5 else unknown("logit with eps outside (0, 0.5)")


@semantics_for(*aten("softplus"))
def softplus(call: Call) -> OpSemantics:
    beta, limit = _number(call.arg("beta", 1)), _number(call.arg("threshold", 20))
    if beta is None or limit is None or beta <= 0:
        return unknown("softplus with beta <= 0")
    if limit < 20:
        return discontinuous("softplus jumps where beta * x crosses a threshold below 20", elementwise=True)
    return _POSITIVE
