"""Losses that export keeps whole, written as a pre-activation, one kinked operator and a reduction.

The kinked operator stays the composite's own overload (applied entry by entry), so that its proxies are measured on
what autograd really runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from fxcheck.records.graph import Ref

Expansion = Callable[[Any, dict[str, Any], Any, dict[str, Any]], int]

_NONE, _MEAN = 0, 1
"""torch's numbers of the reductions ``none`` and ``mean``."""


def _like(lowering: Any, *values: Any) -> torch.Tensor:
    shapes = [lowering.nodes[v.id].shape for v in values if isinstance(v, Ref)]
    return torch.empty(torch.broadcast_shapes(*shapes), device="meta")


def _binary(lowering: Any, op: str, left: Any, right: Any, extra: dict[str, Any]) -> Ref:
    arguments = {"self": left, "other": right}
    if op != "mul":
        arguments["alpha"] = 1
    return Ref(lowering.emit(f"aten.{op}.Tensor", arguments, _like(lowering, left, right), **extra))


def _reduce(lowering: Any, entries: Ref, reduction: int, value: Any, extra: dict[str, Any]) -> int:
    if reduction == _NONE:
        return entries.id
    name = "aten.mean.default" if reduction == _MEAN else "aten.sum.default"
    return lowering.emit(name, {"self": entries, "dtype": None}, value, **extra)


def _l1_loss(lowering: Any, a: dict[str, Any], value: Any, extra: dict[str, Any]) -> int:
    difference = _binary(lowering, "sub", a["self"], a["target"], extra)
    arguments = {"self": difference, "target": 0.0, "reduction": _NONE}
    entries = Ref(lowering.emit("aten.l1_loss.default", arguments, _like(lowering, difference), **extra))
    return _reduce(lowering, entries, a["reduction"], value, extra)


def _margin_ranking_loss(lowering: Any, a: dict[str, Any], value: Any, extra: dict[str, Any]) -> int:
    difference = _binary(lowering, "sub", a["input2"], a["input1"], extra)
    signed = _binary(lowering, "mul", difference, a["target"], extra)
    arguments = {"input1": signed, "input2": 0.0, "target": -1.0, "margin": a["margin"], "reduction": _NONE}
    entries = Ref(lowering.emit("aten.margin_ranking_loss.default", arguments, _like(lowering, signed), **extra))
    return _reduce(lowering, entries, a["reduction"], value, extra)


def _hinge_embedding_loss(lowering: Any, a: dict[str, Any], value: Any, extra: dict[str, Any]) -> int:
    arguments = {"self": a["self"], "target": -1.0, "margin": a["margin"], "reduction": _NONE}
    entries = Ref(lowering.emit("aten.hinge_embedding_loss.default", arguments, _like(lowering, a["self"]), **extra))
    return _reduce(lowering, entries, a["reduction"], value, extra)


def _triplet_margin_loss(lowering: Any, a: dict[str, Any], value: Any, extra: dict[str, Any]) -> int:
    def distance(x: Any, y: Any) -> Ref:
        arguments = {"x1": x, "x2": y, "p": a["p"], "eps": a["eps"], "keepdim": False}
        shape = _like(lowering, x, y).shape[:-1]
        value = torch.empty(shape, device="meta")
        return Ref(lowering.emit("aten.pairwise_distance.default", arguments, value, **extra))

    near, far = distance(a["anchor"], a["positive"]), distance(a["anchor"], a["negative"])
    if a["swap"]:
        other = distance(a["positive"], a["negative"])
        far = Ref(lowering.emit("aten.minimum.default", {"self": far, "other": other}, _like(lowering, far), **extra))
    difference = _binary(lowering, "sub", near, far, extra)
    arguments = {"self": difference, "min": -a["margin"]}
    entries = Ref(lowering.emit("aten.clamp_min.default", arguments, _like(lowering, difference), **extra))
    return _reduce(lowering, entries, a["reduction"], value, extra)


EXPANSIONS: dict[str, Expansion] = {
    "aten.l1_loss.default": _l1_loss,
    "aten.margin_ranking_loss.default": _margin_ranking_loss,
    "aten.hinge_embedding_loss.default": _hinge_embedding_loss,
    "aten.triplet_margin_loss.default": _triplet_margin_loss,
}
