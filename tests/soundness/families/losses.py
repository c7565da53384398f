"""Criteria with kinks, from outputs (B, N) and a target (2, B, N): what to compare with, and a weight of either sign."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def _l1(o: Tensor, t: Tensor) -> Tensor:
    return (F.l1_loss(o, t[0], reduction="none") * t[1]).sum()


def _l1_mean(o: Tensor, t: Tensor) -> Tensor:
    return F.l1_loss(o, t[0])


def _hinge(o: Tensor, t: Tensor) -> Tensor:
    return (F.relu(1 - o * t[0]) * t[1]).sum()


def _margin(o: Tensor, t: Tensor) -> Tensor:
    return (F.relu(o - t[0] + 1) * t[1]).sum()


def _margin_ranking(o: Tensor, t: Tensor) -> Tensor:
    return F.margin_ranking_loss(o, t[0], t[1].sign(), margin=1.0, reduction="sum")


def _quantile(o: Tensor, t: Tensor) -> Tensor:
    d = t[0] - o
    return (torch.where(d >= 0, 0.75 * d, -0.25 * d) * t[1]).sum()


def _smooth_l1(o: Tensor, t: Tensor) -> Tensor:
    return (F.smooth_l1_loss(o, t[0], reduction="none") * t[1]).sum()


def _triplet(o: Tensor, t: Tensor) -> Tensor:
    far, near = (o - t[1]).square().sum(1), (o - t[0]).square().sum(1)
    return F.relu(near - far + 1).sum()


def _triplet_l1(o: Tensor, t: Tensor) -> Tensor:
    far, near = (o - t[1]).abs().sum(1), (o - t[0]).abs().sum(1)
    return F.relu(near - far + 1).sum()


def _softshrink(o: Tensor, t: Tensor) -> Tensor:
    return (F.softshrink(o - t[0], 1.0) * t[1]).sum()


def _worst(o: Tensor, t: Tensor) -> Tensor:
    """The largest error of a sample, each with a weight of either sign."""
    return ((o - t[0]).abs().amax(1) * t[1][:, 0]).sum()


def _squares(o: Tensor, t: Tensor) -> Tensor:
    return ((o - t[0]).square() * t[1]).sum()


def _kink_of_output_pairs(o: Tensor, t: Tensor) -> Tensor:
    """o0 - relu(-o1): the criterion that turns a certificate of the outputs into a wrong one."""
    return (o[:, :1] * t[1][:, :1]).sum() - (F.relu(-o[:, -1:]) * t[1][:, -1:]).sum()


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "l1": _l1, "l1_mean": _l1_mean, "hinge": _hinge, "margin": _margin, "margin_ranking": _margin_ranking,
    "quantile": _quantile, "smooth_l1": _smooth_l1, "triplet": _triplet, "squares": _squares,
    "pairs": _kink_of_output_pairs, "triplet_l1": _triplet_l1, "softshrink": _softshrink, "worst": _worst,
}  # fmt: skip
