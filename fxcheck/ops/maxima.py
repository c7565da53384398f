"""Maxima and minima (one entry picked or the gradient split) and order statistics (theory 4.2)."""

from __future__ import annotations

from fxcheck.ops.common import aten, one_entry, reduced_sizes
from fxcheck.ops.registry import constant_semantics, semantics_for
from fxcheck.records.semantics import Call, Kind, MaxPick, OpSemantics

_SEVERAL = "the largest or smallest of all its tensor operands"
_CODE = "FX303"


def split_max(trivial: bool = False) -> OpSemantics:
    """A maximum whose gradient is shared evenly among tied entries."""
    return OpSemantics(Kind.MAX, operand="self", pick=MaxPick.SPLIT, trivial=trivial)


@semantics_for(*aten("max.dim min.dim cummax cummin"))
def picked(call: Call) -> OpSemantics:
    trivial = one_entry(reduced_sizes(call, dim=call.arg("dim")))
    return OpSemantics(Kind.MAX, operand="self", pick=MaxPick.ONE_HOT, trivial=trivial, discrete_outputs=(1,))


@semantics_for(*aten("amax amin aminmax _aminmax _aminmax.dim max min"))
def split(call: Call) -> OpSemantics:
    return split_max(one_entry(reduced_sizes(call, dim=call.arg("dim"))))


_BETWEEN_TENSORS = OpSemantics(Kind.MAX, operand="self", pick=MaxPick.SPLIT, elementwise=True, note=_SEVERAL)
constant_semantics(
    aten("maximum minimum fmax fmin max.other min.other clamp_min.Tensor clamp_max.Tensor"), _BETWEEN_TENSORS
)


@semantics_for(*aten("clamp.Tensor clip.Tensor"))
def clamp_tensor(call: Call) -> OpSemantics:
    """A max with one bound; with two it is the middle of three values unless the bounds are constant."""
    two_bounds = call.arg("min") is not None and call.arg("max") is not None
    if two_bounds and not (call.is_constant("min") and call.is_constant("max")):
        return order_statistic("the middle of three tensors", elementwise=True)
    return _BETWEEN_TENSORS


def order_statistic(note: str = "", *, discrete: tuple[int, ...] = (), elementwise: bool = False) -> OpSemantics:
    """A value chosen by its rank."""
    return OpSemantics(
        Kind.ORDER_STATISTIC, operand="self", discrete_outputs=discrete, elementwise=elementwise, singular_code=_CODE,
        note=note,
    )  # fmt: skip


constant_semantics(
    aten("sort sort.stable topk kthvalue median.dim nanmedian.dim mode"), order_statistic(discrete=(1,))
)
constant_semantics(
    aten("median nanmedian msort quantile quantile.scalar nanquantile nanquantile.scalar"), order_statistic()
)
