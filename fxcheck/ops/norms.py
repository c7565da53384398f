"""Vector norms and distances: analytic except where a vector is 0 (theory 4.3)."""

from __future__ import annotations

import math

from fxcheck.ops.common import aten, discontinuous, not_empty, scalar_of, singular, unknown
from fxcheck.ops.maxima import order_statistic
from fxcheck.ops.registry import constant_semantics, semantics_for
from fxcheck.records.semantics import Call, Kind, OpSemantics

_AT_ZERO = "a norm is not differentiable where it is 0"
_SUM_OF_ABS = "a sum of absolute values has a kink wherever one entry is 0; x.abs().sum() is decided better"
_OFF_ZERO = OpSemantics(Kind.SMOOTH, positive=True, nonnegative=True)


def _p_norm(call: Call, operand: str, order: float | None, inside: float = -math.inf) -> OpSemantics:
    """The p-norm of ``operand``, whose entries are known to be at least ``inside``."""
    if order is None:
        return unknown("its order is not a known number")
    if math.isinf(order):
        return order_statistic("the largest or smallest absolute value; write x.abs().amax()")
    if order == 0:
        return discontinuous("it counts entries that are not 0")
    if order < 1:
        return unknown("a norm of order below 1 has infinite slopes wherever one entry is 0")
    if inside > 0 and not_empty(call.sizes_of(operand)):
        return _OFF_ZERO
    return singular(operand, _SUM_OF_ABS if order == 1 else _AT_ZERO, nonnegative=True)


@semantics_for(*aten("linalg_vector_norm"))
def vector_norm(call: Call) -> OpSemantics:
    return _p_norm(call, "self", scalar_of(call, "ord", 2.0), call.lower_bound("self"))


@semantics_for(*aten("norm.Scalar norm.ScalarOpt_dim norm.ScalarOpt_dim_dtype norm.ScalarOpt_dtype"))
def norm(call: Call) -> OpSemantics:
    return _p_norm(call, "self", scalar_of(call, "p", 2.0), call.lower_bound("self"))


@semantics_for(*aten("linalg_norm linalg_matrix_norm linalg_matrix_norm.str_ord linalg_norm.ord_str"))
def matrix_norm(call: Call) -> OpSemantics:
    """Frobenius, or a vector norm where one dimension is named; other matrix norms are not known."""
    order, dim, shape = call.arg("ord"), call.arg("dim"), call.shape_of("self")
    if order == "fro" or (order is None and "matrix" not in call.op):
        return _p_norm(call, "self", 2.0, call.lower_bound("self"))
    one_dim = isinstance(dim, int) or (isinstance(dim, (tuple, list)) and len(dim) == 1)
    vector = one_dim or (dim is None and shape is not None and len(shape) == 1)
    if vector and not isinstance(order, str) and "matrix" not in call.op:
        return _p_norm(call, "self", scalar_of(call, "ord"), call.lower_bound("self"))
    return unknown("a matrix norm other than Frobenius")


constant_semantics(aten("frobenius_norm.dim"), singular("self", _AT_ZERO, nonnegative=True))


@semantics_for(*aten("norm_except_dim"))
def norm_except_dim(call: Call) -> OpSemantics:
    return _p_norm(call, "v", scalar_of(call, "pow", 2.0), call.lower_bound("v"))


@semantics_for(*aten("cdist"))
def cdist(call: Call) -> OpSemantics:
    return _p_norm(call, "x1", scalar_of(call, "p", 2.0))


@semantics_for(*aten("pairwise_distance"))
def pairwise_distance(call: Call) -> OpSemantics:
    return _p_norm(call, "x1", scalar_of(call, "p", 2.0))


@semantics_for(*aten("dist pdist"))
def dist(call: Call) -> OpSemantics:
    return _p_norm(call, "self", scalar_of(call, "p", 2.0))


constant_semantics(aten("cosine_similarity"), singular("x1", "it is not differentiable where a vector has norm 0"))
constant_semantics(
    aten("renorm"), singular("self", "it is kinked where a norm equals maxnorm, and singular where it is 0")
)
