"""Operators whose output entries are operand entries or constants: views, joins, copies, padding, casts."""

from __future__ import annotations

from fxcheck.ops.common import KEEP, PAD, aten, breaking, discontinuous, is_integral, refs_of, unknown
from fxcheck.ops.registry import constant_semantics, semantics_for
from fxcheck.records.semantics import Call, Kind, OpSemantics, Transfer

_ENTRY_BY_ENTRY = OpSemantics(Kind.STRUCTURAL, Transfer.KEEP, elementwise=True)

constant_semantics(
    aten(
        "view reshape reshape_as view_as flatten.using_ints unflatten.int ravel _unsafe_view _reshape_alias "
        "_reshape_copy view_copy permute permute_copy transpose.int transpose_copy.int t t_copy numpy_T mT mH adjoint "
        "matrix_H swapaxes swapdims movedim.int movedim.intlist moveaxis.int moveaxis.intlist "
        "squeeze squeeze.dim squeeze.dims squeeze_copy squeeze_copy.dim squeeze_copy.dims unsqueeze unsqueeze_copy "
        "atleast_1d atleast_2d atleast_3d atleast_1d.Sequence atleast_2d.Sequence atleast_3d.Sequence"
    ),
    KEEP,
)
constant_semantics(
    aten(
        "expand expand_copy expand_as broadcast_to broadcast_tensors repeat tile repeat_interleave.self_int meshgrid "
        "meshgrid.indexing cartesian_prod combinations as_strided as_strided_copy unfold unfold_copy"
    ),
    KEEP,
)
constant_semantics(
    aten(
        "cat concat concatenate stack _stack hstack vstack dstack column_stack row_stack split split.Tensor split.sizes "
        "split_copy.Tensor split_with_sizes split_with_sizes_copy unsafe_split.Tensor unsafe_split_with_sizes chunk "
        "unsafe_chunk tensor_split.sections tensor_split.indices hsplit.int hsplit.array vsplit.int vsplit.array "
        "dsplit.int dsplit.array unbind.int unbind_copy.int select.int select_copy.int slice.Tensor slice_copy.Tensor "
        "narrow narrow_copy diagonal diagonal_copy linalg_diagonal select_scatter slice_scatter diagonal_scatter"
    ),
    KEEP,
)
constant_semantics(
    aten(
        "flip fliplr flipud roll rot90 pixel_shuffle pixel_unshuffle channel_shuffle native_channel_shuffle "
        "reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d replication_pad3d "
        "_pad_circular"
    ),
    KEEP,
)
constant_semantics(aten("tril triu diag diag_embed diagflat block_diag im2col"), PAD)
constant_semantics(aten("resolve_neg resolve_conj conj conj_physical _conj _conj_physical"), _ENTRY_BY_ENTRY)
constant_semantics(aten("real imag view_as_real view_as_complex complex"), OpSemantics(Kind.STRUCTURAL))
constant_semantics(
    aten("alias alias_copy contiguous lift lift_fresh lift_fresh_copy pin_memory"),
    _ENTRY_BY_ENTRY,
)


@semantics_for(*aten("as_strided_scatter"))
def as_strided_scatter(call: Call) -> OpSemantics:
    """Up to torch 2.14 at least; of a constant ``self`` no gradient is asked, but positions may still repeat."""
    return breaking("FX507", "entries of its operand that are overwritten get gradient too; use slice_scatter")


@semantics_for(
    *aten(
        "to.device to.dtype to.dtype_layout to.other to.prim_Device to.prim_dtype to.prim_other _to_copy type_as clone "
        "copy _cast_Float _cast_Double _cast_Half"
    )
)
def cast(call: Call) -> OpSemantics:
    """Values are kept (up to rounding) unless a real number becomes an integer or a truth value."""
    source = refs_of(call, "src" if call.arg("src") is not None else "self")
    target = call.dtype or call.arg("dtype")
    if target is None:
        return unknown("the dtype of its result is not known")
    before = call.dtypes.get(source[0]) if source else None
    if is_integral(target) and not (before is not None and is_integral(before)):
        return discontinuous("it casts real numbers to integers or truth values")
    return _ENTRY_BY_ENTRY


@semantics_for(*aten("pad constant_pad_nd _pad_enum"))
def pad(call: Call) -> OpSemantics:
    """Constant padding adds constant entries; the other modes repeat operand entries."""
    return PAD if call.arg("mode", "constant") in ("constant", 0) else KEEP


@semantics_for(*aten("pad_sequence"))
def pad_sequence(call: Call) -> OpSemantics:
    return PAD if call.arg("padding_value", 0.0) == 0 else OpSemantics(Kind.STRUCTURAL)


@semantics_for(*aten("repeat_interleave.self_Tensor tensor_split.tensor_indices_or_sections narrow.Tensor"))
def sized_by_tensor(call: Call) -> OpSemantics:
    names = ("repeats", "tensor_indices_or_sections", "start")
    if any(not call.is_constant(name) for name in names):
        return discontinuous("its sizes depend on trainable parameters", code="FX404")
    return KEEP


@semantics_for(*aten("view.dtype"))
def reinterpret(call: Call) -> OpSemantics:
    return unknown("it reads the bits of its operand as another dtype")
