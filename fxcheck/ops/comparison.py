"""Rounding, comparisons, logic, and integers chosen by comparing values: they jump."""

from __future__ import annotations

from fxcheck.ops.common import aten, discontinuous
from fxcheck.ops.registry import constant_semantics

_ROUNDING = discontinuous("it rounds", elementwise=True)
_COMPARED = discontinuous("a comparison", elementwise=True)
_LOGIC = discontinuous("logic on truth values", elementwise=True)
_CHOSEN = discontinuous("an index chosen by comparing values", code="FX404")

constant_semantics(
    aten(
        "round round.decimals special_round floor ceil trunc fix frac fmod.Tensor fmod.Scalar remainder.Tensor "
        "remainder.Scalar remainder.Scalar_Tensor floor_divide floor_divide.Scalar"
    ),
    _ROUNDING,
)
constant_semantics(
    aten("sign sgn signbit heaviside copysign.Tensor copysign.Scalar"), discontinuous("it jumps at 0", elementwise=True)
)
constant_semantics(
    aten(
        " ".join(
            f"{name}.{overload}"
            for name in (
                "eq", "ne", "lt", "le", "gt", "ge", "not_equal", "less", "less_equal", "greater", "greater_equal",
            )
            for overload in ("Tensor", "Scalar")
        )
    ),
    _COMPARED,
)  # fmt: skip
constant_semantics(
    aten(
        "isnan isinf isfinite isposinf isneginf isreal isclose isin.Tensor_Tensor isin.Tensor_Scalar "
        "isin.Scalar_Tensor"
    ),
    _COMPARED,
)
constant_semantics(
    aten("equal allclose is_nonzero count_nonzero count_nonzero.dim_IntList"), discontinuous("a comparison")
)
constant_semantics(
    aten(
        "logical_and logical_or logical_xor logical_not bitwise_and.Tensor bitwise_and.Scalar bitwise_or.Tensor "
        "bitwise_or.Scalar bitwise_xor.Tensor bitwise_xor.Scalar bitwise_not bitwise_left_shift.Tensor "
        "bitwise_left_shift.Tensor_Scalar bitwise_right_shift.Tensor bitwise_right_shift.Tensor_Scalar __and__.Tensor "
        "__and__.Scalar __or__.Tensor __or__.Scalar __xor__.Tensor __xor__.Scalar __lshift__.Scalar __rshift__.Scalar"
    ),
    _LOGIC,
)
constant_semantics(aten("any any.dim any.dims all all.dim all.dims"), discontinuous("logic on truth values"))
constant_semantics(
    aten(
        "argmax argmin argsort argsort.stable bucketize.Tensor bucketize.Scalar searchsorted.Tensor "
        "searchsorted.Scalar one_hot nonzero nonzero_static nonzero_numpy argwhere where unique_consecutive unique_dim "
        "_unique _unique2 bincount histc gcd lcm"
    ),
    _CHOSEN,
)
constant_semantics(aten("frexp.Tensor"), discontinuous("it splits off the exponent"))
