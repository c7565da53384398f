"""The judge against every value that the theory lists, against itself by another way, and against broken judges."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.soundness import sampled
from tests.soundness.exact import pieces_of
from tests.soundness.exact_cone import gordan
from tests.soundness.families import FAMILIES, Net, loss_of
from tests.soundness.laboratory import seed_point
from tests.soundness.oracle import Judgement, Verdict, judge, main
from tests.soundness.sampled import NEAR, Landscape, directions, nearest

D = torch.float64
INSIDE, OUTSIDE = Verdict.INSIDE, Verdict.OUTSIDE
relu = torch.relu


def leaves(*values: Any, dtype: torch.dtype = D) -> list[Tensor]:
    return [torch.tensor(v, dtype=dtype, requires_grad=True) for v in values]


def h(x: Tensor) -> Tensor:
    """The ReLU whose proxy at 0 is 1."""
    return torch.where(x < 0, torch.zeros_like(x), x)


def first_max(*entries: Tensor) -> Tensor:
    return torch.stack(entries).max(dim=0).values


@dataclass(frozen=True)
class Listed:
    """A function at a point; what backward gives there and the vertices of dC, where the theory names them."""

    name: str
    function: Callable[..., Tensor]
    at: tuple[Any, ...]
    verdict: Verdict
    gradient: tuple[float, ...] | None = None
    clarke: tuple[tuple[float, ...], ...] | None = None

    def judged(self, by: Callable[..., Judgement] = judge, **options: Any) -> Judgement:
        parameters = leaves(*self.at)
        return by(parameters, lambda: self.function(*parameters).sum(), **options)


def _unequal(w: Tensor, b: Tensor) -> Tensor:
    x = torch.tensor([[[0.0, -4.0, -4.0, 0.0]]], dtype=D)
    a = relu(F.avg_pool1d(F.conv1d(x, w, b), 2, 1, padding=1))
    return first_max(a[..., 1], a[..., 0]) - a[..., 2] / 2


def _pair(w: Tensor) -> Tensor:
    return torch.stack([w, 2 * w])


def _rnn(w: Tensor, u: Tensor) -> Tensor:
    def state(x: float, y: float) -> Tensor:
        return relu(w * y + u * relu(w * x))

    return state(1.0, 0.0) - state(-1.0, 0.0)


def _four_maxes(t: Tensor, u: Tensor) -> Tensor:
    return torch.maximum(2 * torch.maximum(t, -t), first_max(u, -u)) - first_max(-u, u)


LISTED = (
    Listed("lemma 2", lambda w: relu(w) - relu(-w), (0.0,), OUTSIDE, (0,), ((1,),)),
    Listed("lemma 3", lambda w: F.hardsigmoid(3 + w) + F.hardsigmoid(-3 + w), (0.0,), OUTSIDE, (0,), ((1 / 6,),)),
    *(Listed(f"lemma 7 at {b}", lambda u, b: first_max(u + b, b) - first_max(-u + b, b), (0.0, b), OUTSIDE, (2, 0), ((1, 0),))
      for b in (0.0, -1.0)),
    Listed("g - h", lambda w: relu(w) - h(w), (0.0,), OUTSIDE, (-1,), ((0,),)),
    Listed("g + h - h", lambda w: relu(w) + h(w) - h(w), (0.0,), INSIDE, (0,), ((0,), (1,))),
    Listed("h(-h(w))", lambda w: h(-h(w)), (0.0,), OUTSIDE, (-1,), ((0,),)),
    Listed("relu(w) - relu(2w)", lambda w: relu(w) - relu(2 * w), (0.0,), INSIDE, (0,), ((-1,), (0,))),
    Listed("4.2 median", lambda w: torch.stack([w, 2 * w, 4 * w]).median(), (0.0,), OUTSIDE, (7 / 3,), ((2,),)),
    Listed("4.2 sort and max", lambda w: w.sort()[0][0] + w.max(0)[0], ([1.0, 1.0],), OUTSIDE, None, ((1, 1),)),
    Listed("4.4 over w, b1, b2", lambda w, b, c: relu(w + b) - relu(c - w), (0.0, 0.0, 0.0), INSIDE, (0, 0, 0)),
    Listed("4.4 over w alone", lambda w: relu(w) - relu(-w + 0.0), (0.0,), OUTSIDE, (0,), ((1,),)),
    Listed("4.6 relu(y) + clamp(y, max=0)", lambda b: relu(b) + b.clamp(max=0), (0.0,), OUTSIDE, (0,), ((1,),)),
    Listed("4.7 b_i - b_j", lambda b, c: relu(b - c) - relu(c - b), (1.0, 1.0), OUTSIDE, (0, 0), ((1, -1),)),
    Listed("4.7 y - 2b", lambda b: relu(b) - relu(b - 2 * b), (0.0,), OUTSIDE, (0,), ((1,),)),
    Listed("4.7 unequal coefficients", _unequal, ([[[1.0]]], [4.0]), OUTSIDE, (-2, 1), ((0, 0.5),)),
    Listed("4.8", lambda w, b: relu(w + b) + (w + relu(1 + b) - 1).clamp(max=0), (0.0, 0.0), OUTSIDE, (0, 0), ((1, 1),)),
    Listed("4.11", lambda w: h(relu(w)) - relu(-w), (0.0,), OUTSIDE, None, ((1,),)),
    Listed("4.14 tangential", lambda w, v: h(w) - relu(w - v**2), (0.0, 0.0), INSIDE, (1, 0)),
    Listed("5 |2w + |w|| - 2|w|", lambda w: (2 * w + w.abs()).abs() - 2 * w.abs(), (0.0,), OUTSIDE, (0,), ((1,),)),
    Listed("5 four maxes", _four_maxes, (0.0, 0.0), OUTSIDE, (0, 1.5)),
    Listed("5 two maxes", lambda w: first_max(w, -w) - first_max(-w, w), (0.0,), OUTSIDE, (2,), ((0,),)),
    Listed("a clamp by a tensor", lambda w: (_pair(w).clamp_min(0 * _pair(w)) - relu(_pair(w))).sum(), (0.0,), OUTSIDE, None,
           ((0,),)),
    Listed("a clamp by a tensor from above", lambda w: _pair(w).clamp_max(-_pair(w)).sum(), (0.0,), INSIDE, None, ((-3,), (3,))),
    Listed("an RNN", _rnn, (0.0, 1.0), OUTSIDE, (0, 0)),
    Listed("a constant", lambda w: 0 * w, (1.0,), INSIDE, (0,), ((0,),)),
    Listed("smooth", lambda w: torch.exp(w) * w, (0.0,), INSIDE, (1,)),
    Listed("ties before train-mode BatchNorm",
           lambda w: F.max_pool1d(F.batch_norm(F.conv1d(torch.tensor([[[1.0, 1.0]], [[0.0, 3.0]]], dtype=D), w), None, None,
                                               training=True), 2), ([[[1.0]]],), INSIDE),
)  # fmt: skip


@pytest.mark.parametrize("case", LISTED, ids=lambda c: c.name)
def test_the_values_of_the_theory(case: Listed) -> None:
    parameters = leaves(*case.at)
    found = Landscape(parameters, lambda: case.function(*parameters).sum()).here().gradient
    if case.gradient is not None:
        assert found == pytest.approx(np.array(case.gradient), abs=1e-6)
    if case.clarke is not None:
        pieces = pieces_of(parameters, lambda: case.function(*parameters).sum())
        assert pieces is not None and pieces.complete and not len(pieces.possible)
        assert pieces.proved == pytest.approx(np.array(case.clarke), abs=1e-9)
    for exact in (True, False):
        judgement = case.judged(exact=exact, most=150)
        assert judgement.verdict is case.verdict, (exact, judgement)
        assert (judgement.distance > 0) is (case.verdict is OUTSIDE)


def test_distances() -> None:
    by_name = {c.name: c.judged() for c in LISTED}
    for name, distance in {"lemma 2": 1, "lemma 3": 1 / 6, "lemma 7 at 0.0": 0.5, "5 four maxes": 0.25,
                           "4.7 unequal coefficients": np.hypot(2, 0.5) / 2}.items():  # fmt: skip
        assert by_name[name].distance == pytest.approx(distance, abs=1e-4)
        assert by_name[name].by == "exact"


class _Straight(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * x

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return g


@pytest.mark.parametrize(
    ("function", "at", "verdict"),
    [
        (lambda w: w * w.detach(), (2.0,), Verdict.NOT_AD),
        (lambda w: (w * 2).detach() + 0 * w, (2.0,), Verdict.NOT_AD),
        (lambda w, v: relu(w) * relu(v).detach(), (2.0, 1.0), Verdict.NOT_AD),
        (lambda w: _Straight.apply(w), (2.0,), Verdict.NOT_AD),
        (lambda w: w.detach() * 3, (2.0,), Verdict.NOT_AD),
        (lambda w: w.round() + w, (0.5,), Verdict.NOT_LIPSCHITZ),
        (lambda w: w * (w > 1), (1.0,), Verdict.NOT_LIPSCHITZ),
        (lambda w, v: v * (w > 1), (1.0, 1.0), Verdict.NOT_LIPSCHITZ),
        (lambda w: torch.sqrt(relu(w)), (0.0,), Verdict.NOT_LIPSCHITZ),
        (lambda w: torch.sqrt(relu(w) + 1), (0.0,), INSIDE),
        (lambda w: torch.where(w > 0, w * torch.log(w.clamp_min(1e-300)), 0 * w), (0.0,), Verdict.NOT_LIPSCHITZ),
        (lambda w: w * (w > 0), (0.0,), INSIDE),
    ],
)
def test_what_is_not_a_derivative_or_not_lipschitz(function: Any, at: Any, verdict: Verdict) -> None:
    parameters = leaves(*at)
    for seed in range(3):
        assert judge(parameters, lambda: function(*parameters).sum(), seed=seed).verdict is verdict


def test_rounding() -> None:
    a, b = leaves(0.1, 0.2, dtype=torch.float32)
    third = torch.tensor(0.3)
    assert (a + b - third).item() == 0.0
    judgement = judge([a, b], lambda: relu(y := a + b - third) - relu(-y))
    assert judgement.verdict is Verdict.ROUNDING, judgement
    x, y = leaves(0.5, 0.25, dtype=torch.float32)
    assert judge([x, y], lambda: relu(x + y - 0.75) - relu(0.75 - x - y)).verdict is OUTSIDE
    assert judge([x, y], lambda: relu(x + y - 0.75)).verdict is INSIDE
    assert x.dtype is torch.float32 and x.item() == 0.5


def test_a_float32_part_of_a_float64_program_is_no_jump() -> None:
    w, b = leaves([0.0, 1.0], [0.0, -1.0])
    low = judge([w, b], lambda: (relu(w + b) - relu((-w).float() - b.float()).double()).sum())
    assert low.verdict is OUTSIDE, low
    low = judge([w, b], lambda: (relu(w + b) + 2 * relu(w.float() + b.float()).double()).sum())
    assert low.verdict is INSIDE, low


def test_products_with_factors_are_exact() -> None:
    """relu(x w - b) - relu(2 b - x w): right only in a narrow cone, which the pieces show."""
    x = torch.tensor([[1.0, 1.0], [0.0, -1.0]], dtype=D)
    c = torch.tensor([[1.0, -1.0], [-2.0, 2.0]], dtype=D)
    one = torch.ones(2, dtype=D)
    ways = (
        lambda w, b: relu(torch.addcmul(x @ w, b, one, value=-1)) - relu(torch.addmm(b, x, w, beta=2, alpha=-1)),
        lambda w, b: relu(torch.addmm(b, x, w, beta=-1)) - relu(torch.lerp(b, 3 * b - x @ w, 1.0)),
        lambda w, b: relu(torch.addmm(-b, w, x.flip(0).T, alpha=1).T) - relu(torch.addmm(2 * b, w, x.flip(0).T, alpha=-1).T),
    )  # fmt: skip
    for way in ways:
        w, b = leaves([[0.0, 0.0], [0.0, 0.0]], [0.0, 0.0])
        found = judge([w, b], lambda way=way, w=w, b=b: (way(w, b) * c).sum())
        pieces = pieces_of([w, b], lambda way=way, w=w, b=b: (way(w, b) * c).sum())
        assert found.verdict is INSIDE and pieces is not None and pieces.complete, found
        sampled_too = Landscape([w, b], lambda way=way, w=w, b=b: (way(w, b) * c).sum())
        for _, v in zip(range(20), directions([4, 2], np.random.default_rng(0), ()), strict=False):
            gradient = sampled_too.at(v).gradient
            assert np.abs(pieces.proved - gradient).max(axis=1).min() < 1e-9, "a piece is missing"


def test_bfloat16() -> None:
    w = torch.tensor([[1.0, -1.0]], dtype=torch.bfloat16, requires_grad=True)
    x = torch.ones(1, 2, dtype=torch.bfloat16)
    assert judge([w], lambda: relu(F.linear(x, w)).sum()).verdict is INSIDE
    assert judge([w], lambda: (relu(F.linear(x, w)) - relu(-F.linear(x, w))).sum()).verdict is OUTSIDE


def test_random_numbers_are_drawn_once() -> None:
    """In float32 the neighbourhood is read in float64, under the masks that float32 drew."""
    x = torch.tensor([[1.0, -1.0], [1.0, 2.0], [-2.0, 1.0], [1.0, 1.0], [3.0, -1.0]])
    (w,) = leaves([[1.0, 0.0], [0.0, -1.0]], dtype=torch.float32)

    def value(turned: bool) -> Tensor:
        torch.manual_seed(3)
        y = F.dropout(F.linear(x, w), 0.5)
        return (relu(y) - relu(-y) if turned else relu(F.linear(y, w))).sum()

    for seed in range(3):
        assert judge([w], lambda: value(False), seed=seed).verdict is INSIDE
    pieces = pieces_of([w], lambda: value(False))
    assert pieces is not None and pieces.complete and len(pieces.proved) > 1
    w.data.zero_()  # relu(y) - relu(-y) is y, and AD's gradient is 0
    assert judge([w], lambda: value(True)).verdict is OUTSIDE
    assert judge([w], lambda: value(True), exact=False, most=60).verdict is OUTSIDE


def test_random_numbers_that_depend_on_the_parameters_are_not_judged() -> None:
    (w,) = leaves(0.5, dtype=torch.float32)
    assert judge([w], lambda: w * torch.bernoulli(w)).verdict is Verdict.UNSURE


# Coordinates of very different sizes --------------------------------------------------------------


def straight(x: Tensor) -> Tensor:
    """x, where AD gives 0 at 0."""
    return relu(x) - relu(-x)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(
    ("function", "verdict"),
    [
        (lambda a, b: 1e6 * a.abs() + straight(b), OUTSIDE),
        (lambda a, b: 1e6 * a + straight(b), OUTSIDE),
        (lambda a, b: a.abs() + straight(1e-6 * b), OUTSIDE),
        (lambda a, b: 1e6 * relu(1e6 * a) + straight(b), OUTSIDE),
        (lambda a, b: 1e6 * (a + b).abs() + 2 * straight(b) - straight(a), OUTSIDE),
        (lambda a, b: straight(1e-6 * b) + 0 * a, OUTSIDE),
        (lambda a, b: 1e-12 * straight(a - b), OUTSIDE),
        (lambda a, b: 1e-12 * (a - b).abs(), INSIDE),
        (lambda a, b: 2e6 * a.abs() - b.abs(), INSIDE),
        (lambda a, b: 1e12 * a.abs() - (3 * b).abs() - a.abs(), INSIDE),
        (lambda a, b: 1e6 * relu(1e-6 * a) - 1e6 * (1e6 * b).abs() + a.abs() - (a + b).abs(), INSIDE),
    ],
)
def test_a_number_beside_a_large_one_counts(function: Callable[..., Tensor], verdict: Verdict, dtype: torch.dtype) -> None:
    a, b = leaves(0.0, 0.0, dtype=dtype)
    judgement = judge([a, b], lambda: function(a, b))
    assert judgement.verdict is verdict, judgement


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_number_beside_a_large_one_counts_in_a_triangle(dtype: torch.dtype) -> None:
    """AD's gradient is a vertex plus (0, k) for a small k: outside for one sign, inside for the other."""

    def value(k: float) -> Tensor:
        y = 1e6 * a.abs() + torch.stack([a + b, b - a, 2 * b]).max(dim=0).values  # dC has b between 1 and 2, AD 1
        return y + k * straight(b)

    a, b = leaves(0.0, 0.0, dtype=dtype)
    assert judge([a, b], lambda: value(0.0)).verdict is INSIDE
    assert judge([a, b], lambda: value(-0.5)).verdict is INSIDE  # AD still 1, dC between 0.5 and 1.5
    assert judge([a, b], lambda: value(0.5)).verdict is OUTSIDE  # between 1.5 and 2.5


def test_a_number_within_a_large_coordinate_counts() -> None:
    (w,) = leaves(0.0)
    assert judge([w], lambda: 1e6 * w + straight(w)).verdict is OUTSIDE
    assert judge([w], lambda: 1e6 * w + w.abs()).verdict is INSIDE


def test_no_word_is_better_than_inside_where_only_samples_are_known() -> None:
    a, b = leaves(0.0, 0.0)
    assert judge([a, b], lambda: 1e6 * a.abs() + straight(torch.special.erfcx(b) - 1)).verdict is not INSIDE
    assert judge([a, b], lambda: 1e6 * a.abs() + (torch.special.erfcx(b) - 1).abs()).verdict is INSIDE


def test_what_large_terms_round_away_takes_no_weight_from_the_others() -> None:
    """3 |a0 - a1 - b| beside gradients of 4e11 that are off by 1e-4."""
    a, b = leaves([1.0, 1.0], 0.0)
    x, c = torch.tensor([[1.1, 0.7], [0.7, 1.1]], dtype=D), torch.tensor([-1.0, 1.0], dtype=D)
    assert judge([a, b], lambda: (1e12 * relu(x @ a) * c).sum() + 3 * (a[0] - a[1] - b).abs()).verdict is INSIDE
    assert judge([a, b], lambda: (1e12 * relu(x @ a) * c).sum() + 3 * straight(b)).verdict is OUTSIDE


def test_values_that_cancel_do_not_contradict_backward() -> None:
    """2e12 - 2e12 in a network of the laboratory: its values are off by 1e-3, and only the exact pieces see a slope of 1."""
    plan = FAMILIES["replay:large and tiny scales"].plan(60010)
    net = Net(plan)
    net.load(point := seed_point(net, 60010, 11))
    parameters = [p for _, p in net.trained()]
    for seed in range(3):
        assert judge(parameters, lambda: loss_of(net, net, point), seed=seed).verdict is INSIDE
        assert judge(parameters, lambda: loss_of(net, net, point) + parameters[0].detach()[1, 0] * parameters[0][1, 0],
                     seed=seed).verdict in (Verdict.NOT_AD, OUTSIDE)  # fmt: skip


def test_backwards_own_rounding_is_no_wrong_gradient() -> None:
    (w,) = leaves(0.0)
    judgement = judge([w], lambda: 1e16 * w + w - 1e16 * w)
    assert judgement.verdict is Verdict.ROUNDING, judgement
    a, b = leaves(0.0, 0.0, dtype=torch.float32)
    absorbed = [lambda k=k: (1e6 * a).expand(2).sum() - 2e6 * a + k * a + 1e6 * b for k in (3e-6, 3e-3)]
    for value in absorbed:
        a.grad = None
        value().backward()
        assert float(a.grad) in (0.0, pytest.approx(3e-3, abs=0.1))  # 3e-6 beside 1e6 is lost in float32
        assert judge([a, b], value).verdict in (Verdict.ROUNDING, INSIDE)
    assert judge([a, b], lambda: absorbed[0]() + straight(b)).verdict is OUTSIDE


def test_nearest_where_coordinates_lie_far_apart() -> None:
    """Corners of a box; the point is a corner in some coordinates and inside in others."""
    sides = [(0.0, 2.0), (1999998.0, 2000001.0), (1999999.0, 2000002.0), (-2e-6, 2e-6), (-2e-12, 2e-6)]
    corners = np.array(np.meshgrid(*sides)).reshape(5, -1).T
    for inside in ([0.0, 1999999.0, 2000001.0, -2e-6, 0.0], [1.0, 1999998.0, 2000000.0, 1e-6, 2e-6]):
        found = nearest(np.array(inside), corners) @ corners
        assert found == pytest.approx(np.array(inside), rel=1e-12, abs=1e-9)


@pytest.mark.parametrize("size", [1e-9, 1e6, 1e15])
def test_nearest_at_any_size(size: float) -> None:
    vertices = size * np.array([[-1.0, -2.0, 1.0], [-1.0, 2.0, 1.0], [1.0, -2.0, 1.0], [1.0, 2.0, 1.0]])
    weights = nearest(size * np.array([0.25, 0.5, 0.0]), vertices)
    assert weights @ vertices == pytest.approx(size * np.array([0.25, 0.5, 1.0]), rel=1e-9)


# Two ways to one answer -------------------------------------------------------------------------


ACTIVATIONS = (relu, F.relu6, F.hardtanh, F.hardsigmoid, F.hardswish, F.leaky_relu, torch.abs, h, F.softshrink,
               lambda x: x.clamp(min=0), lambda x: torch.maximum(x, -2 * x))  # fmt: skip


def tiny(seed: int) -> tuple[list[Tensor], Callable[[], Tensor]]:
    """A net of small integers with one or two layers, an activation or a pool after each, and a mixed-sign loss."""
    g = torch.Generator().manual_seed(seed)

    def whole(*shape: int, low: int = -1, high: int = 2) -> Tensor:
        return torch.randint(low, high, shape, generator=g).double()

    def pick(n: int) -> int:
        return int(torch.randint(n, (), generator=g))

    x, signs = whole(1, 1, 4), whole(2, 2, 4, low=-2, high=3)
    x = torch.cat([x, -x])
    parameters = [whole(2, 1, 2).requires_grad_(), (whole(2, 2, 1) * whole(2, 2, 1)).requires_grad_()]
    parameters += [whole(2).requires_grad_()] * pick(2)
    first, second, kind = ACTIVATIONS[pick(len(ACTIVATIONS))], ACTIVATIONS[pick(len(ACTIVATIONS))], pick(4)

    def value() -> Tensor:
        y = F.conv1d(x, parameters[0], parameters[2] if len(parameters) > 2 else None)
        y = F.max_pool1d(first(y), 2, 1) if kind in (0, 3) else first(y)
        y = F.conv1d(y, parameters[1])
        y = y.amax(2, keepdim=True) if kind == 2 else F.avg_pool1d(second(y), 2) if kind == 3 else second(y)
        return (y * signs[..., : y.shape[2]]).sum()

    return parameters, value


def test_sums_in_place_are_exact() -> None:
    """The matrix of a sum is read off several runs, none of which may begin where the last one ended."""
    w = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64, requires_grad=True)
    pieces = pieces_of([w], lambda: (w * 1).add_(w.flip(0)).sum())
    assert pieces is not None and pieces.complete
    assert pieces.proved.tolist() == [[2.0, 2.0, 2.0]]


def test_exact_and_sampled_agree() -> None:
    answered, answers = 0, {INSIDE: 0, OUTSIDE: 0}
    for seed in range(200):
        parameters, value = tiny(seed)
        pieces = pieces_of(parameters, value, branches=40, work=3e5)
        assert pieces is not None
        landscape = Landscape(parameters, value)
        start, random = landscape.here(), np.random.default_rng(seed)
        vertices = np.concatenate([pieces.proved, pieces.possible])
        offsets = directions(landscape.sizes, random, ())
        for _, v in zip(range(12), offsets, strict=False):
            sample = landscape.at(v)
            if pieces.complete and sample.short and landscape.along_the_ray(start, sample):
                assert np.abs(vertices - sample.gradient).max(axis=1).min() < 1e-3, "a piece is missing"
        if seed % 4 and not pieces.complete:
            continue
        first = judge(parameters, value).verdict
        if first in answers:
            answers[first] += 1
        if seed % 4 == 0:
            second = judge(parameters, value, exact=False, most=100, seed=1).verdict
            answered += 1
            assert {first, second} != {INSIDE, OUTSIDE}, seed
    assert answered == 50 and answers[INSIDE] > 100 and answers[OUTSIDE] > 2, answers


@pytest.mark.parametrize("dtype, word", [(torch.float64, OUTSIDE), (torch.float32, Verdict.UNSURE)])
def test_a_constant_that_is_overwritten_by_a_parameter_is_not_read_as_it_ends(dtype: torch.dtype, word: Verdict) -> None:
    """relu(w) - relu(-w) = w at 0: what is 1 before ``mul_`` is 0 after it."""
    w = torch.zeros(1, dtype=dtype, requires_grad=True)

    def value() -> Tensor:
        x = torch.ones(1, dtype=dtype)
        x.mul_(w)
        return (torch.relu(x) - torch.relu(-x)).sum()

    assert judge([w], value).verdict is word


def test_what_the_pieces_may_cost_is_counted_not_timed() -> None:
    parameters, value = tiny(3)
    all_of_them = pieces_of(parameters, value)
    assert all_of_them is not None and all_of_them.complete
    for work in (100.0, 3e3, 1e4):
        short, again = (pieces_of(parameters, value, work=work) for _ in range(2))
        assert short is not None and again is not None
        assert not short.complete and np.array_equal(short.proved, again.proved)
        assert len(short.proved) < len(all_of_them.proved)


def test_the_parameters_and_the_seed() -> None:
    parameters, value = tiny(3)
    before = [p.detach().clone() for p in parameters]
    assert judge(parameters, value, seed=5) == judge(parameters, value, seed=5)
    assert all(torch.equal(p, b) for p, b in zip(parameters, before, strict=True))
    assert all(p.grad is None for p in parameters)


def test_gordan() -> None:
    random = np.random.default_rng(0)
    for _ in range(200):
        rows = random.integers(-2, 3, (random.integers(1, 7), random.integers(1, 5))).astype(object)
        y, v = gordan(rows)
        assert (y is None) is not (v is None)


def test_nearest() -> None:
    random = np.random.default_rng(0)
    for _ in range(100):
        vertices, point = random.integers(-2, 3, (8, 4)).astype(float), random.integers(-3, 4, 4).astype(float)
        weights = nearest(point, vertices)
        assert weights.min() >= 0 and weights.sum() == pytest.approx(1)
        out = point - weights @ vertices
        assert ((vertices - weights @ vertices) @ out <= 1e-8).all()


# Broken judges ----------------------------------------------------------------------------------


def disagreements() -> list[str]:
    """The listed cases whose verdict is not the theory's."""
    return [c.name for c in LISTED if c.judged(most=60).verdict is not c.verdict]


def test_a_judge_of_another_gradient_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not disagreements()
    right = Landscape.here

    def shifted(self: Landscape) -> sampled.Sample:
        sample = right(self)
        return sampled.Sample(sample.offset, sample.value, sample.gradient + 1.5)

    monkeypatch.setattr(Landscape, "here", shifted)
    assert len(disagreements()) >= 5


def test_a_judge_that_measures_hulls_wrongly_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.soundness.oracle.nearest", lambda point, vertices: np.eye(len(vertices))[0])
    assert judge(*tiny_segment()).verdict is not INSIDE


def test_a_judge_that_forgets_the_distance_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.soundness.oracle._Trial._gap", lambda self, possible=False: (0.0, self.found.gradient))
    assert len(disagreements()) >= 5


def tiny_segment() -> tuple[list[Tensor], Callable[[], Tensor]]:
    """|w| at 0: backward gives the middle of the segment from -1 to 1."""
    (w,) = leaves(0.0)
    return [w], lambda: w.abs()


def test_the_middle_of_a_segment_is_inside() -> None:
    assert judge(*tiny_segment()).verdict is INSIDE
    assert NEAR < 1e-5


@pytest.mark.parametrize(
    ("text", "status", "told"),
    [
        ("parameters = [torch.zeros((), requires_grad=True)]\nvalue = lambda: torch.relu(parameters[0])", 0, "inside"),
        ("parameters = []", 2, "cannot judge"),
    ],
)
def test_as_a_tool(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, status: int, told: str) -> None:
    file = tmp_path / "scalar.py"
    file.write_text("import torch\n" + text)
    assert main([str(file)]) == status
    out, err = capsys.readouterr()
    assert told in out + err
    assert main([]) == 2 and main([str(tmp_path / "none.py")]) == 2 and main([f"{file}:none"]) == 2
