"""Pointwise functions with kinks, and data that hits the kinks."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def h(y: Tensor) -> Tensor:
    """A ReLU whose derivative at 0 is 1."""
    return torch.where(y < 0, torch.zeros_like(y), y)


def _assigned(y: Tensor) -> Tensor:
    y = y.clone()
    y[y < 0] = 0
    return y


def _zero(y: Tensor) -> Tensor:
    return torch.zeros((), dtype=y.dtype)


def _number(y: Tensor, value: int) -> Tensor:
    return torch.tensor(float(value), dtype=y.dtype)


def _stairs(y: Tensor) -> Tensor:
    """-1, 0, 1, -1, ... along the last dimension."""
    return torch.arange(y.shape[-1], dtype=y.dtype) % 3 - 1


UNIT = (-1, 0, 1)
POINTWISE: dict[str, tuple[Callable[[Tensor], Tensor], tuple[int, ...]]] = {
    "relu": (F.relu, UNIT),
    "relu6": (F.relu6, (0, 3, 6)),
    "hardtanh": (F.hardtanh, UNIT),
    "hardtanh2": (lambda y: F.hardtanh(y, 0.0, 2.0), (0, 1, 2)),
    "hardsigmoid": (F.hardsigmoid, (-3, 0, 3)),
    "hardswish": (F.hardswish, (-3, 0, 3)),
    "leaky_relu": (lambda y: F.leaky_relu(y, 0.5), UNIT),
    "leaky_relu_falling": (lambda y: F.leaky_relu(y, -1.0), UNIT),
    "rrelu": (lambda y: F.rrelu(y, 0.25, 0.75, False), UNIT),
    "elu": (lambda y: F.elu(y, 2.0), UNIT),
    "celu": (lambda y: F.celu(y, 2.0), UNIT),
    "selu": (F.selu, UNIT),
    "threshold": (lambda y: F.threshold(y, 1.0, 1.0), UNIT),
    "softshrink": (lambda y: F.softshrink(y, 1.0), UNIT),
    "clamp": (lambda y: y.clamp(-1, 1), UNIT),
    "clamp_min": (lambda y: y.clamp(min=0), UNIT),
    "clamp_max": (lambda y: y.clamp(max=0), UNIT),
    "abs": (torch.abs, UNIT),
    "maximum_0": (lambda y: torch.maximum(y, _zero(y)), UNIT),
    "h": (h, UNIT),
    "mask": (lambda y: y * (y > 0), UNIT),
    "mask_at_0": (lambda y: y * (y >= 0), UNIT),
    "masked_fill": (lambda y: y.masked_fill(y < 0, 0), UNIT),
    "assigned": (_assigned, UNIT),
    "where_leaky": (lambda y: torch.where(y > 0, y, 0.5 * y), UNIT),
    "relu_in_place": (lambda y: F.relu_(1 * y), UNIT),
    "hardtanh_in_place": (lambda y: F.hardtanh_(1 * y), UNIT),
    "hardswish_by_hand": (lambda y: y * F.relu6(y + 3) / 6, (-3, 0, 3)),
    "softsign_by_hand": (lambda y: y / (1 + y.abs()), UNIT),
    "elu_by_hand": (lambda y: torch.where(y > 0, y, 0.5 * (y.exp() - 1)), UNIT),
    "relu_squared": (lambda y: F.relu(y) ** 2, UNIT),
    "relu_shifted": (lambda y: F.relu(y + 1), UNIT),
    "sqrt_of_square": (lambda y: (y * y + 1).sqrt(), UNIT),
    "hardshrink_0": (lambda y: F.hardshrink(y, 0.0), UNIT),
    "where_0": (lambda y: torch.where(y == 0, torch.zeros_like(y), y), UNIT),
    "hardshrink": (lambda y: F.hardshrink(y, 1.0), UNIT),
    "sign_times": (lambda y: y.sign() * y, UNIT),
}
CHAINS: dict[str, tuple[Callable[[Tensor], Tensor], tuple[int, ...]]] = {
    "hinge": (lambda y: torch.maximum(1 - y, _zero(y)), UNIT),
    "capped": (lambda y: torch.minimum(F.relu(y), _number(y, 1)), UNIT),
    "relu6_by_clamp": (lambda y: F.relu(y).clamp(max=6.0), (0, 3, 6)),
    "relu6_by_cap": (lambda y: torch.minimum(F.relu(y), _number(y, 6)), (0, 3, 6)),
    "band": (lambda y: torch.minimum(torch.maximum(y, _number(y, -1)), _number(y, 1)), UNIT),
    "band_turned": (lambda y: torch.maximum(-torch.maximum(-y, _number(y, -1)), _number(y, -1)), UNIT),
    "clamp_by_rows": (lambda y: y.clamp(min=_stairs(y)), UNIT),
    "maximum_rows": (lambda y: torch.maximum(_stairs(y), 2 * y), UNIT),
    "max_of_stairs": (lambda y: torch.maximum(F.relu(y), _stairs(y)), UNIT),
    "huber_by_hand": (lambda y: torch.where(y.abs() < 1, 0.5 * y * y, y.abs() - 0.5), UNIT),
    "plus_relu": (lambda y: y + F.relu(y), UNIT),
    "minus_relu": (lambda y: y - F.relu(y), UNIT),
    "two_relus": (lambda y: F.relu(y) - F.relu(-y), UNIT),
    "relu_and_h": (lambda y: F.relu(y) - h(-y), UNIT),
    "dead_zone": (lambda y: F.relu(y - 1) - F.relu(-y - 1), UNIT),
    "one_minus_relu_twice": (lambda y: F.relu(1 - F.relu(1 - y)), UNIT),
    "pinball": (lambda y: torch.maximum(0.25 * y, -0.75 * y), UNIT),
    "relu_less_one": (lambda y: F.relu(F.relu(y) - 1), UNIT),
    "abs_of_relu": (lambda y: (F.relu(y) - 1).abs(), UNIT),
    "gated": (lambda y: y * (y > 0).to(y.dtype) + 0.5 * y * (y <= 0), UNIT),
    "triangle": (lambda y: F.relu(1 - y.abs()), UNIT),
    "larger_part": (lambda y: torch.maximum(F.relu(y), -0.5 * y), UNIT),
    "square_of_hinge": (lambda y: torch.maximum(1 - y, _zero(y)) ** 2, UNIT),
}
"""Kinks made of several operators on one value, some with tensors that are constant."""
