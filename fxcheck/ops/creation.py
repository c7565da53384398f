"""Factories, sizes and assertions: values that do not depend on operand values."""

from __future__ import annotations

from fxcheck.ops.common import CONSTANT, KEEP, all_constant, aten, discontinuous, is_integral, refs_of, unknown
from fxcheck.ops.registry import constant_semantics, semantics_for
from fxcheck.records.semantics import Call, OpSemantics

constant_semantics(
    aten(
        "zeros_like ones_like empty_like rand_like rand_like.generator randn_like randn_like.generator randint_like "
        "randint_like.low_dtype new_zeros new_ones new_empty new_empty_strided zero"
    ),
    CONSTANT,
)
constant_semantics(
    aten(
        "sym_size.int sym_size sym_stride.int sym_stride sym_numel sym_storage_offset size size.int stride stride.int "
        "numel dim is_contiguous is_floating_point is_complex is_same_size sym_constrain_range "
        "sym_constrain_range_for_size _assert_async _assert_async.msg _assert_scalar _assert_tensor_metadata "
        "_functional_assert_async.msg _functional_assert_scalar _functional_sym_constrain_range "
        "_functional_sym_constrain_range_for_size _shape_as_tensor"
    ),
    CONSTANT,
)


@semantics_for(
    *aten(
        "zeros ones empty.memory_format empty_strided empty_permuted eye eye.m arange arange.start arange.start_step "
        "range range.step linspace linspace.Tensor_Tensor linspace.Tensor_Scalar linspace.Scalar_Tensor logspace "
        "tril_indices triu_indices hann_window hann_window.periodic hamming_window hamming_window.periodic "
        "blackman_window blackman_window.periodic bartlett_window kaiser_window kaiser_window.periodic "
        "kaiser_window.beta rand rand.generator randn randn.generator randint randint.low randint.generator "
        "randint.low_generator randperm randperm.generator"
    )
)
def factory(call: Call) -> OpSemantics:
    return CONSTANT if all_constant(call) else unknown("it is built from a value that depends on trainable parameters")


@semantics_for(*aten("full full_like new_full fill.Scalar fill.Tensor scalar_tensor"))
def filled(call: Call) -> OpSemantics:
    """Every entry is the fill value, whatever the tensor that gives the shape."""
    values = [n for n in call.arguments if n != "self" and refs_of(call, n)]
    if all_constant(call, *(values or ["fill_value"])):
        return CONSTANT
    return discontinuous("it casts real numbers to integers or truth values") if is_integral(call.dtype) else KEEP
