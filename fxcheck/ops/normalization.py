"""Normalisations with a positive epsilon, and their affine beta (theory 4.7)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from fxcheck.ops.common import SMOOTH, aten, ints_of, singular
from fxcheck.ops.linear import affine
from fxcheck.ops.registry import constant_semantics, semantics_for
from fxcheck.records.semantics import Call, Kind, OpSemantics, Transfer


def _normalised(call: Call, name: str, axis: int, uses_batch: bool = True) -> OpSemantics:
    eps = call.arg("eps")
    safe = not uses_batch or (eps is None and name == "rms_norm") or (isinstance(eps, (int, float)) and eps > 0)
    if not safe:
        return replace(singular("input", "eps <= 0: equal entries divide by 0", code="FX205"), normalisation=name)
    return replace(affine(call, axis, kind=Kind.SMOOTH), normalisation=name)


@semantics_for(*aten("batch_norm"))
def batch_norm(call: Call) -> OpSemantics:
    return _normalised(call, "batch_norm", 1, bool(call.arg("training", True)))


@semantics_for(*aten("instance_norm"))
def instance_norm(call: Call) -> OpSemantics:
    return _normalised(call, "instance_norm", 1, bool(call.arg("use_input_stats", True)))


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


def _native(name: str) -> Callable[[Call], OpSemantics]:
    def rule(call: Call) -> OpSemantics:
        """Several outputs, of which only the first carries the bias: no transfer."""
        return replace(SMOOTH, normalisation=name)

    return rule


for _name, _overloads in {
    "batch_norm": "native_batch_norm _native_batch_norm_legit _native_batch_norm_legit.no_stats "
    "_native_batch_norm_legit_no_training _native_batch_norm_legit_functional cudnn_batch_norm "
    "_batch_norm_with_update",
    "layer_norm": "native_layer_norm",
    "group_norm": "native_group_norm",
    "rms_norm": "_fused_rms_norm",
}.items():
    semantics_for(*aten(_overloads))(_native(_name))

_DIRECTION = "a row of v may have norm 0, where it has no direction"
constant_semantics(aten("_weight_norm _weight_norm_interface"), singular("v", _DIRECTION, code="FX205"))
constant_semantics(aten("norm_except_dim"), singular("v", "not differentiable at 0", code="FX205", nonnegative=True))
