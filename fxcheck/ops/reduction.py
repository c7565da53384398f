"""Sums, means, products and soft maxima along dimensions."""

from __future__ import annotations

from fxcheck.ops.common import LINEAR, SMOOTH, aten, discontinuous, is_integral, not_empty, reduced_sizes, singular
from fxcheck.ops.registry import constant_semantics, semantics_for
from fxcheck.records.semantics import Call, Kind, OpSemantics, Transfer

_PROBABILITY = OpSemantics(Kind.SMOOTH, positive=True, nonnegative=True)


@semantics_for(*aten("sum sum.dim_IntList mean mean.dim cumsum sum_to_size trace"))
def total(call: Call) -> OpSemantics:
    """Positive weights over at least one entry, as long as nothing is empty."""
    if is_integral(call.arg("dtype")):
        return discontinuous("it casts to integers")
    if not (not_empty(reduced_sizes(call)) or call.op.startswith("aten.mean.")):  # a mean of nothing is NaN
        return LINEAR
    return OpSemantics(Kind.LINEAR, Transfer.AVERAGE)


constant_semantics(aten("prod prod.dim_int cumprod logsumexp special_logsumexp logcumsumexp"), SMOOTH)
constant_semantics(
    aten("softmax.int _softmax special_softmax"),
    _PROBABILITY,
)
constant_semantics(
    aten("log_softmax.int _log_softmax special_log_softmax"),
    SMOOTH,
)
constant_semantics(aten("_safe_softmax"), OpSemantics(Kind.SMOOTH, nonnegative=True))
constant_semantics(aten("var var.dim var.correction"), OpSemantics(Kind.SMOOTH, nonnegative=True))
constant_semantics(aten("var_mean var_mean.dim var_mean.correction cov"), SMOOTH)
constant_semantics(
    aten("std std.dim std.correction"),
    singular("self", "it is not differentiable where all entries are equal", code="FX205", nonnegative=True),
)
constant_semantics(
    aten("std_mean std_mean.dim std_mean.correction"),
    singular("self", "it is not differentiable where all entries are equal", code="FX205"),
)
constant_semantics(aten("nansum nanmean nan_to_num"), discontinuous("it replaces values that are not finite"))
