"""Bias entries one by one, and layers one by one for a minibatch of one (theory 5.5)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.zoo.case import CERTIFIED, NOT_CERTIFIED, RUNTIME, UNCOVERED, Case, image, linear, of, stack

relu = torch.relu
KEPT = (CERTIFIED, RUNTIME)
T46 = "T4|T6"
ONE = {"batch_size": 1}


def up(y: Tensor) -> Tensor:
    """A ReLU's mirror image with its side: AD takes the right slope at 0."""
    return y.clamp(max=0)


def wide() -> nn.Module:
    return linear(m=4)


def channels() -> nn.Module:
    return nn.Conv2d(2, 4, 3)


def one() -> tuple[Tensor, ...]:
    return (torch.ones(1, 3),)


def one_image() -> tuple[Tensor, ...]:
    return (torch.ones(1, 2, 6, 6),)


def two() -> tuple[Tensor, ...]:
    return (torch.ones(2, 3),)


def one_signal() -> tuple[Tensor, ...]:
    return (torch.ones(1, 2, 8),)


def _on(layer, function, **parts):
    return of(lambda s, x: function(s.layer(x)), layer=layer, **parts)


def _halves(function):
    """``function`` of the two halves of the features of a layer with one bias."""
    return _on(wide, lambda y: function(*y.chunk(2, 1)))


def _frozen_bias() -> nn.Module:
    module = _halves(lambda a, c: relu(a) * up(c))()
    module.layer.bias.requires_grad_(False)
    return module


def _outside(y: Tensor) -> Tensor:
    """|y|, to which AD gives the slope 2 at 0: no mean of -1 and 1."""
    return y.abs() + 2 * (torch.where(y < 0, 0.0, y) - relu(y))


APART = (
    Case("relu on one half, clamp(max=0) on the other", _halves(lambda a, c: relu(a) * up(c)), KEPT, theorem="T4",
         bias="distinct", subdifferential="bouligand"),
    Case("relu on one half, abs on the other", _halves(lambda a, c: relu(a) + c.abs()), KEPT, theorem="T4",
         subdifferential="clarke"),
    Case("a ReLU gated by a leaky one from the other side", _halves(lambda a, c: relu(a) * (c - up(c) / 2)), KEPT),
    Case("even and odd features", _on(wide, lambda y: relu(y[:, ::2]) + up(y[:, 1::2])), KEPT, theorem="T4"),
    Case("channels of a convolution", _on(channels, lambda y: relu(y[:, :2]) * up(y[:, 2:])), KEPT, image, "T6", bias="shared"),
    Case("channels of a BatchNorm in groups",
         of(lambda s, x: (lambda a, c: relu(a) - up(c))(*s.bn(s.layer(x)).unflatten(1, (2, 2)).unbind(1)), layer=channels,
            bn=lambda: nn.BatchNorm2d(4)), KEPT, image, "T6"),
    Case("halves with the sign turned", _halves(lambda a, c: relu(a) + relu(-c)), KEPT, theorem="T4"),
    Case("halves turned and joined under one ReLU", _halves(lambda a, c: relu(torch.cat([a, -c], 1))), KEPT, theorem="T4"),
    Case("halves after a flip and a roll back", _on(wide, lambda y: (lambda z: relu(z[:, :2]) + up(z[:, 2:]))(
         y.flip(1).roll(1, 1).roll(-1, 1))), KEPT, theorem="T4"),
    Case("halves of a sum of two biases", of(lambda s, x: (lambda y: relu(y[:, :2]) * up(y[:, 2:]))(s.layer(x) + s.b), layer=wide,
         b=[0.0] * 4), KEPT, theorem=T46),
    Case("halves of padded features", _on(wide, lambda y: (lambda z: relu(z[:, :3]) + up(z[:, 3:]))(F.pad(y, (1, 1)))), KEPT,
         theorem=T46),
    Case("halves behind dropout", _on(wide, lambda y: (lambda z: relu(z[:, :2]) + up(z[:, 2:]))(F.dropout(y, 0.5, True))), KEPT,
         theorem=T46),
    Case("halves of a bias spread over the minibatch",
         of(lambda s, x: (lambda y: relu(y[:, :2]) + up(y[:, 2:]))(s.b.expand(x.shape[0], 4) + x[:, :1]), b=[0.0] * 4), KEPT,
         theorem=T46),
    Case("halves of one sample hold for every minibatch", _halves(lambda a, c: relu(a) * up(c)), KEPT, one, "T4"),
    Case("halves of a minibatch of two under T1's batch size", _halves(lambda a, c: relu(a) * up(c)), KEPT, two, "T4",
         options={"batch_size": 2}),
)  # fmt: skip

MEETING = (
    Case("halves that overlap by one", _on(wide, lambda y: torch.cat([relu(y[:, :3]), up(y[:, 2:])], 1)), NOT_CERTIFIED,
         codes=("FX104",)),
    Case("a half, and the whole rolled back on it", _on(wide, lambda y: torch.cat([relu(y[:, :2]), up((y + y.roll(2, 1))[:, 2:])], 1)),
         NOT_CERTIFIED),
    Case("halves of repeated features", _on(wide, lambda y: (lambda z: torch.cat([relu(z[:, :3]), up(z[:, 3:])], 1))(
         y.repeat_interleave(2, 1))), NOT_CERTIFIED),
    Case("halves of tiled features", _on(wide, lambda y: (lambda z: relu(z[:, :4]) + up(z[:, 4:]))(y.repeat(1, 2))), NOT_CERTIFIED),
    Case("CReLU on one half", _halves(lambda a, c: torch.cat([relu(a), relu(-a), up(c)], 1)), NOT_CERTIFIED),
    Case("CReLU on one half, by a factor", _halves(lambda a, c: relu(torch.cat([a, -2 * a], 1)) + up(torch.cat([c, c], 1))),
         NOT_CERTIFIED),
    Case("a bias of one feature in both halves",
         of(lambda s, x: (lambda y: relu(y[:, :2]) + up(y[:, 2:]))(s.layer(x) + s.b),
            layer=lambda: nn.Linear(3, 4, bias=False), b=[0.0]), NOT_CERTIFIED),
    Case("opposite sides within one half", _halves(lambda a, c: torch.cat([relu(a), up(a), c], 1)), NOT_CERTIFIED),
    Case("positions of a convolution", _on(channels, lambda y: relu(y[..., :2]) - up(y[..., 2:])), NOT_CERTIFIED, image),
    Case("every second number of all samples", _on(lambda: linear(), lambda y: (lambda z: relu(z[::2]).sum() + up(z[1::2]).sum())(
         y.reshape(-1))), NOT_CERTIFIED),
    Case("every second number of one sample, for any minibatch",
         _on(lambda: linear(), lambda y: (lambda z: relu(z[::2]).sum() + up(z[1::2]).sum())(y.reshape(-1))),
         (RUNTIME, CERTIFIED), one),
    Case("halves of the minibatch", _on(wide, lambda y: relu(y[:2]) + up(y[2:])), NOT_CERTIFIED),
    Case("features of the transpose", _on(wide, lambda y: relu(y.t()[:2]) + up(y.t().roll(1, 0)[2:])), NOT_CERTIFIED),
    Case("halves after a roll by the size of the minibatch",
         of(lambda s, x: (lambda y: relu(y[:, :2]) + up(y.roll(x.shape[0], 1)[:, 2:]))(s.layer(x)), layer=wide), NOT_CERTIFIED),
    Case("a half of which a residual reaches the other",
         _halves(lambda a, c: torch.cat([relu(a), up(c - 2 * a)], 1)), NOT_CERTIFIED),
    Case("one channel after a second layer without bias",
         of(lambda s, x: (lambda y: torch.cat([relu(y[:, :2]), up(s.mix(y)[:, 2:])], 1))(s.layer(x)), layer=wide,
            mix=lambda: nn.Linear(4, 4, bias=False)), NOT_CERTIFIED),
    Case("frozen bias under two halves", _frozen_bias, NOT_CERTIFIED),
    Case("halves chosen by the data", of(lambda s, x: (lambda y: relu(y.gather(1, (x > 0).long())) + up(y[:, 1:]))(s.layer(x)),
         layer=wide), NOT_CERTIFIED),
    Case("a bias and its reversal in one slice",
         of(lambda s, x: relu(s.layer(x)[:, :2] + s.b[:2]) + up(s.layer(x)[:, :2] + s.b[1:3]),
            layer=lambda: nn.Linear(3, 4, bias=False), b=[0.0] * 3), NOT_CERTIFIED),
)  # fmt: skip

ONE_SAMPLE = (
    Case("T1: a shared bias with one side below, distinct ones with two sides above",
         of(lambda s, x: F.relu6(s.head(relu(s.layer(x)).flatten(1))), layer=channels, head=lambda: nn.Linear(64, 3)),
         (CERTIFIED,), one_image, "T1", options=ONE, subdifferential="clarke"),
    Case("T1: one group by T4, one by T6, one by T1",
         of(lambda s, x: F.hardtanh(s.head(relu(s.mid(relu(s.layer(x)).mean((2, 3)))))), layer=channels,
            mid=lambda: linear(n=4), head=lambda: linear()), (CERTIFIED,), one_image, "T1", options=ONE),
    Case("T1: relu on one half, hardtanh on the other", _halves(lambda a, c: relu(a) * F.hardtanh(c)), (CERTIFIED,), one, "T1",
         options=ONE),
    Case("T1: relu6 after a convolution with one position", stack(nn.Conv2d(2, 4, 6), nn.ReLU6()), (CERTIFIED,), one_image, "T1",
         options=ONE),
    Case("T1: conv bias and BatchNorm beta, of which one is used", stack(nn.Conv2d(2, 4, 6), nn.BatchNorm2d(4).eval(), nn.ReLU6()),
         (CERTIFIED,), one_image, "T1", options={**ONE, "mode": "keep"}),
    Case("T1: two biases under one entry", of(lambda s, x: F.hardtanh(s.layer(x) + s.b), layer=wide, b=[0.0] * 4), (CERTIFIED,), one,
         "T1", options=ONE),
    Case("T1's layers without batch_size", _halves(lambda a, c: relu(a) * F.hardtanh(c)), (RUNTIME,), one, "T8"),
    Case("T1 of a minibatch of two", _halves(lambda a, c: relu(a) * F.hardtanh(c)), (RUNTIME,), two, "T8",
         options={"batch_size": 2}),
    Case("T1 and positions that share a bias", stack(channels(), nn.ReLU6()), (RUNTIME,), one_image, "T8", options=ONE),
    Case("T1 and a max behind", _on(wide, lambda y: F.hardtanh(y).max(1)[0]), (RUNTIME,), one, "T8", options=ONE),
    Case("T1 and circular padding", of(lambda s, x: F.hardtanh(F.pad(s.layer(x)[:, None], (1, 1), mode="circular") + s.w), layer=wide,
         w=0.0), NOT_CERTIFIED, one, options=ONE),
    Case("T1 and a transposed convolution with several positions",
         stack(nn.ConvTranspose1d(2, 4, 2, 2), nn.Hardtanh()), (RUNTIME,), one_signal, "T8", options=ONE),
    Case("T1 and an embedding read twice",
         of(lambda s, x: F.hardtanh(s.table(torch.tensor([[1, 1]]))[:, :, :3] * 3 + x[:, None] * torch.tensor([[[1.0], [2.0]]])),
            table=lambda: nn.Embedding(3, 3)), (RUNTIME, UNCOVERED), one, options=ONE),
    Case("T1 and overlapping slices of a parameter",
         of(lambda s, x: F.hardtanh(torch.cat([s.b[:2] + x[:, :2], s.b[1:] + x[:, 1:]], 1)), b=[0.0] * 3), (RUNTIME, UNCOVERED), one,
         options=ONE),
    Case("T1 and a weight outside [0, 1]", _on(wide, _outside), (UNCOVERED, RUNTIME), one, options=ONE),
    Case("T1 and a bias of another sample",
         of(lambda s, x, z: F.hardtanh(s.layer(torch.cat([x, z]))).sum(1), layer=wide), (RUNTIME, UNCOVERED),
         lambda: (torch.ones(1, 3), torch.ones(1, 3)), options=ONE),
    Case("T1 and halves that swap in a residual",
         _halves(lambda a, c: F.hardtanh(torch.cat([a + c, c], 1))), (RUNTIME, UNCOVERED), one, options=ONE),
)  # fmt: skip

CASES = APART + MEETING + ONE_SAMPLE
