"""Random operators: dropout with the mask of this step held fixed, and samplers."""

from __future__ import annotations

from collections.abc import Callable

from fxcheck.ops.common import CONSTANT, KEEP, LINEAR, all_constant, aten, breaking, discontinuous
from fxcheck.ops.registry import constant_semantics, semantics_for
from fxcheck.records.semantics import Call, Kind, OpSemantics, Transfer


def _drops(call: Call) -> bool:
    """Training with a probability that is not known to be 0 (``train=None`` counts as training)."""
    return call.arg("train", True) is not False and call.arg("p") != 0


@semantics_for(*aten("dropout feature_dropout"))
def dropout(call: Call) -> OpSemantics:
    return OpSemantics(Kind.LINEAR, Transfer.DROPOUT) if _drops(call) else KEEP


@semantics_for(*aten("alpha_dropout feature_alpha_dropout native_dropout"))
def shifted_dropout(call: Call) -> OpSemantics:
    """Dropped entries become a negative constant (alpha), or there is a second output, the mask."""
    return LINEAR if _drops(call) or "native" in call.op else KEEP


def _sampler(*operands: str) -> Callable[[Call], OpSemantics]:
    def rule(call: Call) -> OpSemantics:
        return CONSTANT if all_constant(call, *operands) else discontinuous("a sample whose distribution is trained")

    return rule


semantics_for(*aten("bernoulli"))(_sampler("self"))
semantics_for(*aten("bernoulli.Tensor"))(_sampler("p"))
semantics_for(*aten("multinomial poisson"))(_sampler("self"))
semantics_for(*aten("binomial"))(_sampler("count", "prob"))
constant_semantics(
    aten("bernoulli.p bernoulli.float uniform exponential geometric cauchy log_normal random random.from random.to normal"),
    CONSTANT,
)
constant_semantics(aten("normal_functional"), CONSTANT)


@semantics_for(*aten("normal.Tensor_float normal.float_Tensor normal.Tensor_Tensor normal.float_float"))
def normal(call: Call) -> OpSemantics:
    if all_constant(call, "mean", "std"):
        return CONSTANT
    return breaking("FX504", "the sample follows mean and std, but no gradient reaches them; use mean + std * noise")
