"""What export keeps whole, written as its parts.

1. Losses: a pre-activation, one kinked operator and a reduction. The kinked operator stays the composite's own overload
   (applied entry by entry), so that its proxies are measured on what autograd really runs.
2. Norms of infinite order: absolute values and their maximum, where the installed torch differentiates them so.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch

from fxcheck.records.graph import Ref

Expansion = Callable[[Any, dict[str, Any], Any, dict[str, Any]], int | None]
"""Emits the parts and returns the last one; None where the operator stays whole."""

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


def _l1_loss(lowering: Any, a: dict[str, Any], value: Any, extra: dict[str, Any]) -> int | None:
    """Between complex numbers it is no function of one real number."""
    if any("complex" in (lowering.nodes[a[name].id].dtype or "") for name in ("self", "target")):
        return None
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
    """Entries of targets other than 1 are margins, those of targets other than -1 the input itself (torch 2.9 to 2.14)."""
    def except_at(target: float, entries: Ref) -> Ref:
        compared = {"self": a["target"], "other": target}
        mask = Ref(lowering.emit("aten.ne.Scalar", compared, _like(lowering, a["target"]).bool(), **extra))
        arguments = {"condition": mask, "self": entries, "other": 0.0}
        return Ref(lowering.emit("aten.where.ScalarOther", arguments, _like(lowering, mask, entries), **extra))

    left = {"self": a["self"], "other": a["margin"], "alpha": 1}
    difference = Ref(lowering.emit("aten.rsub.Scalar", left, _like(lowering, a["self"]), **extra))
    margins = Ref(lowering.emit("aten.clamp_min.default", {"self": difference, "min": 0}, _like(lowering, difference), **extra))
    entries = _binary(lowering, "add", except_at(1, margins), except_at(-1, a["self"]), extra)
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
    difference = _binary(lowering, "sub", _binary(lowering, "add", near, a["margin"], extra), far, extra)
    arguments = {"self": difference, "min": 0}
    entries = Ref(lowering.emit("aten.clamp_min.default", arguments, _like(lowering, difference), **extra))
    return _reduce(lowering, entries, a["reduction"], value, extra)


def _norm(lowering: Any, a: dict[str, Any], value: Any, extra: dict[str, Any]) -> int | None:
    order = a["ord"] if "ord" in a else a["p"]
    operand = lowering.nodes[a["self"].id]
    if not isinstance(order, (int, float)) or not math.isinf(order) or a.get("dtype") is not None:
        return None
    if not (operand.dtype or "").startswith("float") or not _is_extremum_of_abs():
        return None
    dim = a.get("dim")
    dims = () if dim is None else tuple(dim) if isinstance(dim, (tuple, list)) else (dim,)
    sizes = Ref(lowering.emit("aten.abs.default", {"self": a["self"]}, _like(lowering, a["self"]), **extra))
    arguments = {"self": sizes, "dim": dims, "keepdim": bool(a.get("keepdim"))}
    return lowering.emit("aten.amax.default" if order > 0 else "aten.amin.default", arguments, value, **extra)


def _linalg_norm(lowering: Any, a: dict[str, Any], value: Any, extra: dict[str, Any]) -> int | None:
    """Of two dimensions it is a matrix norm."""
    dim, dims = a.get("dim"), len(lowering.nodes[a["self"].id].shape)
    is_vector = dims == 1 if dim is None else isinstance(dim, int) or len(dim) == 1
    return _norm(lowering, a, value, extra) if is_vector else None


@lru_cache(maxsize=1)
def _is_extremum_of_abs() -> bool:
    """Whether autograd takes a norm of infinite order for the extremum of absolute values, at ties and zeros as well."""
    def slopes(function: Callable[..., torch.Tensor], *arguments: Any) -> torch.Tensor:
        with torch.enable_grad():
            x = torch.tensor(arguments[0], dtype=torch.float64, requires_grad=True)
            return torch.autograd.grad(function(x, *arguments[1:]), x)[0]

    norm = torch.linalg.vector_norm
    return all(
        torch.equal(slopes(norm, p, math.inf), slopes(lambda x: x.abs().amax(), p))
        and torch.equal(slopes(norm, p, -math.inf), slopes(lambda x: x.abs().amin(), p))
        for p in ([-2.0, 1.0], [-2.0, 2.0, 1.0], [0.0, 0.0], [0.0, 1.0, 0.0, -1.0], [3.0])
    )


EXPANSIONS: dict[str, Expansion] = {
    "aten.l1_loss.default": _l1_loss,
    "aten.margin_ranking_loss.default": _margin_ranking_loss,
    "aten.hinge_embedding_loss.default": _hinge_embedding_loss,
    "aten.triplet_margin_loss.default": _triplet_margin_loss,
    "aten.linalg_vector_norm.default": _norm,
    "aten.linalg_norm.default": _linalg_norm,
    "aten.norm.Scalar": _norm,
    "aten.norm.ScalarOpt_dim": _norm,
}
