"""Matrix products, convolutions and embeddings: affine or multi-affine in their operands."""

from __future__ import annotations

from dataclasses import replace

from fxcheck.ops.common import KEEP, LINEAR, aten, breaking, discontinuous, unknown
from fxcheck.ops.registry import constant_semantics, semantics_for
from fxcheck.records.semantics import Call, Kind, OpSemantics, Transfer


def affine(call: Call, axis: int, *, fully_connected: bool = False, kind: Kind = Kind.LINEAR) -> OpSemantics:
    """Affine in each operand, with ``bias`` (if there is one) added with coefficient 1 along ``axis``."""
    bias = "bias" if call.is_tensor("bias") else None
    return OpSemantics(kind, Transfer.AFFINE, bias=bias, bias_axis=axis, fully_connected=fully_connected)


constant_semantics(
    aten(
        "matmul linalg_matmul mm bmm mv dot vdot inner outer ger einsum tensordot kron chain_matmul linalg_multi_dot "
        "linalg_vecdot _trilinear _grouped_mm mm.dtype bmm.dtype"
    ),
    LINEAR,
)
constant_semantics(["transformers.grouped_mm_fallback.default"], LINEAR)


@semantics_for(*aten("linear mkldnn_linear"))
def linear(call: Call) -> OpSemantics:
    return affine(call, -1, fully_connected=not call.is_constant("weight"))


@semantics_for(*aten("addmm addmm.dtype"))
def addmm(call: Call) -> OpSemantics:
    return replace(_added_self(call), fully_connected=not call.is_constant("mat2"))


constant_semantics(aten("baddbmm baddbmm.dtype addbmm addmv addr"), LINEAR)


def _added_self(call: Call) -> OpSemantics:
    """A vector ``self`` with one entry per output column is a bias; any other ``self`` is just a summand."""
    added, result = call.shape_of("self"), call.shape
    row = added is not None and len(added) == 1 and result is not None and added[0] == result[-1]
    if not (row and call.arg("beta", 1) == 1):
        return LINEAR
    return OpSemantics(Kind.LINEAR, Transfer.AFFINE, bias="self", bias_axis=-1)


@semantics_for(
    *aten(
        "conv1d conv1d.padding conv2d conv2d.padding conv3d conv3d.padding conv_transpose1d conv_transpose2d.input "
        "conv_transpose3d.input convolution _convolution thnn_conv2d slow_conv3d mkldnn_convolution conv_depthwise3d "
        "_conv_depthwise2d _convolution_mode"
    )
)
def convolution(call: Call) -> OpSemantics:
    operand, weight = call.shape_of("input") or call.shape_of("self"), call.shape_of("weight")
    batched = operand is None or weight is None or len(operand) == len(weight)
    return affine(call, 1 if batched else 0)


@semantics_for(*aten("conv_tbc bilinear"))
def bias_last(call: Call) -> OpSemantics:
    return affine(call, -1)


@semantics_for(*aten("embedding"))
def embedding(call: Call) -> OpSemantics:
    """Rows of the weight. ``padding_idx`` and ``scale_grad_by_freq`` change the gradient, not the value."""
    if not call.is_constant("indices"):
        return discontinuous("its indices depend on trainable parameters", code="FX404")
    if call.arg("padding_idx", -1) not in (-1, None):
        return breaking("FX503", "the row padding_idx gets no gradient")
    if call.arg("scale_grad_by_freq"):
        return breaking("FX503", "scale_grad_by_freq divides the gradient")
    return KEEP


@semantics_for(*aten("embedding_renorm"))
def embedding_renorm(call: Call) -> OpSemantics:
    return breaking("FX503", "max_norm rescales the weight outside autograd")


@semantics_for(*aten("embedding_bag embedding_bag.padding_idx _embedding_bag"))
def embedding_bag(call: Call) -> OpSemantics:
    if not (call.is_constant("indices") and call.is_constant("offsets")):
        return discontinuous("its indices depend on trainable parameters", code="FX404")
    if call.arg("padding_idx") not in (None, -1) or call.arg("scale_grad_by_freq"):
        return breaking("FX503", "padding_idx or scale_grad_by_freq changes the gradient")
    return LINEAR if call.arg("mode", 0) in (0, 1) else unknown("an embedding bag that is not a sum or a mean")
