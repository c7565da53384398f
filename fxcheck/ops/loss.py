"""Criteria that export keeps whole. Capture writes the kinked ones as a difference and one kinked operator."""

from __future__ import annotations

import math

from fxcheck.ops.common import SMOOTH, aten, breaking, discontinuous, kinked, scalar_of, singular, unknown
from fxcheck.ops.registry import constant_semantics, semantics_for
from fxcheck.records.semantics import Call, Kind, OpSemantics

_NONNEGATIVE = OpSemantics(Kind.SMOOTH, nonnegative=True)
_WHOLE = unknown("its kink lies between two tensors or before a reduction; write it as elementwise operators")

constant_semantics(
    aten("cross_entropy_loss binary_cross_entropy_with_logits soft_margin_loss"),
    SMOOTH,
)
constant_semantics(aten("mse_loss"), _NONNEGATIVE)


@semantics_for(*aten("nll_loss nll_loss_nd nll_loss2d nll_loss_forward nll_loss2d_forward"))
def nll_loss(call: Call) -> OpSemantics:
    if not call.is_constant("target"):
        return discontinuous("its target depends on trainable parameters", code="FX404")
    return OpSemantics(Kind.LINEAR)


constant_semantics(
    aten("binary_cross_entropy"),
    breaking("FX507", "its backward clamps differently near 0 and 1; use binary_cross_entropy_with_logits"),
)


def _elementwise(call: Call, target: str = "target") -> float | None:
    """The target where the criterion is a function of one tensor, entry by entry."""
    return scalar_of(call, target) if call.arg("reduction") == 0 else None


@semantics_for(*aten("l1_loss"))
def l1_loss(call: Call) -> OpSemantics:
    target = _elementwise(call)
    return _WHOLE if target is None else kinked(target, nonnegative=True)


@semantics_for(*aten("smooth_l1_loss"))
def smooth_l1_loss(call: Call) -> OpSemantics:
    beta = scalar_of(call, "beta", 1.0)
    return _NONNEGATIVE if beta is not None and beta > 0 else _WHOLE


@semantics_for(*aten("huber_loss"))
def huber_loss(call: Call) -> OpSemantics:
    delta = scalar_of(call, "delta", 1.0)
    return _NONNEGATIVE if delta is not None and delta > 0 else _WHOLE


@semantics_for(*aten("margin_ranking_loss"))
def margin_ranking_loss(call: Call) -> OpSemantics:
    target, margin, other = _elementwise(call), scalar_of(call, "margin"), scalar_of(call, "input2")
    if not target or not math.isfinite(target) or margin is None or other is None:
        return _WHOLE
    return kinked(other + margin / target, operand="input1", nonnegative=True, nondecreasing=target < 0)


constant_semantics(
    aten("cosine_embedding_loss hinge_embedding_loss triplet_margin_loss multi_margin_loss multilabel_margin_loss"),
    _WHOLE,
)


@semantics_for(*aten("kl_div"))
def kl_div(call: Call) -> OpSemantics:
    if call.is_constant("target") or call.arg("log_target"):
        return SMOOTH
    return singular("target", "t log t has an infinite slope at 0", code="FX205")


@semantics_for(*aten("poisson_nll_loss"))
def poisson_nll_loss(call: Call) -> OpSemantics:
    """Stirling's term is switched on where the target exceeds 1."""
    return SMOOTH if call.is_constant("target") else unknown("its target depends on trainable parameters")


@semantics_for(*aten("ctc_loss.IntList ctc_loss.Tensor _ctc_loss _ctc_loss.Tensor"))
def ctc_loss(call: Call) -> OpSemantics:
    return breaking(
        "FX507", "its backward is the derivative only where log_probs comes straight from log_softmax"
    )
