"""Normalisations with a positive epsilon, and their affine beta (theory 4.7)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from fxcheck.ops.common import SMOOTH, aten, ints_of, singular
from fxcheck.ops.linear import affine
from fxcheck.ops.registry import constant_semantics, semantics_for
from fxcheck.records.semantics import Call, Kind, OpSemantics, Order, Transfer

_ANY_ORDERS = (Order.ANY, Order.ANY)


def _normalised(call: Call, name: str, axis: int, uses_batch: bool = True) -> OpSemantics:
    eps = call.arg("eps")
    safe = not uses_batch or (eps is None and name == "rms_norm") or (isinstance(eps, (int, float)) and eps > 0)
    if not safe:
        return replace(singular("input", "eps <= 0: equal entries divide by 0", code="FX205"), normalisation=name)
    return replace(affine(call, axis, kind=Kind.SMOOTH), normalisation=name)


def _orders(call: Call) -> tuple[Order, Order]:
    """What the kernel for maps copes with: sizes of 1 leave open in which order the entries lie.

    Up to torch 2.14 at least, it then takes an operand that lies row by row and a gradient with channels last for two
    tensors of one order, or the other way round, unless the strides of the sizes 1 tell.
    """
    return (Order.CHANNELS_LAST, Order.CHANNELS_LAST) if any(_ones_of_map(call)) else _ANY_ORDERS


def _ones_of_map(call: Call) -> tuple[bool, ...]:
    """Whether the batch and each side of a map may be 1; False where there is one order at all events."""
    shape, ones = call.sizes_of("input"), call.may_be_one("input")
    if shape is None or len(shape) < 4 or shape[1] == 1 or all(size == 1 for size in shape[2:]):
        return (False,)
    return (ones[0], *ones[2:])


@semantics_for(*aten("batch_norm"))
def batch_norm(call: Call) -> OpSemantics:
    found = _normalised(call, "batch_norm", 1, bool(call.arg("training", True)))
    return replace(found, orders=_orders(call))


@semantics_for(*aten("instance_norm"))
def instance_norm(call: Call) -> OpSemantics:
    """It normalises a copy, row by row, seen as one sample; the gradient is seen so without a copy if it is of one."""
    found = _normalised(call, "instance_norm", 1, bool(call.arg("use_input_stats", True)))
    return replace(found, orders=(Order.ANY, Order.ROWS)) if _ones_of_map(call)[0] else found


@semantics_for(*aten("group_norm"))
def group_norm(call: Call) -> OpSemantics:
    return _normalised(call, "group_norm", 1)


@semantics_for(*aten("layer_norm rms_norm"))
def layer_norm(call: Call) -> OpSemantics:
    """A bias over several normalised axes has no single axis to run along: its transfer is lost."""
    found = _normalised(call, call.op.split(".")[1], -1)
    axes = ints_of(call.arg("normalized_shape"))
    if axes is not None and len(axes) == 1:
        return found
    return replace(found, transfer=Transfer.LOST, bias=None)


def _native(name: str, outputs: int) -> Callable[[Call], OpSemantics]:
    def rule(call: Call) -> OpSemantics:
        """Several outputs, of which only the first carries the bias: no transfer."""
        orders = _orders(call) if name == "batch_norm" else _ANY_ORDERS
        return replace(SMOOTH, normalisation=name, cut_outputs=tuple(range(1, outputs)), orders=orders)

    return rule


for _name, _outputs, _overloads in (
    ("batch_norm", 3, "native_batch_norm _native_batch_norm_legit _native_batch_norm_legit.no_stats "
                      "_native_batch_norm_legit_no_training"),
    ("batch_norm", 4, "cudnn_batch_norm _batch_norm_with_update"),
    ("batch_norm", 5, "_native_batch_norm_legit_functional"),
    ("layer_norm", 3, "native_layer_norm"),
    ("group_norm", 1, "native_group_norm"),  # its mean and its inverse deviation are differentiated
    ("rms_norm", 1, "_fused_rms_norm"),
):  # fmt: skip
    semantics_for(*aten(_overloads))(_native(_name, _outputs))

_DIRECTION = "a row of v may have norm 0, where it has no direction"
constant_semantics(aten("_weight_norm"), singular("v", _DIRECTION, code="FX205"))
constant_semantics(
    aten("_weight_norm_interface"), replace(singular("v", _DIRECTION, code="FX205"), cut_outputs=(1,))
)
