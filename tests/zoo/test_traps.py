"""Every trap of the theory page that a static verdict could fall into, with the verdict it must get."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fxcheck.api import analyze


class Net(nn.Module):
    """A scalar function of a few named parameters and one input."""

    def __init__(self, forward: Callable[..., Any], sizes: dict[str, tuple[int, ...]], frozen: tuple[str, ...] = ()):
        super().__init__()
        for name, size in sizes.items():
            setattr(self, name, nn.Parameter(torch.zeros(size), requires_grad=name not in frozen))
        self.body = forward

    def forward(self, x: torch.Tensor) -> Any:
        return self.body(self, x)


def h(y: torch.Tensor) -> torch.Tensor:
    """A ReLU whose derivative at 0 is 1."""
    return torch.where(y < 0, 0.0, y)


@dataclass(frozen=True)
class Case:
    name: str
    forward: Callable[..., Any]
    sizes: dict[str, tuple[int, ...]]
    verdicts: tuple[str, ...]
    codes: tuple[str, ...] = ()
    frozen: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    x: tuple[int, ...] = (4, 3)


W = {"w": (3,)}
WB = {"w": (3,), "b": (3,)}
NOT_CERTIFIED = ("runtime", "uncovered")

CASES = [
    Case("lemma 2: relu(w) - relu(-w)", lambda m, x: F.relu(m.w) - F.relu(-m.w), W, ("uncovered",), ("FX507",)),
    Case("lemma 2 over an addition", lambda m, x: F.relu(m.w + x) - F.relu(-(m.w + x)), W, NOT_CERTIFIED),
    Case("lemma 2, minus w through another tensor", lambda m, x: F.relu(m.w) - F.relu(-m.w.flip(0)), W, NOT_CERTIFIED),
    Case("lemma 3: hardsigmoid at both kinks", lambda m, x: F.hardsigmoid(m.w + x).sum(), W, ("runtime",), ("FX201",)),
    Case("lemma 7: max with a shared bias",
         lambda m, x: (m.u * x[:, :1] + torch.stack([m.b, 0 * m.b + m.b], 1)[0]).max(1)[0], {"u": (1,), "b": (1,)},
         NOT_CERTIFIED, ("FX301",)),
    Case("relu(w) - h(w): proxies 0 and 1", lambda m, x: F.relu(m.w) - h(m.w), W, ("uncovered",), ("FX507",)),
    Case("h(-h(w))", lambda m, x: h(-h(m.w)), W, ("uncovered",)),
    Case("h(-h(w)) across a reshape", lambda m, x: h(-h(m.w).reshape(1, 3)), W, ("runtime",), ("FX103",)),
    Case("relu(w) - relu(2w)", lambda m, x: F.relu(m.w) - F.relu(2 * m.w), W, ("certified", "runtime")),
    Case("bias differences b_i - b_j", lambda m, x: F.relu(m.b - m.b.flip(0)).sum(), {"b": (3,)}, NOT_CERTIFIED),
    Case("y - 2b", lambda m, x: F.relu((x + m.w + m.b) - 2 * m.b - m.w), WB, NOT_CERTIFIED),
    Case("CReLU: relu(y) - relu(-y) by cat", lambda m, x: F.relu(torch.cat([x + m.b, -(x + m.b)], 1)), {"b": (3,)},
         NOT_CERTIFIED),
    Case("relu(y) + clamp(y, max=0)", lambda m, x: F.relu(x + m.b) + (x + m.b).clamp(max=0), {"b": (3,)}, NOT_CERTIFIED),
    Case("relu(y) and clamp(y, max=0), apart",
         lambda m, x: (F.relu(x + m.b) @ torch.ones(3, 2), (x + m.b).clamp(max=0) @ torch.ones(3, 2)), {"b": (3,)},
         NOT_CERTIFIED),
    Case("relu(w+b1) - relu(b2-w)", lambda m, x: F.relu(m.w + m.b1) - F.relu(m.b2 - m.w),
         {"w": (3,), "b1": (3,), "b2": (3,)}, ("certified",)),
    Case("the same over w alone", lambda m, x: F.relu(m.w + m.b1) - F.relu(m.b2 - m.w),
         {"w": (3,), "b1": (3,), "b2": (3,)}, NOT_CERTIFIED, frozen=("b1", "b2")),
    Case("median", lambda m, x: torch.stack([m.w[0], 2 * m.w[0], 4 * m.w[0]]).median(), W, ("uncovered",), ("FX303",)),
    Case("sort and max of a tied pair", lambda m, x: m.w.sort()[0][0] + m.w.max(0)[0], W, ("uncovered",), ("FX303",)),
    Case("amax splits", lambda m, x: (x + m.w).amax(1), W, ("runtime",), ("FX302",)),
    Case("maximum splits", lambda m, x: torch.maximum(m.w, m.b), WB, ("runtime",), ("FX302",)),
    Case("maximum(x, 0) is a Clarke-only rho", lambda m, x: torch.maximum(x + m.b, torch.zeros(())), {"b": (3,)},
         ("certified",)),
    Case("clamp to bounds held in tensors", lambda m, x: (x * m.w + m.b).clamp(-x.abs(), x.abs() + 1), WB,
         ("certified",)),
    Case("|2w + |w|| - 2|w|", lambda m, x: (2 * m.w + m.w.abs()).abs() - 2 * m.w.abs(), W, ("uncovered",), ("FX507",)),
    Case("the same in series with reshapes",
         lambda m, x: (2 * m.w + m.w.abs().reshape(1, 3)).abs() - 2 * m.w.abs().reshape(1, 3), W, ("runtime",)),
    Case("pool with unequal coefficients, then max",
         lambda m, x: F.relu(F.avg_pool1d(x[:, None] * m.w[:1] + m.b[:1], 2, 1, 1)).max(2)[0], WB, NOT_CERTIFIED),
    Case("pool with unequal coefficients, no max",
         lambda m, x: F.relu(F.avg_pool1d(x[:, None] * m.w[:1] + m.b[:1], 2, 1, 1)), WB, ("certified",)),
    Case("stochastic depth: mask * (f + b) + skip",
         lambda m, x: F.relu(F.dropout(x + m.b, 0.5) + x * m.w), WB, NOT_CERTIFIED),
    Case("dropout after the bias, alone", lambda m, x: F.relu(F.dropout(x * m.w + m.b, 0.5)), WB, ("certified",)),
    Case("normalised after the bias", lambda m, x: F.relu(F.batch_norm(x + m.b, None, None, training=True)), {"b": (3,)},
         NOT_CERTIFIED),
    Case("normalised by fixed statistics after the bias",
         lambda m, x: F.relu(F.batch_norm(x * m.w + m.b, torch.zeros(3), torch.ones(3))), WB, ("certified",)),
    Case("layer norm after the bias", lambda m, x: F.relu(F.layer_norm(x + m.b, (3,))), {"b": (3,)}, NOT_CERTIFIED),
    Case("affine beta after normalisation", lambda m, x: F.relu(F.layer_norm(x * m.w, (3,), None, m.b)), WB, ("certified",)),
    Case("times exp of another parameter", lambda m, x: F.relu((x + m.b) * m.w.exp()), WB, ("certified",)),
    Case("times a parameter of unknown sign", lambda m, x: F.relu((x + m.b) * m.w), WB, NOT_CERTIFIED),
    Case("times a buffer of unknown sign", lambda m, x: F.relu((x + m.b) * x), {"b": (3,)}, NOT_CERTIFIED),
    Case("negative scale flips the side", lambda m, x: F.relu(-2 * (x + m.b)), {"b": (3,)}, ("certified",)),
    Case("trainable clamp bound", lambda m, x: (x + m.b).clamp(max=m.w), WB, ("runtime",)),
    # Growing w moves both pre-activations down, to AD's side: w is a shared bias.
    Case("learned soft threshold", lambda m, x: F.relu(x + m.b - m.w) - F.relu(-(x + m.b) - m.w), WB, ("certified",)),
    Case("soft threshold with a fixed width", lambda m, x: F.relu(x + m.b - 1) - F.relu(-(x + m.b) - 1), WB, NOT_CERTIFIED),
    Case("PReLU", lambda m, x: F.prelu(x + m.b, m.w), WB, ("certified",)),
    Case("clamp between equal bounds that are tensors", lambda m, x: torch.clamp(m.w, torch.ones(1), torch.ones(1)), W,
         ("uncovered",), ("FX507",)),
    Case("min(max(w, 0), 0)", lambda m, x: torch.minimum(torch.maximum(m.w, torch.zeros(1)), torch.zeros(1)), W,
         ("uncovered",), ("FX507",)),
    Case("hardshrink(0)", lambda m, x: F.hardshrink(x + m.b, 0.0), {"b": (3,)}, ("uncovered",), ("FX507",)),
    Case("where(x == 0, 0, x)", lambda m, x: torch.where(x + m.b == 0, 0.0, x + m.b), {"b": (3,)}, ("uncovered",)),
    Case("where(y == 0, 0, y) of one tensor", lambda m, x: (lambda y: torch.where(y == 0, 0.0, y))(x + m.b), {"b": (3,)},
         ("uncovered",), ("FX507",)),
    Case("hardshrink jumps", lambda m, x: F.hardshrink(x + m.b, 0.5), {"b": (3,)}, ("uncovered",), ("FX401",)),
    Case("threshold with a jump", lambda m, x: F.threshold(x + m.b, 1.0, 0.0), {"b": (3,)}, ("uncovered",), ("FX401",)),
    Case("where with a jump", lambda m, x: (lambda y: torch.where(y > 0, y, -1.0))(x + m.b), {"b": (3,)}, ("uncovered",)),
    Case("mask idiom: y * (y > 0)", lambda m, x: (lambda y: y * (y > 0))(x + m.b), {"b": (3,)}, ("certified",)),
    Case("mask idiom: masked_fill", lambda m, x: (lambda y: y.masked_fill(y < 0, 0))(x + m.b), {"b": (3,)}, ("certified",)),
    Case("squared ReLU is C1", lambda m, x: F.relu(x * m.w).square() * m.b, WB, ("smooth",)),
    Case("squared ReLU beside the ReLU itself", lambda m, x: (lambda r: r.square() * m.b + r * x)(F.relu(x * m.w)), WB,
         ("runtime",), ("FX101",)),
    Case("hand-written ELU", lambda m, x: (lambda y: torch.where(y > 0, y, 0.5 * (y.exp() - 1)))(x + m.b), {"b": (3,)},
         ("certified",)),
    Case("hand-written hardswish", lambda m, x: (lambda y: y * F.relu6(y + 3) / 6)(x + m.b), {"b": (3,)}, ("runtime",),
         ("FX201",)),
    Case("sqrt(relu)", lambda m, x: F.relu(x + m.b).sqrt().sum(), {"b": (3,)}, ("uncovered",), ("FX403",)),
    Case("relu ** 0.5", lambda m, x: (2 * F.relu(x + m.b)) ** 0.5, {"b": (3,)}, ("uncovered",), ("FX403",)),
    Case("sqrt of a sum that may vanish", lambda m, x: (x * m.b).pow(2).sum(1).sqrt(), {"b": (3,)}, ("runtime",)),
    Case("a size that depends on values",
         lambda m, x: (lambda z: z * torch.ones_like(z[z > 0]).sum())(x + m.b), {"b": (3,)}, ("uncovered",), ("FX404",)),
    Case("complex logarithm", lambda m, x: torch.complex(x * m.b, x * m.b).log().imag, {"b": (3,)}, ("uncovered",)),
    Case("detach reaches the output", lambda m, x: F.relu(x + m.b) + m.b.detach(), {"b": (3,)}, ("uncovered",), ("FX501",)),
    Case("detach that reaches no output", lambda m, x: (m.b.detach() * 2, F.relu(x + m.b))[1], {"b": (3,)}, ("certified",)),
    Case("straight-through rounding", lambda m, x: (lambda y: y + (y.round() - y).detach())(x + m.b), {"b": (3,)},
         ("uncovered",)),
    Case("sign", lambda m, x: (x + m.b).sign(), {"b": (3,)}, ("uncovered",)),
    Case("argmax routing", lambda m, x: x.gather(1, (x + m.b).argmax(1, keepdim=True)) * m.b, {"b": (3,)}, ("uncovered",)),
    Case("norm at 0", lambda m, x: (x * m.b).norm(dim=1), {"b": (3,)}, ("runtime",), ("FX205",)),
    Case("norm kept off 0", lambda m, x: ((x * m.b).pow(2).sum(1) + 1e-6).sqrt(), {"b": (3,)}, ("smooth",)),
    Case("std at 0", lambda m, x: (x * m.b).std(dim=1), {"b": (3,)}, ("runtime",)),
    Case("relu of the input only", lambda m, x: F.relu(x) * m.b, {"b": (3,)}, ("smooth",)),
    Case("a dead head", lambda m, x: (F.relu(-m.b), x * m.b)[1], {"b": (3,)}, ("smooth",)),
    Case("siamese", lambda m, x: (lambda f: f(x) - f(2 * x))(lambda z: F.relu(z * m.w + m.b)), WB, ("certified",)),
    Case("unrolled recurrence",
         lambda m, x: F.relu(F.relu(x * m.w + m.b).flip(1) * m.w + m.b), WB, ("runtime",), ("FX103",)),
    Case("discharge and joint", lambda m, x: F.relu(m.w + m.b) + (m.w + F.relu(1 + m.b) - 1).clamp(max=0), WB, NOT_CERTIFIED),
    Case("h(relu(w)) - relu(-w)", lambda m, x: h(F.relu(m.w)) - F.relu(-m.w), W, ("uncovered",)),
    Case("tangential: h(w1) - relu(w1 - w2^2)", lambda m, x: h(m.w) - F.relu(m.w - m.b * m.b), WB, NOT_CERTIFIED),
    Case("abs with a bias", lambda m, x: (x + m.b).abs(), {"b": (3,)}, ("certified",)),
    Case("abs blocks T8", lambda m, x: (x + m.b).abs().matmul(torch.ones(3, 4)).mul(m.w[0]).max(1)[0], WB, ("runtime",)),
    Case("max blocks shared", lambda m, x: torch.max(x * m.w, -x * m.w), W, ("runtime",)),
    Case("max_pool of kernel 1", lambda m, x: F.max_pool1d(F.relu(x[:, None] + m.b), 1), {"b": (3,)}, ("certified",)),
    Case("max over a dimension of size 1", lambda m, x: (x + m.b)[:, :, None].max(2)[0], {"b": (3,)}, ("smooth",)),
    Case("relu, max-pool, relu", lambda m, x: F.relu(F.max_pool1d(F.relu(x[:, None] + m.b), 3)), {"b": (3,)}, ("runtime",)),
    Case("the smooth criterion is assumed",
         lambda m, x: (F.relu(m.w + m.b), m.w + F.relu(1 + m.b) - 1), WB, ("certified",)),
    Case("with the kinked criterion it is not certified",
         lambda m, x: (F.relu(m.w + m.b), m.w + F.relu(1 + m.b) - 1), WB, NOT_CERTIFIED,
         options={"loss": lambda o: (o[0] - F.relu(-o[1])).sum()}),
    Case("constant entries from where lose the bias",
         lambda m, x: F.relu(torch.where(x > 0, x + m.b, 0.0) + x * m.w), WB, NOT_CERTIFIED),
    Case("a masked softmax has zeros",
         lambda m, x: F.relu((x + m.b) * x.masked_fill(x > 0, -math.inf).softmax(1) + x * m.w), WB, NOT_CERTIFIED),
    Case("padding between the bias and a sum",
         lambda m, x: F.relu(F.pad(x[:, 1:] + m.b[1:], (0, 1)) + x * m.w), WB, NOT_CERTIFIED),
    Case("L1 loss without a bias", lambda m, x: x * m.w, W, ("uncovered", "runtime"),
         options={"loss": F.l1_loss, "target": torch.zeros(4, 3)}),
    Case("L1 loss with a bias", lambda m, x: x * m.w + m.b, WB, ("certified",),
         options={"loss": F.l1_loss, "target": torch.zeros(4, 3)}),
]  # fmt: skip


CLAMP_OF_2_14 = ("relu(y) + clamp(y, max=0)", "relu(y) and clamp(y, max=0), apart", "clamp to bounds held in tensors")
"""Traps that rest on the side that clamp takes at its bounds since torch 2.14."""


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_the_verdict_of_a_trap(case: Case) -> None:
    if case.name in CLAMP_OF_2_14 and tuple(int(v) for v in torch.__version__.split(".")[:2]) < (2, 14):
        pytest.skip("clamp takes the other side at its bounds before torch 2.14")
    report = analyze(Net(case.forward, case.sizes, case.frozen), torch.zeros(case.x), **case.options)
    codes = {d.code for layer in report.layers for d in layer.diagnostics} | {d.code for d in report.diagnostics}
    assert report.verdict in case.verdicts, (report.verdict, report.theorem, codes)
    assert set(case.codes) <= codes
    if report.verdict == "uncovered":
        assert codes, "an uncovered model says why"
