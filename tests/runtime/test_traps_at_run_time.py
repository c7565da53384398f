"""Every counterexample of the theory as a module at its offending weights: a wrong gradient is never certified.

``TRAPS``: autograd's gradient is no Clarke subgradient (each test shows that first), so no step may be certified; a
refusal to instrument is as good. ``UNSOUND``: the same, found by attack on the runtime checks. ``LOOK_ALIKE``: no
traps after all. ``RIGHT``: steps that the theory certifies.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fxcheck
from tests.soundness.oracle import Verdict, judge

D = torch.float64


def T(value: Any) -> Tensor:
    return torch.tensor(value, dtype=D)


class Of(nn.Module):
    """Named parameters, buffers (tensors) and submodules, with the forward given as a function of them."""

    def __init__(self, function: Callable[..., Any], **parts: Any) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            if isinstance(part, Tensor) and not isinstance(part, nn.Parameter):
                self.register_buffer(name, part)
            else:
                setattr(self, name, part if isinstance(part, nn.Module) else nn.Parameter(T(part)))

    def forward(self, *inputs: Any) -> Any:
        return self.function(self, *inputs)


@dataclass(frozen=True)
class Case:
    """A model at offending weights; ``loss(model, *inputs)`` is the scalar of one step, however many forwards."""

    name: str
    model: Callable[[], nn.Module]
    inputs: Callable[[], tuple[Any, ...]] = tuple
    loss: Callable[..., Tensor] = lambda m, *x: m(*x).sum()
    options: dict[str, Any] = field(default_factory=dict)
    wrt: tuple[str, ...] = ()
    frozen: tuple[str, ...] = ()


def of(function: Callable[..., Any], **parts: Any) -> Callable[[], nn.Module]:
    return lambda: Of(function, **{n: p() if callable(p) else p for n, p in parts.items()})


def given(*inputs: Any) -> Callable[[], tuple[Any, ...]]:
    return lambda: tuple(T(x) if isinstance(x, list) else x for x in inputs)


def weighted(weights: Any) -> Callable[..., Tensor]:
    return lambda m, *x: (m(*x) * T(weights)).sum()


def differ(m: nn.Module, *x: Any) -> Tensor:
    out = m(*x)
    return out[0].sum() - out[1].sum()


def build(case: Case) -> tuple[nn.Module, tuple[Any, ...], list[tuple[str, Tensor]]]:
    model = case.model().double().train()
    for name in case.frozen:
        model.get_parameter(name).requires_grad_(False)
    trained = [(n, p) for n, p in model.named_parameters() if p.requires_grad and (not case.wrt or n in case.wrt)]
    return model, case.inputs(), trained


def run(case: Case) -> Any:
    """The step's result; None when the model is refused."""
    model, inputs, trained = build(case)
    options = dict(case.options)
    if case.wrt:
        options["wrt"] = [p for _, p in trained]
    try:
        checked = fxcheck.instrument(model, inputs, **options)
        with checked.step() as step:
            case.loss(checked, *inputs).backward()
    except (fxcheck.UncoveredModel, fxcheck.FxcheckError):
        return None
    return step


def gradient_is(case: Case) -> Verdict:
    """The oracle's word on the gradient of the plain model."""
    model, inputs, trained = build(case)
    return judge([p for _, p in trained], lambda: case.loss(model, *inputs)).verdict


def told(step: Any) -> str:
    """What the tool believed."""
    rows = [f"{b.layer} {b.claim} {b.coordinates} {b.rows.tolist()}" for b in step.certificate.blocks]
    return f"certified by {step.theorem}; layers {step.layers}; rows {rows}"


# ------------------------------------------------------------------------------------------------


relu = F.relu
PAIR = given([[1.0], [-1.0]])
SIGNALS = given([[[1.0]], [[-1.0]]])


def h(x: Tensor) -> Tensor:
    """The ReLU whose proxy at 0 is 1."""
    return torch.where(x < 0, torch.zeros_like(x), x)


def first_max(*entries: Tensor) -> Tensor:
    return torch.stack(entries).max(dim=0).values


def conv(s: Any, x: Tensor) -> Tensor:
    return F.conv1d(x, s.w, getattr(s, "b", None))


def swapped_pixels() -> Tensor:
    """3x3 conv that keeps the center, one 4x4 window, two samples in which two pixels are swapped (runtime.md)."""
    x = torch.zeros(2, 1, 4, 4, dtype=D)
    x[:, 0, 0, 1] = x[:, 0, 3, 1] = 3
    x[0, 0, 0, 2] = x[1, 0, 3, 2] = 1
    return x


def center_kernel() -> nn.Module:
    layer = nn.Conv2d(1, 1, 3, padding=1, bias=False)
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[0, 0, 1, 1] = 1
    return layer


def batch_norm(gamma: float, beta: float) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        layer = nn.BatchNorm1d(1)
        with torch.no_grad():
            layer.weight.fill_(gamma)
            layer.bias.fill_(beta)
        return layer

    return make


def _a(s: Any, x: Tensor) -> Tensor:
    a = relu(F.avg_pool1d(conv(s, x), 2, 1, padding=1))
    return F.max_pool1d(a[..., :2].flip(-1), 2) - a[..., 2:3] / 2


def _overlapping(s: Any) -> Tensor:
    z = torch.cat([torch.ones(1, dtype=D), relu(s.w), -torch.ones(1, dtype=D)])
    return F.max_pool1d(z.reshape(1, 1, 3), 2, 1).sum() - relu(-s.w).sum()


def _rnn(s: Any, x: Tensor) -> Tensor:
    state = torch.zeros(x.shape[0], 1, dtype=D)
    for t in range(x.shape[1]):
        state = relu(F.linear(x[:, t : t + 1], s.w) + F.linear(state, s.u))
    return state


def two_forwards(first: list, second: list) -> Callable[..., Tensor]:
    return lambda m, *x: (m(T(first)) + m(T(second))).sum()


def pooled(after: Callable[[Tensor], Tensor], **parts: Any) -> Callable[[], nn.Module]:
    return of(lambda s, x: after(conv(s, x)), **(parts or {"w": [[[0.0]]]}))


SAWTOOTH = given([[[1.0, 0.0]], [[-1.0, 0.0]]])
"""Under a weight w = 0: max(w, 0) and max(-w, 0)."""
IMAGES = given([[[[1.0, 0.0]]], [[[-1.0, 0.0]]]])


def modulus(w: Tensor) -> Tensor:
    return torch.complex(0.6 * w, 0.8 * w).abs()


TRAPS = [
    Case("|2w + |w|| - 2 |w| = w by moduli", of(lambda s: modulus(2 * s.w + modulus(s.w)) - 2 * modulus(s.w), w=[0.0])),
    Case("ReLUs on either side of a circle", of(lambda s: relu(modulus(s.w) - 1) - relu(1 - modulus(s.w)), w=[1.0])),
    Case("lemma 2", of(lambda s: relu(s.w) - relu(-s.w), w=[0.0])),
    Case("lemma 2 by a layer", of(lambda s, x: relu(F.linear(x, s.w)), w=[[0.0]]), PAIR, differ),
    Case("lemma 2 by a frozen bias", of(lambda s, x: relu(F.linear(x, s.w, s.b)), w=[[0.0]], b=[0.0]), PAIR, differ,
         frozen=("b",)),
    Case("lemma 2 by wrt", of(lambda s, x: relu(F.linear(x, s.w, s.b)), w=[[0.0]], b=[0.0]), PAIR, differ, wrt=("w",)),
    Case("lemma 3", of(lambda s, x: F.hardsigmoid(x + s.b), b=[0.0]), given([[3.0], [-3.0]])),
    Case("lemma 3 with relu6", of(lambda s, x: F.relu6(x + s.b), b=[0.0]), given([[6.0], [0.0]])),
    Case("lemma 3 with hardtanh", of(lambda s, x: F.hardtanh(x + s.b), b=[0.0]), given([[1.0], [-1.0]])),
    Case("lemma 3 in micro-batches", of(lambda s, x: F.hardsigmoid(x + s.b), b=[0.0]), given([[3.0]]),
         two_forwards([[3.0]], [[-3.0]])),
    Case("lemma 3 in micro-batches of one under T1", of(lambda s, x: F.hardsigmoid(x + s.b), b=[0.0]), given([[3.0]]),
         two_forwards([[3.0]], [[-3.0]]), {"batch_size": 1}),
    Case("lemma 3 within one sample under T1",
         of(lambda s, x: F.hardsigmoid(x[:, 0] + s.b) + F.hardsigmoid(x[:, 1] + s.b), b=[0.0]), given([[3.0, -3.0]]),
         options={"batch_size": 1}),
    Case("T1 where the first tensor is not the batch", of(lambda s, k, x: F.hardsigmoid(x + s.b) * k, b=[0.0]),
         given([1.0], [[3.0], [-3.0]]), options={"batch_size": 1}),
    *(Case(f"lemma 7 at b = {b}, {name}", of(
        lambda s, x, f=function: f(F.conv1d(x, s.w, s.b)), w=[[[0.0]]], b=[b]), SAWTOOTH, differ)
      for b in (0.0, -1.0)
      for name, function in {
          "max(dim)": lambda y: y.max(2)[0], "max_pool1d": lambda y: F.max_pool1d(y, 2),
          "adaptive": lambda y: F.adaptive_max_pool1d(y, 1), "max_pool2d": lambda y: F.max_pool2d(y[:, :, None], (1, 2)),
          "pool of the identity": lambda y: F.max_pool1d(1 * y, 2), "cummax": lambda y: y.cummax(2)[0][..., 1],
          "minus a min pool": lambda y: -F.max_pool1d(-y, 2).flip(0), "two pools": lambda y: F.max_pool1d(
              F.max_pool1d(y, 2, 1, padding=1), 2, 1),
      }.items()),
    Case("lemma 7 behind a leaky ReLU", of(lambda s, x: F.max_pool1d(F.leaky_relu(F.conv1d(x, s.w, s.b), 0.5), 2),
         w=[[[0.0]]], b=[-1.0]), SAWTOOTH, differ),
    Case("lemma 7 in micro-batches", pooled(lambda y: F.max_pool1d(y, 2)), given([[[1.0, 0.0]]] * 2),
         lambda m, x: m(T([[[1.0, 0.0]]] * 2)).sum() - m(T([[[-1.0, 0.0]]] * 2)).sum()),
    Case("max_pool2d of a convolution", of(lambda s, x: F.max_pool2d(F.conv2d(x, s.w), (1, 2)), w=[[[[0.0]]]]), IMAGES, differ),
    Case("min(dim)", pooled(lambda y: y.min(2)[0]), SAWTOOTH, differ),
    Case("relu, pool", pooled(lambda y: F.max_pool1d(relu(y), 2)), SAWTOOTH, differ),
    Case("pool, relu", pooled(lambda y: relu(F.max_pool1d(y, 2))), SAWTOOTH, differ),
    Case("relu, pool, pool", pooled(lambda y: F.max_pool1d(F.max_pool1d(relu(y), 2, 1, 1), 2)), SAWTOOTH, differ),
    Case("pool with ceil_mode", pooled(lambda y: F.max_pool1d(y, 3, 3, ceil_mode=True)), SAWTOOTH, differ),
    Case("pool with dilation", pooled(lambda y: F.max_pool1d(y, 2, 1, dilation=2)),
         given([[[1.0, 5.0, 0.0]], [[-1.0, 5.0, 0.0]]]), differ),
    Case("g - h", of(lambda s: relu(s.w) - h(s.w), w=[0.0])),
    Case("h(-h(w))", of(lambda s: h(-h(s.w)), w=[0.0])),
    Case("A: unequal coefficients", of(_a, w=[[[1.0]]], b=[4.0]), given([[[0.0, -4.0, -4.0, 0.0]]])),
    Case("B: discharge must not join",
         of(lambda s: relu(s.w + s.b) + (s.w + relu(1 + s.b) - 1).clamp(max=0), w=[0.0], b=[0.0])),
    Case("C: |2w + |w|| - 2|w|", of(lambda s: (2 * s.w + s.w.abs()).abs() - 2 * s.w.abs(), w=[0.0])),
    Case("D: b_i - b_j", of(lambda s: relu(s.b - s.b.flip(0)) * T([1.0, -1.0]), b=[1.0, 1.0])),
    Case("E: CReLU", of(lambda s, x: relu(torch.cat([y := conv(s, x), -y], 1)), w=[[[1.0]]], b=[0.0]),
         lambda: (torch.zeros(2, 1, 1, dtype=D),), lambda m, x: (m(x) * T([[1.0], [-1.0]])).sum()),
    Case("E2", of(lambda s, x: relu(y := F.linear(x, s.w, s.b)) + y.clamp(max=0), w=[[1.0]], b=[0.0]), given([[0.0], [0.0]])),
    Case("F: gamma 0", of(lambda s, x: (y := F.max_pool1d(s.bn(x), 2))[..., 0] - y[..., 1], bn=batch_norm(0.0, 1.0)),
         lambda: (T([[[0.0, 1.0, 1.0, 0.0]]]).repeat(2, 1, 1),)),
    Case("F behind a convolution",
         of(lambda s, x: (y := F.max_pool1d(s.bn(conv(s, x)), 2))[..., 0] - y[..., 1], w=[[[1.0]]], bn=batch_norm(0.0, 1.0)),
         lambda: (T([[[0.0, 1.0, 1.0, 0.0]]]).repeat(2, 1, 1),)),
    Case("G: overlapping windows", of(_overlapping, w=[0.0])),
    Case("H: h(relu(w)) - relu(-w)", of(lambda s: h(relu(s.w)) - relu(-s.w), w=[0.0])),
    # dC = {(a, 1 - a)}, and AD gives (1/3, 1/3): it counts the 0 that it overwrites as a third tied entry (theory 4.1).
    Case("J: amax into a tied self", of(
        lambda s: torch.zeros(1, dtype=D).scatter_reduce(0, torch.zeros(2, dtype=torch.long), s.w, "amax", include_self=False),
        w=[0.0, 0.0])),
    Case("L: sort and max", of(lambda s: s.w.sort()[0][0] + s.w.max(0)[0], w=[1.0, 1.0])),
    Case("M: over w alone", of(lambda s: relu(s.w + s.b1) - relu(s.b2 - s.w), w=[0.0], b1=[0.0], b2=[0.0]), wrt=("w",)),
    Case("two maxes", of(lambda s: first_max(s.w, -s.w) - first_max(-s.w, s.w), w=[0.0])),
    Case("two swapped pixels", of(lambda s, x: F.max_pool2d(s.c(x), 4), c=center_kernel), lambda: (swapped_pixels(),), differ),
    Case("two swapped pixels, one sample a forward", of(lambda s, x: F.max_pool2d(s.c(x), 4), c=center_kernel),
         lambda: (swapped_pixels()[:1],), lambda m, x: (m(swapped_pixels()[:1]) - m(swapped_pixels()[1:])).sum()),
    Case("siamese", of(lambda s, x: relu(F.linear(x, s.w)) - relu(F.linear(-x, s.w)), w=[[0.0]]), given([[1.0], [1.0]])),
    Case("RNN", of(_rnn, w=[[0.0]], u=[[1.0]]), given([[1.0, 0.0], [-1.0, 0.0]]), differ),
    Case("mask chain x * (x > 0)", of(lambda s, x: (y := F.linear(x, s.w)) * (y > 0), w=[[0.0]]), PAIR, differ),
    Case("relu(y + 1)", of(lambda s, x: relu(F.linear(x, s.w) + 1) - relu(-F.linear(x, s.w) - 1), w=[[-1.0]]), given([[1.0], [1.0]])),
    Case("relu(y + 0.1), a rounded kink", of(lambda s, x: relu(F.linear(x, s.w) + 0.1) - relu(-F.linear(x, s.w) - 0.1), w=[[-0.1]]),
         given([[1.0], [1.0]])),
    Case("in place", of(lambda s, x: F.linear(x, s.w).relu_(), w=[[0.0]]), PAIR, differ),
    Case("hinge loss", of(lambda s, x: F.linear(x, s.w), w=[[1.0]]), given([[1.0], [1.0]]),
         lambda m, x: _loss_of(m, x, T([[1.0], [-1.0]])),
         {"loss": lambda o, t: _signed_hinge(o, t), "target": torch.tensor([[1.0], [-1.0]], dtype=D)}),
    Case("position embedding against its flip",
         of(lambda s, x: F.max_pool1d(conv(s, x) + s.p, 2) - F.max_pool1d((conv(s, x) + s.p).flip(2), 2), w=[[[1.0]]], p=[0.0, 0.0]),
         lambda: (torch.ones(2, 1, 2, dtype=D),)),
    Case("position factors", of(lambda s, x: F.max_pool1d(conv(s, x) * s.p, 2), w=[[[1.0]]], p=[0.0, 0.0]),
         lambda: (T([[[1.0, 1.0]], [[-1.0, -1.0]]]),), differ),
    Case("strided transposed convolution before a pool",
         of(lambda s, x: (y := F.conv_transpose1d(x, s.w, stride=2), F.max_pool1d(y, 2) - F.max_pool1d(y.flip(2), 2))[1],
            w=[[[1.0, 1.0]]]), lambda: (torch.ones(2, 1, 1, dtype=D),)),
    Case("dropout before a pool", of(lambda s, x: F.max_pool1d(conv(s, x) * s.mask, 2) - F.max_pool1d((conv(s, x) * s.mask).flip(2), 2),
         w=[[[0.0]]], mask=T([[[2.0, 0.0]]])), lambda: (torch.ones(2, 1, 2, dtype=D),)),
    Case("branches joined before a pool",
         of(lambda s, x: F.max_pool1d(torch.cat([F.conv1d(x, s.w), F.conv1d(x, s.v)], 2), 2)
            - F.max_pool1d(torch.cat([F.conv1d(x, s.v), F.conv1d(x, s.w)], 2), 2), w=[[[1.0]]], v=[[[1.0]]]),
         lambda: (torch.ones(2, 1, 1, dtype=D),)),
]  # fmt: skip


def _signed_hinge(o: Tensor, t: Tensor) -> Tensor:
    return (relu(1 - o) * (t > 0)).sum() - (relu(o - 1) * (t < 0)).sum()


def _loss_of(m: nn.Module, x: Tensor, t: Tensor) -> Tensor:
    return m.loss(x, target=t) if hasattr(m, "loss") else _signed_hinge(m(x), t)


# Found by attack --------------------------------------------------------------------------------


def _shared_bias(s: Any, x: Tensor) -> Tensor:
    z = relu(F.linear(x, s.w, s.b))
    return z + F.linear(z, s.v, s.b).clamp(max=0)


def _average_with_a_constant(s: Any, x: Tensor) -> Tensor:
    z = relu(F.conv1d(x[:, :, :1], s.w, s.b))
    return relu(F.conv1d(F.avg_pool1d(torch.cat([z, x[:, :, 1:]], 2), 2), s.v))


def _beta_twice(s: Any, x: Tensor) -> Tensor:
    mean, variance = torch.zeros(1, dtype=D), torch.ones(1, dtype=D)
    return relu(F.batch_norm(F.conv1d(x, s.w, s.b), mean, variance, s.gamma, s.b, False, 0.1, 0.0))


def _flagged(s: Any, x: Tensor, positive: bool) -> Tensor:
    y = F.linear(x, s.w, s.b)
    return relu(y) if positive else relu(-y)


class SubmoduleFlag(nn.Module):
    """Which side of the ReLU is used depends on a submodule's training flag."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.sub = nn.Linear(1, 1), nn.Identity()
        nn.init.zeros_(self.layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)
        return relu(y) if self.sub.training else relu(-y)


def _both_flags(m: nn.Module, x: Tensor) -> Tensor:
    first = m(x).sum()
    m.sub.eval()
    second = m(x).sum()
    m.sub.train()
    return first - second


def _one_in_eval_mode(m: nn.Module, x: Tensor) -> Tensor:
    first = m(x).sum()
    m.eval()
    second = m(-x).sum()
    m.train()
    return first - second


def _halves(split: Callable[[Tensor], Sequence[Tensor]]) -> Callable[[], nn.Module]:
    return of(lambda s, x: relu(F.conv1d(split(F.conv1d(x, s.w))[0], s.v)), w=[[[0.0]], [[0.0]]], v=[[[1.0]]])


UNSOUND = [
    # build_rows._differences: the loser's channel is ignored, so two channels at one position are "equal functions".
    Case("1a: max over features of a linear layer", of(
        lambda s, x: (y := F.linear(x, s.w), y.max(1)[0] - y.flip(1).max(1)[0])[1], w=[[0.0], [0.0]]), given([[1.0], [1.0]])),
    Case("1b: max over channels", of(
        lambda s, x: F.conv1d(x, s.w).max(1)[0] - F.conv1d(x, s.w).flip(1).max(1)[0], w=[[[0.0]], [[0.0]]]), given([[[1.0]], [[1.0]]])),
    Case("1c: max_pool1d over the features of a linear layer", of(
        lambda s, x: F.max_pool1d(F.linear(x, s.w), 2) - F.max_pool1d(F.linear(x, s.w).flip(2), 2), w=[[0.0], [0.0]]),
        given([[[1.0]], [[1.0]]])),
    Case("1d: cummax over features", of(
        lambda s, x: F.linear(x, s.w).cummax(1)[0] - F.linear(x, s.w).flip(1).cummax(1)[0], w=[[0.0], [0.0]]), given([[1.0], [1.0]])),
    # closed_forms._zero_is_frozen: inputs without a shape (results of split, chunk, unbind, max) are skipped, so that
    # all([]) calls every zero behind a getitem frozen.
    Case("2a: chunk", _halves(lambda y: y.chunk(2, 1)), SIGNALS, differ),
    Case("2b: split", _halves(lambda y: y.split(1, 1)), SIGNALS, differ),
    Case("2c: unbind", _halves(lambda y: [part[:, None] for part in y.unbind(1)]), SIGNALS, differ),
    Case("2d: max(dim)", of(lambda s, x: relu(F.conv1d(F.conv1d(x, s.w).max(2, keepdim=True)[0], s.v)),
                            w=[[[0.0]]], v=[[[1.0]]]), given([[[1.0, 1.0]], [[-1.0, -1.0]]]), differ),
    Case("2e: adaptive_max_pool1d", of(lambda s, x: relu(F.conv1d(F.adaptive_max_pool1d(F.conv1d(x, s.w), 1), s.v)),
                                       w=[[[0.0]]], v=[[[1.0]]]), given([[[1.0, 1.0]], [[-1.0, -1.0]]]), differ),
    Case("2f: a tie behind chunk", of(lambda s, x: F.max_pool1d(F.conv1d(F.conv1d(x, s.w).chunk(2, 1)[0], s.v), 2),
                                      w=[[[0.0]], [[0.0]]], v=[[[1.0]]]), given([[[1.0, -1.0]], [[-1.0, 1.0]]]), differ),
    # closed_forms._zero_is_frozen: a zero average of a ReLU (1) and a constant (-1) is not frozen.
    Case("3: average of a ReLU and a constant", of(_average_with_a_constant, w=[[[1.0]]], b=[0.0], v=[[[1.0]], [[-1.0]]]),
         lambda: (T([[[1.0, -1.0]]]).repeat(2, 1, 1),), weighted([[[1.0], [-1.0]], [[0.0], [0.0]]])),
    # build_rows._plain_touches: `form.bias is None` also where the bias is trainable but owned by an earlier layer.
    Case("4: zero patch over a bias of an earlier layer", of(_shared_bias, w=[[0.0]], v=[[0.0]], b=[0.0]), given([[0.0], [0.0]]),
         lambda m, x: m(x)[0].sum()),
    # closed_forms._layer/_normalised: the operand (or what is normalised) depends on the same parameter.
    Case("5a: the weight is also in its own operand", of(lambda s, x: relu(F.linear(x + s.w.flip(1), s.w)), w=[[1.0, 0.0]]),
         given([[0.0, -1.5], [0.0, -3.0]]), weighted([[2.0], [-1.0]])),
    Case("5b: beta is also the convolution's bias", of(_beta_twice, w=[[[0.0]]], b=[0.0], gamma=[-1.0]), SIGNALS, differ,
         frozen=("gamma",)),
    # checked/session: statically certified programs of one step are pooled though their layers need opposite sides.
    Case("6a: a Python flag turns the layer around", of(_flagged, w=[[1.0]], b=[0.0]), given([[0.0], [0.0]], True),
         lambda m, x, flag: m(x, True).sum() - m(x, False).sum()),
    Case("6b: a submodule's training flag turns the layer around", SubmoduleFlag, given([[0.0], [0.0]]), _both_flags),
    # checked._forward: a forward in eval mode inside step() belongs to the gradient and is not observed.
    Case("7: a forward in eval mode inside the step", of(lambda s, x: relu(F.linear(x, s.w)), w=[[0.0]]), given([[1.0], [1.0]]),
         _one_in_eval_mode),
    # checked._outside_influence: a leaf that is one of the checked parameters passes as data.
    Case("8: a checked parameter as the input", of(lambda s, x: relu(x) - relu(-x) + 0 * s.w, w=[[0.0], [0.0]]), given([[0.0], [0.0]]),
         lambda m, x: m(m.w).sum()),
    # ties_found.entries_that_win: no batch dimension is added, so windows lie along the wrong dimension.
    Case("9: an image without a batch under a 1 by 2 pool", of(
        lambda s, x: F.max_pool2d(relu(F.conv2d(x, s.w)), (1, 2)), w=[[[[1.0]], [[0.0]]]]),
        given([[[-1.0, 0.0], [-1.0, 0.0]], [[0.0, 1.0], [0.0, -1.0]]]), lambda m, x: m(x)[0, 0].sum() - m(x)[0, 1].sum()),
    # insert_checks: the result of pairwise_distance was that of the whole loss.
    Case("10a: a distance of 0 inside triplet_margin_loss", of(
        lambda s, x: 2 * relu(s.w * x).sum() + F.triplet_margin_loss((s.w * x)[None], T([[1.0]]), T([[0.0]]), eps=0.0),
        w=[0.0]), given([1.0])),
    # composites._triplet_margin_loss: 0.2 - 0.3 was compared with -0.1, where torch compares 0.1 + 0.2 - 0.3 with 0.
    Case("10b: triplet_margin_loss adds its margin first", of(
        lambda s, x: F.triplet_margin_loss(torch.stack([s.w * x, 5 * x]), T([[-0.2], [4.0]]), T([[0.1 + 0.2], [4.5]]),
                                           margin=0.1, eps=0.0) - relu(-s.w[None]).sum(), w=[0.0]), given([1.0])),
]  # fmt: skip


def _is_a_trap(case: Case) -> None:
    """The values at kinks that make these gradients wrong are those of torch 2.14."""
    outside = gradient_is(case) is Verdict.OUTSIDE
    if not outside and not torch.__version__.startswith("2.14"):
        pytest.skip("this torch takes other slopes at the kink")
    assert outside, "the trap must be one"


@pytest.mark.parametrize("case", TRAPS, ids=lambda c: c.name)
def test_a_wrong_gradient_is_not_certified(case: Case) -> None:
    _is_a_trap(case)
    step = run(case)
    assert step is None or step.verdict != "certified", told(step)


@pytest.mark.parametrize("case", UNSOUND, ids=lambda c: c.name)
def test_a_wrong_gradient_found_by_attack_is_not_certified(case: Case) -> None:
    _is_a_trap(case)
    step = run(case)
    assert step is None or step.verdict != "certified", told(step)


@pytest.mark.parametrize("at", [0j, 1j])
def test_a_complex_parameter_is_not_taken_for_its_real_part(at: complex) -> None:
    """max(v, -v) - max(-v, v) = 0 of the imaginary part v, of which AD returns 2 at 0."""

    def model() -> nn.Module:
        made = Of(lambda s: first_max(s.w.imag, -s.w.imag) - first_max(-s.w.imag, s.w.imag))
        made.w = nn.Parameter(torch.tensor([at], dtype=torch.complex128))
        return made

    step = run(Case("", model))
    assert step.verdict == ("certified" if at else "uncertified")
    assert at or (step.reason == "undecided" and "complex" in step.text)


# Traps that are none ------------------------------------------------------------------------------


LOOK_ALIKE = [
    Case("padding in the convolution is not a pixel's twin",
         pooled(lambda y: F.max_pool1d(y, 2), w=[[[0.0, 1.0, 0.0]]]), lambda: (torch.ones(2, 1, 4, dtype=D),), differ),
    Case("position embedding before a pool", of(lambda s, x: F.max_pool1d(conv(s, x) + s.p, 2), w=[[[1.0]]], p=[0.0, 0.0]),
         lambda: (torch.ones(2, 1, 2, dtype=D),), lambda m, x: m(x)[0].sum() - m(x.flip(0) + 1)[1].sum()),
    Case("layer norm before a pool", of(lambda s, x: F.max_pool1d(F.layer_norm(conv(s, x), (2,)), 2), w=[[[1.0]]]),
         given([[[1.0, 1.0]], [[-1.0, -1.0]]]), differ),
    Case("checked(checked(x))", of(lambda s, x: relu(F.linear(x, s.w, s.b)), w=[[1.0]], b=[0.0]), given([[0.0], [0.0]]),
         lambda m, x: m(x).sum() + m(-m(x)).sum()),
]  # fmt: skip


@pytest.mark.parametrize("case", LOOK_ALIKE, ids=lambda c: c.name)
def test_what_looks_like_a_trap_and_is_right_may_be_certified(case: Case) -> None:
    assert gradient_is(case) is Verdict.INSIDE
    step = run(case)
    assert step is not None and step.verdict in ("certified", "uncertified")


def test_a_path_that_no_ray_shows_is_not_certified() -> None:
    """Theory 4.14: h(w) - relu(w - v^2) has AD's gradient where 0 < w < v^2."""
    case = Case("tangential", of(lambda s: h(s.w) - relu(s.w - s.v**2), w=[0.0], v=[0.0]))
    assert gradient_is(case) is Verdict.INSIDE
    step = run(case)
    assert step is not None and (step.verdict, step.reason) == ("uncertified", "infeasible")


# Singular points that rounding hides: what is computed there is not 0 -----------------------------


HIDDEN = {
    "std": lambda s, x: (x * s.w).std(),
    "std over dimensions": lambda s, x: (x * s.w)[:, None].std((0, -1)),
    "sqrt of a variance": lambda s, x: ((x * s.w).var() * 2).sqrt(),
    "power of a variance": lambda s, x: (x * s.w).var(0, keepdim=True).clone() ** 0.5,
    "sqrt of the variance of var_mean": lambda s, x: torch.var_mean(x * s.w)[0].sqrt(),
    "cdist by products of matrices": lambda s, x: torch.cdist(s.table + s.w, s.table[:1])[0, 0],
    "sums of absolute values": lambda s, x: torch.norm_except_dim(torch.stack([s.w - 0.1, s.w], 1), 1, 0).sum(),
}


@pytest.mark.parametrize("equal", [True, False])
@pytest.mark.parametrize("name", HIDDEN)
def test_a_singular_point_is_found_in_the_operand(name: str, equal: bool) -> None:
    table = torch.randn(30, 3, generator=torch.Generator().manual_seed(0), dtype=D) * 3
    model = of(lambda s, x: HIDDEN[name](s, x), w=[0.0 if "cdist" in name else 0.1])()
    model.table = table
    x = torch.ones(7, dtype=D)
    if not equal:
        x = torch.arange(7, dtype=D)
        with torch.no_grad():
            model.w.fill_(0.7)
    checked = fxcheck.instrument(model, (x,))
    with checked.step() as step:
        checked(x).sum().backward()
    assert (step.verdict == "certified") == (not equal and "var_mean" not in name)


# Steps that must be certified -------------------------------------------------------------------


RIGHT = [
    Case("relu(w) - relu(2w)", of(lambda s: relu(s.w) - relu(2 * s.w), w=[0.0])),
    Case("relu(w x) - relu(2 w x)", of(lambda s, x: relu(F.linear(x, s.w)), w=[[0.0]]), given([[1.0], [2.0]]), differ),
    Case("equal receptive fields", of(lambda s, x: F.max_pool1d(conv(s, x), 2), w=[[[1.0]]]),
         given([[[1.0, 1.0, 2.0, 2.0]], [[0.0, 0.0, -1.0, -1.0]]])),
    Case("equal receptive fields under padding", of(lambda s, x: F.max_pool1d(F.conv1d(x, s.w, padding=1), 4), w=[[[1.0, 0.0, 2.0]]]),
         lambda: (torch.zeros(2, 1, 4, dtype=D),)),
    Case("Algorithm 2: ties and touches at 0", of(lambda s, x: F.max_pool1d(relu(conv(s, x)), 2), w=[[[1.0]]], b=[-1.0]),
         given([[[1.0, 1.0, 2.0, 1.0]], [[0.0, 1.0, 1.0, 1.0]]])),
    Case("a discharged layer in front", of(lambda s, x: F.max_pool1d(F.conv1d(relu(conv(s, x)), s.v), 2), w=[[[1.0]]], b=[0.0], v=[[[1.0]]]),
         given([[[0.0, 0.0]], [[0.0, 0.0]]])),
    Case("zeros of a ReLU under layers without biases",
         of(lambda s, x: relu(F.conv1d(relu(F.conv1d(relu(conv(s, x)), s.v)), s.u)), w=[[[-1.0]]], v=[[[1.0]]], u=[[[1.0]]]),
         lambda: (torch.ones(2, 1, 2, dtype=D),)),
    Case("chunks of a ReLU", of(lambda s, x: relu(F.conv1d(relu(conv(s, x)).chunk(2, 1)[0], s.v)), w=[[[0.0]], [[0.0]]], b=[0.0, 0.0],
                                v=[[[1.0]]]), SIGNALS),
    Case("a ReLU with its kink where a modulus is 1",
         of(lambda s, x: relu(torch.complex(x * s.w, x * s.v).abs() - 1), w=[0.6], v=[0.8]), given([1.0, 2.0])),
    Case("weight normalisation off its singular point", of(
        lambda s, x: relu(F.linear(x, torch._weight_norm(s.v, s.g, 0))), v=[[1.0, -1.0]], g=[[1.0]]), given([[1.0, 1.0], [2.0, 2.0]])),
    Case("an angle of vectors that are longer than epsilon", of(
        lambda s, x: F.cosine_similarity(relu(F.linear(x, s.w)), x), w=[[1.0, -1.0], [1.0, 1.0]]), given([[1.0, 1.0], [2.0, 2.0]])),
    Case("M over all", of(lambda s: relu(s.w + s.b1) - relu(s.b2 - s.w), w=[0.0], b1=[0.0], b2=[0.0])),
    Case("one sample of lemma 3 under T1", of(lambda s, x: F.hardsigmoid(x + s.b), b=[0.0]), given([[3.0]]), options={"batch_size": 1}),
    Case("independent columns", of(lambda s, x: F.hardtanh(F.linear(x, s.w)), w=[[1.0, -1.0]]), given([[1.0, 0.0], [0.0, 1.0]]), differ),
    # All touches and ties lie in one of several joined branches.
    Case("branches joined by channel before a pool", of(
        lambda s, x: F.max_pool1d(torch.cat([relu(F.conv1d(x, s.w)), F.conv1d(x, s.v)], 1), 2), w=[[[1.0]]], v=[[[1.0]]]),
        given([[[0.0, -1.0]], [[1.0, 1.0]]])),
    Case("a signal without a batch", of(lambda s, x: F.max_pool1d(relu(conv(s, x)), 2), w=[[[0.0, 1.0]]]), given([[1.0, 0.0, 2.0, 1.0, 2.0]])),
]  # fmt: skip


@pytest.mark.parametrize("case", RIGHT, ids=lambda c: c.name)
def test_a_step_that_the_theory_certifies_is_certified(case: Case) -> None:
    assert gradient_is(case) is not Verdict.OUTSIDE
    step = run(case)
    assert step is not None
    assert step.verdict == "certified", (step.reason, step.text, step.layers)
