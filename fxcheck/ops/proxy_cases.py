"""The written list of what ``fxcheck proxies`` measures; kinks and arguments only, every outcome is measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fxcheck.ops.probe import ScalarFunction
from fxcheck.ops.ties import TieFunction


@dataclass(frozen=True)
class ScalarCase:
    """A scalar function and the points to measure it at, ascending."""

    op: str
    """An overload, or the text of ``function``."""
    points: tuple[float, ...]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    operand: str = "self"
    function: ScalarFunction | None = None
    """None when ``op`` is an overload."""


@dataclass(frozen=True)
class TieCase:
    """A max (or an order statistic) and how many of its entries to tie."""

    op: str
    function: TieFunction
    tied: tuple[int, ...] = (2, 3)
    largest: bool = True
    """False for a min: the other entries are then larger than the tied ones."""
    padded: bool = True
    """Losing entries are put before and after the tied ones."""
    note: str = ""


def _ops(op: str, *calls: tuple[Mapping[str, Any], tuple[float, ...]], operand: str = "self") -> list[ScalarCase]:
    return [ScalarCase(f"aten.{op}", points, arguments, operand) for arguments, points in calls]


def _either(op: str, constant: float) -> list[ScalarCase]:
    """A symmetric binary operator against a constant on either side."""
    pair = ("self", "other")
    return [ScalarCase(f"aten.{op}", (constant,), {other: constant}, this) for this, other in (pair, pair[::-1])]


ACTIVATIONS: tuple[ScalarCase, ...] = (
    *_ops("relu.default", ({}, (0.0,))),
    *_ops("relu6.default", ({}, (0.0, 6.0))),
    *_ops("hardtanh.default", ({}, (-1.0, 1.0)), ({"min_val": 0.0, "max_val": 6.0}, (0.0, 6.0)),
          ({"min_val": -0.1, "max_val": 0.1}, (-0.1, 0.1))),
    *_ops("hardsigmoid.default", ({}, (-3.0, 3.0))),
    *_ops("hardswish.default", ({}, (-3.0, 3.0))),
    *_ops("leaky_relu.default", ({}, (0.0,)), ({"negative_slope": 0.1}, (0.0,))),
    *_ops("elu.default", ({}, (0.0,)), ({"alpha": 0.5}, (0.0,))),
    *_ops("selu.default", ({}, (0.0,))),
    *_ops("celu.default", ({}, (0.0,)), ({"alpha": 0.5}, (0.0,))),
    *_ops("prelu.default", ({"weight": 0.25}, (0.0,))),
    *_ops("rrelu.default", ({}, (0.0,))),
    *_ops("softshrink.default", ({}, (-0.5, 0.5))),
    *_ops("hardshrink.default", ({}, (-0.5, 0.5)), ({"lambd": 0.0}, (0.0,))),
    *_ops("threshold.default", ({"threshold": 0.0, "value": 0.0}, (0.0,)), ({"threshold": 1.0, "value": 1.0}, (1.0,)),
          ({"threshold": 1.0, "value": 0.0}, (1.0,))),
    *_ops("abs.default", ({}, (0.0,))),
    *_ops("softplus.default", ({}, (20.0,))),
    *_ops("clamp.default", ({"min": 0.0}, (0.0,)), ({"max": 0.0}, (0.0,)), ({"min": 0.0, "max": 6.0}, (0.0, 6.0)),
          ({"min": -1.0, "max": 1.0}, (-1.0, 1.0))),
    *_ops("clamp_min.default", ({"min": 0.0}, (0.0,))),
    *_ops("clamp_max.default", ({"max": 0.0}, (0.0,))),
    *_ops("clamp.Tensor", ({"min": 0.0}, (0.0,)), ({"max": 0.0}, (0.0,)), ({"min": 0.0, "max": 6.0}, (0.0, 6.0))),
    *_ops("clamp_min.Tensor", ({"min": 0.0}, (0.0,))),
    *_ops("clamp_max.Tensor", ({"max": 0.0}, (0.0,))),
    *(case for op in ("maximum.default", "minimum.default", "fmax.default", "fmin.default", "max.other", "min.other")
      for case in _either(op, 0.0)),
)  # fmt: skip
"""Pointwise overloads."""

_ZERO = {"target": 0.0, "reduction": 0}
LOSSES: tuple[ScalarCase, ...] = (
    *_ops("l1_loss.default", (_ZERO, (0.0,))),
    *_ops("smooth_l1_loss.default", (_ZERO, (-1.0, 0.0, 1.0))),
    *_ops("huber_loss.default", (_ZERO, (-1.0, 0.0, 1.0))),
    *_ops("hinge_embedding_loss.default", ({"target": -1.0, "reduction": 0}, (1.0,))),
    *_ops("margin_ranking_loss.default", ({"input2": 0.0, "target": 1.0, "margin": 0.5, "reduction": 0}, (0.5,)),
          operand="input1"),
    ScalarCase("triplet_margin_loss(x, 0, 10, eps=0)", (4.5,), function=lambda x: F.triplet_margin_loss(
        x[:, None], torch.zeros_like(x)[:, None], torch.full_like(x, 10.0)[:, None], eps=0.0, reduction="none")),
    ScalarCase("multi_margin_loss((x, 0), 1)", (-1.0,), function=lambda x: F.multi_margin_loss(
        torch.stack([x, torch.zeros_like(x)], 1), torch.ones_like(x, dtype=torch.int64), reduction="none")),
)  # fmt: skip
"""Kinked criteria, entry by entry."""

EXPRESSIONS: tuple[ScalarCase, ...] = tuple(
    ScalarCase(text, points, function=function)
    for text, points, function in (
        ("where(x > 0, x, 0)", (0.0,), lambda x: torch.where(x > 0, x, 0.0)),
        ("where(x < 0, 0, x)", (0.0,), lambda x: torch.where(x < 0, 0.0, x)),
        ("where(x == 0, 0, x)", (0.0,), lambda x: torch.where(x == 0, 0.0, x)),
        ("x * (x > 0)", (0.0,), lambda x: x * (x > 0)),
        ("masked_fill(x, x < 0, 0)", (0.0,), lambda x: x.masked_fill(x < 0, 0.0)),
        ("x * relu6(x + 3) / 6", (-3.0, 3.0), lambda x: x * F.relu6(x + 3) / 6),
        ("relu(x) - relu(-x)", (0.0,), lambda x: torch.relu(x) - torch.relu(-x)),
        ("sqrt(clamp(x, min=0))", (0.0,), lambda x: x.clamp(min=0).sqrt()),
        ("norm(x)", (0.0,), lambda x: torch.linalg.vector_norm(x[:, None], dim=1)),
        ("norm(x, inf)", (0.0,), lambda x: torch.linalg.vector_norm(x[:, None], ord=float("inf"), dim=1)),
        ("std((x, 0))", (0.0,), lambda x: torch.stack([x, torch.zeros_like(x)]).std(0)),
    )
)
"""Mask idioms and other spellings, as functions of x."""


def _pool(dimensions: int, pool: Callable[..., Tensor]) -> TieFunction:
    """A pool over one window that holds every entry along the last dimension."""
    ones = (1,) * (dimensions - 1)
    return lambda x: pool(x.reshape(1, 1, *ones, -1), (*ones, x.numel()))


def _scatter(include_self: bool) -> TieFunction:
    """amax into one entry: the first of the entries if it takes part, else a constant of the same value."""

    def function(x: Tensor) -> Tensor:
        start, source = (x[:1], x[1:]) if include_self else (torch.ones_like(x[:1]).detach(), x)
        index = torch.zeros(source.numel(), dtype=torch.int64, device=x.device)
        return start.scatter_reduce(0, index, source, "amax", include_self=include_self)

    return function


def _bag(x: Tensor) -> Tensor:
    index = torch.arange(x.numel(), device=x.device)
    return F.embedding_bag(index, x[:, None], torch.zeros_like(index[:1]), mode="max")


def _binary(op: str, function: Callable[[Tensor, Tensor], Tensor]) -> TieCase:
    return TieCase(f"aten.{op}", lambda x: function(x[:1], x[1:]), (2,), padded=False)


_ORDER = "an order statistic, not a max"
TIES: tuple[TieCase, ...] = (
    TieCase("aten.max_pool1d.default", _pool(1, F.max_pool1d)),
    TieCase("aten.max_pool2d.default", _pool(2, F.max_pool2d)),
    TieCase("aten.max_pool3d.default", _pool(3, F.max_pool3d)),
    TieCase("aten.adaptive_max_pool1d.default", lambda x: F.adaptive_max_pool1d(x.reshape(1, 1, -1), 1)),
    TieCase("aten.adaptive_max_pool2d.default", lambda x: F.adaptive_max_pool2d(x.reshape(1, 1, 1, -1), 1)),
    TieCase("aten.adaptive_max_pool3d.default", lambda x: F.adaptive_max_pool3d(x.reshape(1, 1, 1, 1, -1), 1)),
    TieCase("aten.embedding_bag.default", _bag, note="mode max"),
    TieCase("aten.max.dim", lambda x: x.max(0).values),
    TieCase("aten.min.dim", lambda x: x.min(0).values, largest=False),
    TieCase("aten.cummax.default", lambda x: x.cummax(0).values[-1]),
    TieCase("aten.cummin.default", lambda x: x.cummin(0).values[-1], largest=False),
    TieCase("aten.amax.default", lambda x: x.amax(0)),
    TieCase("aten.amin.default", lambda x: x.amin(0), largest=False),
    TieCase("aten.max.default", lambda x: x.max()),
    TieCase("aten.min.default", lambda x: x.min(), largest=False),
    TieCase("aten.aminmax.default", lambda x: x.aminmax().max, note="its max"),
    TieCase("aten.linalg_vector_norm.default", lambda x: torch.linalg.vector_norm(x, ord=float("inf")), note="ord inf"),
    TieCase("aten.scatter_reduce.two", _scatter(True), padded=False, note="amax"),
    TieCase("scatter_reduce(amax, include_self=False)", _scatter(False), note="the value written to ties as well"),
    _binary("maximum.default", torch.maximum),
    _binary("minimum.default", torch.minimum),
    _binary("max.other", torch.max),
    _binary("min.other", torch.min),
    _binary("fmax.default", torch.fmax),
    _binary("fmin.default", torch.fmin),
    _binary("clamp_min.Tensor", torch.clamp_min),
    _binary("clamp_max.Tensor", torch.clamp_max),
    _binary("clamp.Tensor", lambda x, low: torch.clamp(x, low, torch.full_like(x, 9.0).detach())),
    TieCase("clamp(x, low, high), all equal", lambda x: torch.clamp(x[:1], x[1:2], x[2:]), (3,), padded=False),
    TieCase("aten.median.default", lambda x: x.median(), padded=False, note=_ORDER),
    TieCase("aten.nanmedian.default", lambda x: x.nanmedian(), padded=False, note=_ORDER),
    TieCase("aten.median.dim", lambda x: x.median(0).values, padded=False, note=_ORDER),
    TieCase("aten.topk.default", lambda x: x.topk(1).values, note=_ORDER),
    TieCase("aten.kthvalue.default", lambda x: x.kthvalue(x.numel()).values, note=_ORDER),
    TieCase("aten.sort.default", lambda x: x.sort(descending=True).values[:1], note=_ORDER),
)
"""Maxima and order statistics."""

CASES: tuple[ScalarCase | TieCase, ...] = (*ACTIVATIONS, *LOSSES, *EXPRESSIONS, *TIES)
