"""Criteria (contract: ``--loss``): kinked ones are layers, smooth ones change nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.zoo.case import (
    CERTIFIED,
    ERROR,
    NOT_CERTIFIED,
    RUNTIME,
    SMOOTH,
    UNCOVERED,
    Case,
    Of,
    dense,
    of,
    stack,
    unbiased,
)

relu = torch.relu


def _with(name: str, loss: Callable[..., Any], *allowed: str, model: nn.Module | None = None, target: Any = None, **more: Any) -> Case:
    options = {"loss": loss, "target": torch.zeros(4, 3) if target is None else target}
    return Case("loss: " + name, stack(model or dense()), allowed, options=options, **more)


def _alone(name: str, loss: Callable[[Tensor], Tensor], *allowed: str, **more: Any) -> Case:
    return Case("loss: " + name, stack(dense()), allowed, options={"loss": loss}, **more)


def _triplet(out: Tensor) -> Tensor:
    return F.triplet_margin_loss(out[:1], out[1:2], out[2:3])


def _pinball(out: Tensor, target: Tensor) -> Tensor:
    error = target - out
    return torch.maximum(0.9 * error, -0.1 * error).mean()


def _pinball_relu(out: Tensor, target: Tensor) -> Tensor:
    error = target - out
    return (0.9 * relu(error) + 0.1 * relu(-error)).mean()


def _two_outputs(s: Of, x: Tensor) -> tuple[Tensor, Tensor]:
    return relu(s.a(x)), s.b(x)


_CLASSES = torch.tensor([0, 1, 2, 0])
_SIGNS = torch.tensor([[1.0, -1.0, 1.0]] * 4)

CASES = (
    _with("MSE", F.mse_loss, SMOOTH),
    _with("smooth L1", F.smooth_l1_loss, SMOOTH),
    _with("Huber", F.huber_loss, SMOOTH),
    _with("smooth L1 with beta 0 is L1", lambda o, t: F.smooth_l1_loss(o, t, beta=0.0), CERTIFIED, UNCOVERED, RUNTIME),
    _with("BCE with logits", F.binary_cross_entropy_with_logits, SMOOTH),
    _with("BCE of a sigmoid", lambda o, t: F.binary_cross_entropy(torch.sigmoid(o), t), SMOOTH, RUNTIME, UNCOVERED),
    _with("cross entropy", F.cross_entropy, SMOOTH, target=_CLASSES),
    _with("NLL", lambda o, t: F.nll_loss(F.log_softmax(o, 1), t), SMOOTH, target=_CLASSES),
    _with("KL divergence", lambda o, t: F.kl_div(F.log_softmax(o, 1), t, reduction="batchmean"), SMOOTH),
    _with("Gaussian NLL with fixed variance", lambda o, t: F.gaussian_nll_loss(o, t, torch.ones(4, 3)), SMOOTH, ERROR),
    _with("Poisson NLL", F.poisson_nll_loss, SMOOTH),
    _with("soft margin", F.soft_margin_loss, SMOOTH, target=_SIGNS),
    _with("L1 over a bias", F.l1_loss, CERTIFIED, UNCOVERED, theorem="T4|T6", subdifferential="clarke"),
    _with("L1 by hand over a bias", lambda o, t: (o - t).abs().mean(), CERTIFIED, UNCOVERED, theorem="T4|T6", subdifferential="clarke"),
    _with("L1 without bias", F.l1_loss, RUNTIME, UNCOVERED, model=unbiased()),
    _with("L1 of a model with a max", F.l1_loss, RUNTIME, model=nn.Sequential(dense(), nn.MaxPool1d(2, 1), nn.Linear(2, 3))),
    _alone("L1 between complex numbers", lambda o: F.l1_loss(torch.complex(o, o.flip(1)), torch.complex(o.flip(1), o)), UNCOVERED),
    _alone("L1 of a spectrum", lambda o: F.l1_loss(torch.fft.rfft(o), torch.ones(4, 2, dtype=torch.cfloat)), UNCOVERED),
    _alone("L1 of a spectrum by hand", lambda o: (torch.fft.rfft(o) - 1).abs().mean(), RUNTIME),
    _alone("L1 between two neurons", lambda o: (o[:, 0] - o[:, 1]).abs().mean(), CERTIFIED, RUNTIME),
    _alone("L1 between neighbouring samples", lambda o: (o[1:] - o[:-1]).abs().mean(), UNCOVERED, RUNTIME),
    _alone("total variation around the ring", lambda o: (o - o.roll(1, 1)).abs().mean(), UNCOVERED, RUNTIME),
    _with("hinge by relu", lambda o, t: relu(1 - t * o).mean(), RUNTIME, UNCOVERED, target=_SIGNS),
    _with("hinge by clamp", lambda o, t: (1 - t * o).clamp(min=0).mean(), RUNTIME, UNCOVERED, target=_SIGNS),
    _with("hinge of positives only", lambda o, t: relu(1 - o).mean(), CERTIFIED, RUNTIME),
    _with("hinge of positives and negatives", lambda o, t: (relu(1 - o[:2]) + relu(1 + o[2:])).mean(), *NOT_CERTIFIED),
    _with("hinge embedding: only negatives have a kink, and all on one side", F.hinge_embedding_loss, CERTIFIED, RUNTIME, UNCOVERED,
          target=_SIGNS),
    _with("margin ranking", lambda o, t: F.margin_ranking_loss(o[:, 0], o[:, 1], t[:, 0]), RUNTIME, UNCOVERED, target=_SIGNS),
    _with("multi margin", F.multi_margin_loss, RUNTIME, UNCOVERED, target=_CLASSES),
    _alone("triplet", _triplet, RUNTIME, UNCOVERED),
    _alone("cosine distance", lambda o: 1 - F.cosine_similarity(o[:2], o[2:]).mean(), RUNTIME, UNCOVERED),
    _with("pinball by maximum", _pinball, CERTIFIED, RUNTIME),
    _with("pinball by two relus", _pinball_relu, CERTIFIED, RUNTIME, UNCOVERED),
    _with("MAPE", lambda o, t: ((o - t) / (t + 1)).abs().mean(), CERTIFIED, UNCOVERED, RUNTIME),
    _with("RMSE", lambda o, t: F.mse_loss(o, t).sqrt(), RUNTIME, UNCOVERED),
    _with("log-cosh", lambda o, t: (o - t).cosh().log().mean(), SMOOTH, RUNTIME),
    _with("smooth L1 under a certified ReLU", F.smooth_l1_loss, CERTIFIED, model=nn.Sequential(dense(), nn.ReLU(), dense())),
    _with("L1 under a certified ReLU", F.l1_loss, CERTIFIED, UNCOVERED, model=nn.Sequential(dense(), nn.ReLU(), dense())),
    _with("L1 straight on a ReLU", F.l1_loss, RUNTIME, CERTIFIED, target=torch.ones(4, 3), model=nn.Sequential(dense(), nn.ReLU())),
    _with("accuracy is not continuous", lambda o, t: (o.argmax(1) == t).float().mean(), UNCOVERED, target=_CLASSES),
    _with("focal with a detached weight", lambda o, t: ((1 - torch.sigmoid(o).detach()) * F.softplus(-o)).mean(), UNCOVERED),
    _alone("largest logit", lambda o: o.max(), RUNTIME),
    _alone("largest logit by dim", lambda o: o.max(1).values.mean(), RUNTIME),
    _alone("hardest negative", lambda o: relu(o[:, 1:].max(1).values - o[:, 0] + 1).mean(), RUNTIME, UNCOVERED),
    Case("loss: relu of a difference of heads",
         of(_two_outputs, a=dense, b=dense), NOT_CERTIFIED, options={"loss": lambda o: relu(-o[0].sum() * o[1].sum())}),
)  # fmt: skip
