"""The paper's counterexamples and those of theory sections 4 and 5, as functions of the parameters alone."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.zoo.case import CERTIFIED, NOT_CERTIFIED, RUNTIME, UNCOVERED, Case, Of, dense, nothing, of, signal, stack

relu = torch.relu


def one_sided_up(x: Tensor) -> Tensor:
    """The ReLU whose proxy at 0 is 1 (``h`` of the theory)."""
    return torch.where(x < 0, torch.zeros_like(x), x)


def _first_max(*entries: Tensor) -> Tensor:
    return torch.stack(entries).max(dim=0).values


def _unequal_pool(self: Of, x: Tensor) -> Tensor:
    a = relu(F.avg_pool1d(self.conv(x), 2, 1, padding=1))
    return F.max_pool1d(a[..., :2], 2) - a[..., 2:3] / 2


def _smooth_criterion(self: Of) -> tuple[Tensor, Tensor]:
    return relu(self.w + self.b), self.w + relu(1 + self.b) - 1


def _rotated(self: Of) -> Tensor:
    return (relu(self.b - self.b.flip(0)) * torch.tensor([1.0, -1.0])).sum()


def _gamma_zero(self: Of, x: Tensor) -> Tensor:
    best = F.max_pool1d(self.bn(x), 2)
    return best[..., 0] - best[..., 1]


def _overlapping(self: Of) -> Tensor:
    z = torch.cat([torch.ones(1), relu(self.w), -torch.ones(1)])
    return F.max_pool1d(z.reshape(1, 1, 3), 2, 1).sum() - relu(-self.w).sum()


def _four_maxes(self: Of) -> Tensor:
    """At 0 AD picks t and u: (2, -1), a vertex of dC = [-2, 2] x [-1, 1]."""
    t, u = self.t, self.u
    return _first_max(2 * _first_max(t, -t), _first_max(u, -u)) - _first_max(u, -u)


def _four_maxes_of_which_two_split(self: Of) -> Tensor:
    """The same function; at 0 AD gives (0, 1/2) for the outer maximum and (0, -1) for the last: (0, 1.5)."""
    t, u = self.t, self.u
    return torch.maximum(2 * torch.maximum(t, -t), _first_max(u, -u)) - _first_max(-u, u)


def _two_maxes(self: Of) -> Tensor:
    return _first_max(self.w, -self.w) - _first_max(-self.w, self.w)


CASES = (
    Case("lemma 2: relu(w) - relu(-w)", of(lambda s: relu(s.w) - relu(-s.w), w=0.0), NOT_CERTIFIED, nothing),
    Case("lemma 2 by a layer", stack(nn.Linear(1, 2, bias=False), nn.ReLU()), (RUNTIME,),
         lambda: (torch.ones(1, 1),), "T5|T8", ("FX101|FX102",), bias="none"),
    Case("lemma 3: hardsigmoid(3 + w) + hardsigmoid(-3 + w)",
         of(lambda s: F.hardsigmoid(3 + s.w) + F.hardsigmoid(-3 + s.w), w=0.0), NOT_CERTIFIED, nothing),
    Case("lemma 3 over a minibatch", of(lambda s, x: F.hardsigmoid(x + s.w).sum(), w=0.0), NOT_CERTIFIED,
         lambda: (torch.tensor([3.0, -3.0]),), "T5|T8", ("FX201",)),
    Case("lemma 7: max(u+b, b) - max(-u+b, b)",
         of(lambda s: _first_max(s.u + s.b, s.b) - _first_max(-s.u + s.b, s.b), u=0.0, b=0.0),
         NOT_CERTIFIED, nothing, "T8", ("FX301|FX103",)),
    Case("lemma 7 with the b in a vector and a ReLU outside",
         of(lambda s: relu(_first_max(s.u + s.b, s.b)) - relu(_first_max(-s.u + s.b, s.b)), u=0.0, b=0.0),
         NOT_CERTIFIED, nothing, "T8"),
    Case("g - h with proxies 0 and 1", of(lambda s: relu(s.w) - one_sided_up(s.w), w=0.0), NOT_CERTIFIED, nothing),
    Case("g + h - h, where AD is right", of(lambda s: relu(s.w) + one_sided_up(s.w) - one_sided_up(s.w), w=0.0),
         (CERTIFIED, RUNTIME, UNCOVERED), nothing),
    Case("h(-h(w)) with where", of(lambda s: one_sided_up(-one_sided_up(s.w)), w=0.0), (UNCOVERED,), nothing),
    Case("h(-h(w)) with masked_fill", of(lambda s: (m := -s.w.masked_fill(s.w < 0, 0.0)).masked_fill(m < 0, 0.0), w=0.0),
         (UNCOVERED,), nothing),
    Case("h(-h(w)) on a vector sum",
         of(lambda s: one_sided_up(-one_sided_up(s.w).sum()), w=[0.0, 0.0]), (RUNTIME,), nothing, codes=("FX103",)),
    Case("relu(w) - relu(2w) moves one way", of(lambda s: relu(s.w) - relu(2 * s.w), w=0.0),
         (CERTIFIED, RUNTIME), nothing, "T4|T6", subdifferential="bouligand"),
    Case("A: unequal coefficients under an average pool, then a max",
         of(_unequal_pool, conv=lambda: nn.Conv1d(2, 1, 1)), NOT_CERTIFIED, signal, "T8"),
    Case("A without the max: any positive coefficients certify T6",
         stack(nn.Conv1d(2, 1, 1), nn.AvgPool1d(2, 1, padding=1), nn.ReLU()), (CERTIFIED, RUNTIME), signal, "T6"),
    Case("B: discharge must not join", of(lambda s: relu(s.w + s.b) + (s.w + relu(1 + s.b) - 1).clamp(max=0), w=0.0, b=0.0),
         NOT_CERTIFIED, nothing),
    Case("C: |2w + |w|| - 2|w|", of(lambda s: (2 * s.w + s.w.abs()).abs() - 2 * s.w.abs(), w=0.0), (UNCOVERED,), nothing),
    Case("C on two entries that share", of(lambda s: (2 * s.w + s.w.abs().sum()).abs() - 2 * s.w.abs().sum(), w=[0.0]),
         (RUNTIME,), nothing),
    Case("C with torch.maximum in series",
         of(lambda s: torch.maximum(2 * s.u + (m := torch.maximum(s.u, s.v)), s.v) - m, u=0.0, v=0.0), (RUNTIME,), nothing),
    Case("D: b_i - b_j", of(lambda s: relu(s.b1 - s.b2) - relu(s.b2 - s.b1), b1=1.0, b2=1.0), NOT_CERTIFIED, nothing),
    Case("D: b minus b flipped", of(_rotated, b=[1.0, 1.0]), NOT_CERTIFIED, nothing),
    Case("D: x + b - 2b under two ReLUs",
         of(lambda s, x: relu(y := x + s.b) - relu(y - 2 * s.b), b=[0.0] * 3), NOT_CERTIFIED),
    Case("x + b - 2b alone moves down with b", of(lambda s, x: relu((x + s.b) - 2 * s.b), b=[0.0] * 3),
         (CERTIFIED, RUNTIME), theorem="T4|T6"),
    Case("E: CReLU", of(lambda s, x: relu(y := s.layer(x)) - relu(-y), layer=dense), NOT_CERTIFIED),
    Case("E: CReLU by cat", of(lambda s, x: relu(torch.cat([y := s.layer(x), -y], 1)), layer=dense), NOT_CERTIFIED,
         theorem="T8"),
    Case("E2: relu(y) + clamp(y, max=0)", of(lambda s, x: relu(y := s.layer(x)) + y.clamp(max=0), layer=dense), NOT_CERTIFIED),
    Case("E2 apart: relu on one half, clamp(max=0) on the other",
         of(lambda s, x: (y := s.layer(x), torch.cat([relu(y[:, :1]), y[:, 1:].clamp(max=0)], 1))[1], layer=dense),
         (CERTIFIED, RUNTIME), theorem="T4|T6", subdifferential="bouligand"),
    Case("F: BatchNorm's gamma under a max", of(_gamma_zero, bn=lambda: nn.BatchNorm1d(2)), (RUNTIME,), signal, "T8", ("FX301",)),
    Case("G: overlapping windows", of(_overlapping, w=[0.0]), NOT_CERTIFIED, nothing),
    Case("H: h(relu(w)) - relu(-w)", of(lambda s: one_sided_up(relu(s.w)) - relu(-s.w), w=0.0), NOT_CERTIFIED, nothing),
    Case("M: over w, b1, b2", of(lambda s: relu(s.w + s.b1) - relu(s.b2 - s.w), w=0.0, b1=0.0, b2=0.0),
         (CERTIFIED, RUNTIME), nothing, "T4|T6"),
    Case("M: over w alone", of(lambda s: relu(s.w + s.b1) - relu(s.b2 - s.w), w=0.0, b1=0.0, b2=0.0),
         NOT_CERTIFIED, nothing, wrt=lambda m: [m.w]),
    Case("tangential: h(w1) - relu(w1 - w2^2)", of(lambda s: one_sided_up(s.w1) - relu(s.w1 - s.w2**2), w1=0.0, w2=0.0),
         NOT_CERTIFIED, nothing),
    Case("max(2|t|, |u|) - |u| by four maxes that pick, where AD is right", of(_four_maxes, t=0.0, u=0.0),
         (CERTIFIED, RUNTIME, UNCOVERED), nothing),
    Case("max(2|t|, |u|) - |u| by four maxes, two of which split", of(_four_maxes_of_which_two_split, t=0.0, u=0.0),
         NOT_CERTIFIED, nothing),
    Case("max(w, -w) - max(-w, w)", of(_two_maxes, w=0.0), NOT_CERTIFIED, nothing),
    Case("smooth criterion assumed: two outputs", of(_smooth_criterion, w=0.0, b=0.0), (CERTIFIED, RUNTIME), nothing, "T4|T6"),
    Case("smooth criterion broken by the loss", of(_smooth_criterion, w=0.0, b=0.0), NOT_CERTIFIED, nothing,
         options={"loss": lambda o: o[0] - relu(-o[1])}),
    Case("a direct spelling of that loss",
         of(lambda s: relu(s.w + s.b) - relu(-(s.w + relu(1 + s.b) - 1)), w=0.0, b=0.0), NOT_CERTIFIED, nothing),
    Case("one bias under both signs by a sign buffer",
         of(lambda s, x: relu(s.layer(x) * torch.tensor([[1.0], [-1.0]])), layer=dense), NOT_CERTIFIED,
         lambda: (torch.ones(4, 2, 3),), "T8"),
    Case("relu(w) - relu(-w) through a product of two parameters",
         of(lambda s, x: relu(x * s.w * s.v), w=[0.0] * 3, v=[1.0] * 3), NOT_CERTIFIED),
    Case("x * b + b is no additive bias", of(lambda s, x: relu(x * s.b + s.b), b=[0.0] * 3), NOT_CERTIFIED),
)  # fmt: skip
