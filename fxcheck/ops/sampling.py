"""Interpolation on fixed grids, sampling at given positions, and torchvision's own operators (theory 4.3)."""

from __future__ import annotations

from dataclasses import replace

from fxcheck.ops.common import KEEP, LINEAR, aten, breaking, discontinuous, singular, unknown
from fxcheck.ops.linear import affine
from fxcheck.ops.registry import constant_semantics, semantics_for
from fxcheck.records.semantics import Call, Kind, OpSemantics, Transfer

_KERNELS = ("linear1d", "bilinear2d", "trilinear3d", "bicubic2d")
_SMOOTH_NAMES = [f"upsample_{k}{v}" for k in _KERNELS for v in ("", ".vec")]
_ANTIALIASED_NAMES = [f"_upsample_{k}_aa{v}" for k in ("bilinear2d", "bicubic2d") for v in ("", ".vec")]
_NEAREST_NAMES = [f"{p}{n}d{v}" for p in ("upsample_nearest", "_upsample_nearest_exact") for n in (1, 2, 3)
                  for v in ("", ".vec")]  # fmt: skip

_INTERPOLATED = OpSemantics(Kind.LINEAR, Transfer.INTERPOLATE)
constant_semantics(aten(" ".join(_SMOOTH_NAMES)), _INTERPOLATED)
constant_semantics(aten(" ".join(_NEAREST_NAMES)), KEEP)
constant_semantics(aten("affine_grid_generator col2im"), LINEAR)


@semantics_for(*aten(" ".join(_ANTIALIASED_NAMES)))
def antialiased(call: Call) -> OpSemantics:
    """Up to torch 2.14 at least the kernel of backward takes a result of one column for one in another memory layout."""
    if call.shape is None or call.shape[-1] == 1:
        return breaking("FX507", "its backward is wrong where the result is one pixel wide")
    return _INTERPOLATED


_NEAREST = 1
"""torch's number of the interpolation mode ``nearest``."""


@semantics_for(*aten("grid_sampler grid_sampler_2d grid_sampler_3d"))
def grid_sampler(call: Call) -> OpSemantics:
    """Linear in the input; in the grid it is kinked where a position crosses a pixel centre."""
    if call.is_constant("grid"):
        return LINEAR
    if call.arg("interpolation_mode") == _NEAREST:
        return discontinuous("it jumps where a trainable position crosses between pixels")
    return singular("grid", "interpolation is kinked where a trainable position crosses a pixel centre", code="FX403")


@semantics_for("torchvision.deform_conv2d.default")
def deform_conv2d(call: Call) -> OpSemantics:
    if call.is_constant("offset"):
        return affine(call, 1)
    return singular("offset", "interpolation is kinked where a trainable position crosses a pixel centre", code="FX403")


@semantics_for("torchvision.roi_align.default", "torchvision.ps_roi_align.default")
def roi_align(call: Call) -> OpSemantics:
    if not call.is_constant("rois"):
        return breaking("FX503", "no gradient reaches the boxes, although the result depends on them")
    return LINEAR if "roi_align.default" in call.op else replace(LINEAR, discrete_outputs=(1,))


constant_semantics(
    ["torchvision.ps_roi_pool.default"],
    breaking("FX507", "forward and backward clip boxes differently at the border of the map; use ps_roi_align"),
)
constant_semantics(["torchvision.roi_pool.default"], unknown("a maximum over windows that may be empty"))
constant_semantics(["torchvision.nms.default"], discontinuous("it chooses boxes by their scores", code="FX404"))
