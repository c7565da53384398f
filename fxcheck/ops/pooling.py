"""Pooling: averages over windows, and maxima that pick one entry of each window (theory 4.2)."""

from __future__ import annotations

from fxcheck.ops.common import aten, breaking, discontinuous, ints_of
from fxcheck.ops.registry import semantics_for
from fxcheck.records.semantics import Call, Kind, MaxPick, OpSemantics, Transfer

_AVERAGE = OpSemantics(Kind.LINEAR, Transfer.AVERAGE)


@semantics_for(*aten("avg_pool1d avg_pool2d avg_pool3d"))
def avg_pool(call: Call) -> OpSemantics:
    """Padding is at most half a window, so each window holds a real entry."""
    divisor = call.arg("divisor_override")
    if divisor is not None and not (isinstance(divisor, int) and divisor > 0):
        return OpSemantics(Kind.LINEAR, note="its divisor is not known to be positive")
    return _AVERAGE


@semantics_for(
    *aten(
        "adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d _adaptive_avg_pool2d _adaptive_avg_pool3d "
        "mkldnn_adaptive_avg_pool2d"
    )
)
def adaptive_avg_pool(call: Call) -> OpSemantics:
    return _AVERAGE


def _window_max(trivial: bool, operand: str = "self", discrete: tuple[int, ...] = ()) -> OpSemantics:
    return OpSemantics(Kind.MAX, operand=operand, pick=MaxPick.ONE_HOT, trivial=trivial, discrete_outputs=discrete)


@semantics_for(*aten("max_pool1d max_pool2d max_pool3d mkldnn_max_pool2d mkldnn_max_pool3d"))
def max_pool(call: Call) -> OpSemantics:
    return _EMPTY_WINDOW if _has_empty_window(call) else _window_max(_single_cell(call))


@semantics_for(*aten("max_pool1d_with_indices max_pool2d_with_indices max_pool3d_with_indices"))
def max_pool_with_indices(call: Call) -> OpSemantics:
    return _EMPTY_WINDOW if _has_empty_window(call) else _window_max(_single_cell(call), discrete=(1,))


_EMPTY_WINDOW = breaking("FX507", "a window may hold padding only, and backward writes outside of the operand")


def _has_empty_window(call: Call) -> bool:
    """Padding is at most half a kernel, so cells step over the whole side only where their dilation exceeds it."""
    sides = int(call.op.split("_with")[0].removesuffix(".default")[-2])
    padding, dilation = (ints_of(call.arg(n) or d, sides) for n, d in (("padding", 0), ("dilation", 1)))
    shape = call.sizes_of("self")
    if padding is None or dilation is None or shape is None:
        return False
    return any(p > 0 and d > side for p, d, side in zip(padding, dilation, shape[-sides:], strict=True))


def _single_cell(call: Call) -> bool:
    kernel = ints_of(call.arg("kernel_size"))
    return kernel is not None and all(size == 1 for size in kernel)


@semantics_for(*aten("adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d"))
def adaptive_max_pool(call: Call) -> OpSemantics:
    shape, wanted = call.sizes_of("self"), ints_of(call.arg("output_size"))
    same = shape is not None and wanted is not None and shape[-len(wanted) :] == wanted
    return _window_max(same, discrete=(1,))


@semantics_for(*aten("fractional_max_pool2d fractional_max_pool3d"))
def fractional_max_pool(call: Call) -> OpSemantics:
    if not call.is_constant("random_samples"):
        return discontinuous("its windows depend on trainable parameters", code="FX404")
    return _window_max(_single_cell(call), discrete=(1,))


@semantics_for(*aten("max_unpool2d max_unpool3d"))
def max_unpool(call: Call) -> OpSemantics:
    if not call.is_constant("indices"):
        return discontinuous("its indices depend on trainable parameters", code="FX404")
    return breaking("FX507", "entries written to the same place all get gradient")
