"""Attacks on the joint condition and the witnessed decomposition: certificates for gradients that are no subgradients."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from operator import getitem
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fxcheck
from fxcheck.ops.observe import choose, observe
from fxcheck.records.step import StepResult
from fxcheck.runtime.derivatives import SKETCH
from fxcheck.runtime.replay import checksum
from tests.runtime.models import CLAMP_PASSES, Scalars, step_of
from tests.runtime.test_joint import ONE, widest
from tests.soundness.oracle import Verdict, judge

F64 = torch.float64


def w_with_gradient_0(s: Scalars, x: Tensor) -> Tensor:
    """relu(w) - relu(-w) = w in a form that no layer unites; AD returns 0 at w = 0."""
    return F.relu(s.w * x) - F.relu((-s.w * x).reshape(1, 1)).reshape(1)


def step_with(model: nn.Module, loss: Callable[[Any], Tensor]) -> StepResult:
    checked = fxcheck.instrument(model, (ONE,))
    with checked.step() as step:
        loss(checked(ONE)).backward()
    return step


# The gradient that reaches an output ---------------------------------------------------------------


def test_a_gradient_that_an_output_passes_to_another_output_counts_once() -> None:
    """|w| + 1.5 w at 0 with AD at 0, where dC = [0.5, 2.5]: the hook at the feature also sees what comes from the head."""
    def feature_and_head(s: Scalars, x: Tensor) -> tuple[Tensor, Tensor]:
        feature = (s.w * x).abs()
        return feature, 1.0 * feature + 1.5 * w_with_gradient_0(s, x)

    assert step_with(Scalars(feature_and_head, w=0.0), lambda o: o[1].sum()).verdict == "uncertified"


def test_an_output_that_is_returned_twice_counts_once() -> None:
    """The same function; its first summand is output 0 and output 1, one tensor."""
    def twice(s: Scalars, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        feature = (s.w * x).abs()
        return feature, feature, 1.5 * w_with_gradient_0(s, x)

    assert step_with(Scalars(twice, w=0.0), lambda o: (o[0] + o[2]).sum()).verdict == "uncertified"


def test_a_gradient_that_a_parameter_keeps_is_not_remembered_by_reference() -> None:
    """The same function over two forwards; the second accumulates into the memory of the first one's output gradient."""
    def function(s: Scalars, x: Tensor) -> Tensor:
        return x[:1] * s.w.abs() + x[1:] * w_with_gradient_0(s, ONE) + s.b

    first, second = torch.tensor([1.0, 0.0], dtype=F64), torch.tensor([0.0, 1.0], dtype=F64)
    checked = fxcheck.instrument(Scalars(function, w=0.0, b=[0.0, 0.0, 0.0]), (first,))
    with checked.step() as step:
        (1.0 * checked(first)).sum().backward()
        (1.5 * checked(second)).sum().backward()
    assert step.verdict == "uncertified"


# What the sketch folds together --------------------------------------------------------------------


class Long(nn.Module):
    """A vector that is sketched: entries 0 and SKETCH share a bucket, here with one sign."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function
        self.weight = nn.Parameter(torch.zeros(2 * SKETCH, dtype=F64))

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.weight, x)


def test_gradients_with_equal_sketches_are_not_equal_gradients() -> None:
    """max(a, b) - max(b, a) = 0; AD returns (1, -1)."""
    model = Long(lambda w, x: widest(w[0], w[SKETCH]) - widest(w[SKETCH], w[0]))
    assert step_of(fxcheck.instrument(model, (ONE,)), ONE).verdict == "uncertified"


def test_differences_that_cancel_in_the_sketch_are_not_zero() -> None:
    """relu(a) - relu(-a) - relu(b) + relu(-b) + |c| has gradient (1, -1, .); AD returns 0."""
    def function(w: Tensor, x: Tensor) -> Tensor:
        a, b = w[0] * x, w[SKETCH] * x
        return F.relu(a) - F.relu((-a).reshape(1, 1)) - F.relu(b) + F.relu((-b).reshape(1, 1)) + w[1].abs()

    assert step_of(fxcheck.instrument(Long(function), (ONE,)), ONE).verdict == "uncertified"


# Points whose choice cannot be replaced --------------------------------------------------------------


@pytest.mark.parametrize("view", [lambda y: y.view(1, 1), lambda y: y.expand(1, 1), lambda y: y.movedim(0, 0)])
def test_a_mixture_that_cannot_be_replaced_is_no_left_side(view: Callable[[Tensor], Tensor]) -> None:
    """|w| - 2 relu(w) = -w; AD returns 0. abs_ writes into memory that a view reads, so its 0 stands in every replay."""
    def function(s: Scalars, x: Tensor) -> Tensor:
        y = s.w * x
        seen = view(y)
        y.abs_()
        return seen.sum() - 2 * F.relu((s.w * x).reshape(1, 1)).sum()

    assert step_of(fxcheck.instrument(Scalars(function, w=0.0), (ONE,)), ONE).verdict == "uncertified"


# Pairs that are equal under AD's choices alone ---------------------------------------------------------


def test_pools_that_share_a_pick_are_equal_only_as_long_as_it_stands() -> None:
    """max(b, c) - max(c, b) = 0 with (a, b, c) = (0, 1, 1), the first by a pool of overlapping pools; AD returns b - c."""
    def function(s: Scalars, x: Tensor) -> Tensor:
        inner = F.max_pool1d(s.w.reshape(1, 1, 3), 2, 1)
        return F.max_pool1d(inner, 2).sum() - torch.stack([s.w[2], s.w[1]]).max(0).values

    assert step_of(fxcheck.instrument(Scalars(function, w=[0.0, 1.0, 1.0]), (ONE,)), ONE).verdict == "uncertified"


# What is run again is what was run ---------------------------------------------------------------------


def minus(d: Tensor) -> Tensor:
    """|d| - 2 relu(d) = -d; AD returns 0 at d = 0."""
    return d.abs() - 2 * F.relu(d.reshape(1, 2)).reshape(2)


def test_an_input_whose_memory_was_overwritten_behind_autograd_is_noticed() -> None:
    """A loader reuses its numpy buffer. The new outputs have the old hash: 0 either way, and equal pairs cancel."""
    memory = np.ones(2)
    x = torch.from_numpy(memory)
    checked = fxcheck.instrument(Scalars(lambda s, x: minus(x * (s.w - s.v)), w=0.0, v=0.0), (x,))
    with checked.step() as step:
        checked(x).sum().backward()
        memory[:] = 0.0
    assert step.verdict == "uncertified"


def test_a_parameter_that_was_changed_through_data_is_noticed() -> None:
    """As an optimizer does that writes to ``p.data``: versions stay, and the outputs are 0 before and after."""
    x = torch.ones(2, dtype=F64)
    model = Scalars(lambda s, x: minus(s.a * x * (s.w - s.v)), w=0.0, v=0.0, a=1.0)
    checked = fxcheck.instrument(model, (x,))
    verdict = None
    with contextlib.suppress(fxcheck.errors.FxcheckError), checked.step() as step:
        checked(x).sum().backward()
        model.a.data.zero_()
        verdict = step
    assert verdict is not None and verdict.verdict != "certified"


def test_inputs_may_be_told_apart_by_order_and_by_pairs() -> None:
    """The XOR of a tensor's bits does neither; a digest of a step and the comparison of two runs rest on it."""
    assert checksum(torch.tensor([1.0, 1.0])) != checksum(torch.tensor([2.0, 2.0]))
    assert checksum(torch.tensor([1.0, 2.0])) != checksum(torch.tensor([2.0, 1.0]))


# Sizes --------------------------------------------------------------------------------------------------


def test_one_parameter_with_large_differences_hides_no_wrong_gradient_of_another() -> None:
    """float32: 1e6 (relu(u) + relu(v) + relu(-u - v)), which AD has right, beside w, whose gradient AD has wrong.

    Three gradients that cancel as vectors, not term by term, leave room for errors of their size in every coordinate.
    """
    def function(s: Scalars, x: Tensor) -> Tensor:
        u, v, w = s.u.float(), s.v.float(), s.w.float()
        large = sum(F.relu(t.reshape(1, 1, 1)) for t in (u, v, -u - v))
        return 1e6 * large + 0 * u.abs() + F.relu(w) - F.relu((-w).reshape(1, 1))

    step = step_of(fxcheck.instrument(Scalars(function, u=0.0, v=0.0, w=0.0), (ONE,)), ONE)
    assert step.verdict == "uncertified"


# A second look leaves the graph usable --------------------------------------------------------------------


def normed_with_touches() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    model = Scalars(lambda s, x: s.norm(x * s.scale).abs().sum() + (0 * s.scale).amax(), scale=[1.0, 1.0])
    model.norm = nn.BatchNorm1d(2, dtype=F64)
    return model, torch.randn(6, 2, dtype=F64)


def test_backward_works_after_a_forward_that_is_a_step_of_its_own() -> None:
    """Restoring BatchNorm's statistics after a replay raises their version, and autograd has saved them."""
    model, x = normed_with_touches()
    checked = fxcheck.instrument(model, (x,))
    checked(x).backward()


def test_backward_works_after_the_step_and_a_second_time() -> None:
    model, x = normed_with_touches()
    checked = fxcheck.instrument(model, (x,))
    with checked.step():
        loss = checked(x)
        loss.backward(retain_graph=True)
    loss.backward()


def test_a_forward_that_reads_what_it_writes_is_not_run_again() -> None:
    """A threshold that grows with each forward: on the second look other entries would be touched."""
    class Clock(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.zeros((), dtype=torch.float64))
            self.register_buffer("time", torch.zeros((), dtype=torch.float64))

        def forward(self, x: Tensor) -> Tensor:
            now = self.time.clone()
            self.time.add_(1.0)
            y = self.w * x
            return torch.relu(y + now) - torch.relu((-y + now).reshape(1, 1))

    x = torch.ones(1, dtype=torch.float64)
    checked = fxcheck.instrument(Clock(), (x,))
    with checked.step() as step:
        checked(x).sum().backward()
    assert step.verdict == "uncertified" and "time" in step.text


def test_a_running_minimum_is_chosen_at_its_own_place() -> None:
    """Along the middle of three dimensions the result's entries are not in the order of the prefixes."""
    model = nn.Conv1d(2, 3, 2, padding=1).double()
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[[0.0, 0], [-1, -1]], [[0, -1], [0, 0]], [[1, -1], [-1, 1]]]))
        model.bias.copy_(torch.tensor([0.0, 1, 1]))
    x = torch.tensor([[[0.0, -1.0], [-1.0, 1.0]]], dtype=torch.float64)
    ends = torch.tensor([-1.0, -1, 1, -1, -1, -1, -2, -1, 0], dtype=torch.float64).reshape(1, 3, 3)
    checked = fxcheck.instrument(
        nn.Sequential(model), (x,), loss=lambda y: ((y.cummin(1).values - (-y).cummin(1).values) * ends).sum()
    )
    with checked.step() as step:
        checked.loss(x).backward()
    assert step.verdict == "uncertified"


@pytest.mark.parametrize("i", range(6))
def test_weights_that_cancel_images_in_a_sketch_do_not_cancel_gradients(i: int) -> None:
    """max(a, b) with AD's gradient 0, outside the segment between its sides; both entries meet in one sum of the sketch."""
    def larger(s: Scalars, x: Tensor) -> Tensor:
        a, b = s.w[i] * x, s.w[i + SKETCH] * x
        positive, negative = torch.relu(b), torch.relu((-b).reshape(1, 1)).reshape(1)
        return positive - negative + torch.relu((a - b).reshape(1, 1, 1)).reshape(1)

    x = torch.ones(1, dtype=torch.float64)
    assert step_of(fxcheck.instrument(Scalars(larger, w=[0.0] * (SKETCH + 8)), (x,)), x).verdict == "uncertified"


# What an operation reads twice ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "same",
    [lambda y: torch.clamp(y, min=y), lambda y: torch.clamp(y, max=y), lambda y: torch.clamp_min(y, y),
     lambda y: torch.maximum(y, y), lambda y: torch.minimum(y, y), lambda y: torch.fmax(y, y), lambda y: torch.fmin(y, y)],
)  # fmt: skip
def test_a_maximum_of_an_entry_and_itself_has_no_sides_that_could_be_mixed(same: Callable[[Tensor], Tensor]) -> None:
    """2 max(y) - max(y1, y2) - max(y2, y3), y = (0, -w, -w), at 0: dC = [0, 1], AD gives -1/3. With the sides of max(y, 0) for
    those of max(y, y), parts were found that average to it."""
    def function(s: Scalars, x: Tensor) -> Tensor:
        y = s.w * torch.tensor([0.0, -1.0, -1.0], dtype=F64)
        return 2 * same(y).max() - F.max_pool1d(y.reshape(1, 1, -1), 2, 1).sum()

    model = Scalars(function, w=0.0)
    assert judge([model.w], lambda: model(ONE), exact=False).verdict is Verdict.OUTSIDE
    assert step_with(model, lambda o: o).verdict == "uncertified"
    alone = Scalars(lambda s, x: same(s.w * x).sum(), w=0.0)
    step = step_with(alone, lambda o: o)  # torch 2.13 lets clamp_min, fmax and fmin pick one of the two: not told apart
    assert float(alone.w.grad) == 1.0 and (step.verdict == "certified" or CLAMP_PASSES)


# What a composite reads ----------------------------------------------------------------------------


def test_picks_before_a_norm_are_mixed_with_the_signs_inside_it() -> None:
    """The second coordinate of AD's gradient is 1/3, and 1 of all gradients nearby: under other picks of cummax the absolute
    values inside of the norm are of other entries."""
    inputs = [torch.tensor(x, dtype=F64) for x in ([-1.0, 1.0, 1.0], [-1.0, 2.0, -1.0], [1.0, 1.0, 1.0])]
    rows = torch.tensor([[2.0, 1.0, 1.0], [2.0, 0.0, -1.0], [0.0, 1.0, 1.0]], dtype=F64)

    def function(s: Scalars, x: Tensor) -> Tensor:
        s.b * 1.0  # a coordinate that moves nothing
        return torch.linalg.vector_norm(torch.cummax(rows @ s.w * x, 0).values, float("inf"))

    def loss(model: Any) -> Tensor:
        return sum((f * model(x) for f, x in zip((2.0, -1.0, 0.0), inputs, strict=True)), torch.zeros((), dtype=F64))

    model = Scalars(function, w=[0.0, 0.0, 1.0], b=[0.0, 1.0, 0.0])
    assert judge([model.w], lambda: loss(model), exact=False).verdict is Verdict.OUTSIDE
    checked = fxcheck.instrument(model, (inputs[0],))
    for _ in range(2):
        with checked.step() as step:
            loss(checked).backward()
    assert step.verdict == "uncertified"


@pytest.mark.parametrize("maxima", [lambda y: torch.cummax(y, 0).values, lambda y: torch.stack([y, -y]).max(0).values])
def test_the_parts_of_a_norm_read_what_is_chosen_before_it(maxima: Callable[[Tensor], Tensor]) -> None:
    model = Scalars(lambda s, x: torch.linalg.vector_norm(maxima(s.w * x), float("inf")), w=[-1.0, -1.0, 1.0])
    checked = fxcheck.instrument(model, (torch.ones(3, dtype=F64),))
    graph = checked._programs[0][1].replayed.module.graph
    outputs = [n for n in graph.nodes if n.target is getitem and n.args[1] == 0]
    assert outputs and {u.target for n in outputs for u in n.users} == {observe, choose}


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_the_parts_of_a_triplet_loss_give_its_bits_and_their_minimum_can_be_chosen_for(reduction: str) -> None:
    """9 - 2 |w|, whose gradient AD takes for 0 at the tie of two distances."""
    def function(s: Scalars, x: Tensor) -> Tensor:
        w = (s.w * x)[:, None]
        return F.triplet_margin_loss(w + 3, 3 - w, torch.zeros_like(w), margin=6.0, eps=1.0, swap=True, reduction=reduction)

    model, x = Scalars(function, w=0.0), torch.ones(2, dtype=F64)
    assert judge([model.w], lambda: model(x).sum()).verdict is Verdict.INSIDE
    checked = fxcheck.instrument(model, (x,))
    with checked.step() as step:
        checked(x).sum().backward()
    assert (step.verdict, step.theorem, step.subdifferential) == ("certified", "joint", "clarke"), step.text


# Chains of operators on one pre-activation ---------------------------------------------------------


def _cap(bound: float) -> Tensor:
    return torch.tensor(bound, dtype=F64)


def _apart(y: Tensor) -> Tensor:
    """relu(y) in a form that no chain takes in."""
    return F.relu(y.reshape(1, -1)).reshape(-1)


# name: (function of y = w x, w). All are smooth near w, and AD's slope is another one.
CHAINS: dict[str, tuple[Callable[[Tensor], Tensor], float]] = {
    "a cap by a tensor behind a ReLU": (lambda y: torch.minimum(1 + F.relu(y), _cap(5.0)) - _apart(-y), 0.0),
    "a floor by a tensor behind a leaky ReLU": (
        lambda y: torch.maximum(1 + F.leaky_relu(y, 0.5), _cap(-3.0)) - 0.5 * _apart(-y), 0.0),
    "ReLU6 by hand, at 0": (lambda y: torch.minimum(F.relu(y), _cap(6.0)) - _apart(-y), 0.0),
    "ReLU6 by hand, at 6": (lambda y: torch.minimum(F.relu(y), _cap(6.0)) + _apart(y - 6), 6.0),
    "hinge by hand": (lambda y: torch.maximum(1 - y, _cap(0.0)) - _apart(y - 1), 1.0),
    "hinge by a clamp between tensors": (lambda y: torch.clamp(1 - y, min=_cap(0.0)) - _apart(y - 1), 1.0),
    "a ReLU alone and in a sum": (lambda y: -3 * (a := F.relu(y)) + 2 * (y + a) + _apart(-y), 0.0),
    "ReLU6 alone and in a difference": (lambda y: -3 * (a := F.relu6(y)) + 2 * (a - y) + _apart(-y), 0.0),
}  # fmt: skip


@pytest.mark.parametrize("name", CHAINS)
def test_a_chain_is_looked_at_where_its_pre_activation_is_on_a_kink(name: str) -> None:
    function, at = CHAINS[name]
    model = Scalars(lambda s, x: function(s.w * x), w=at)
    assert judge([model.w], lambda: model(ONE).sum()).verdict is Verdict.OUTSIDE
    step = step_with(model, lambda output: output.sum())
    assert step.verdict == "uncertified"
    assert sum(layer.touched for layer in step.layers) >= 2


def test_values_past_a_kink_are_not_touched_and_a_comparison_that_is_not_met_is_no_rounding() -> None:
    x = torch.tensor([1.0, 2.0], dtype=F64)
    for by_hand in (lambda y: torch.minimum(F.relu(y), _cap(6.0)), lambda y: F.relu(y).clamp(max=6.0)):
        for w, touched in ((0.0, 2), (1.0, 0), (3.0, 1), (6.0, 1)):
            model = Scalars(lambda s, x, f=by_hand: f(s.w * x + 0 * s.b), w=w, b=0.0)
            checked = fxcheck.instrument(model, (x,))
            with checked.step() as step:
                checked(x).sum().backward()
            assert sum(layer.touched for layer in step.layers) == touched, (w, step.text)
            assert "rounding" not in step.text


# name: (function of y, a y at which kinks of its operators cancel)
CANCELLED: dict[str, tuple[Callable[[Tensor], Tensor], float]] = {
    "huber by hand": (lambda y: torch.where(y.abs() < 1, 0.5 * y * y, y.abs() - 0.5) + F.relu(y), -1.0),
    "a difference of equal ReLUs": (lambda y: 2 * F.relu(y - 1) - F.relu(2 * y - 2) + F.relu(y), 1.0),
}  # fmt: skip


@pytest.mark.parametrize("name", CANCELLED)
def test_comparisons_that_are_met_where_the_kinks_of_a_chain_cancel_are_no_rounding(name: str) -> None:
    function, at = CANCELLED[name]
    step = step_with(Scalars(lambda s, x: function(s.w * x + 0 * s.b), w=at, b=0.0), lambda output: output.sum())
    assert step.verdict == "certified" and not any(layer.touched for layer in step.layers), step.text


PLATEAUS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu of relu": lambda y: F.relu(F.relu(y)),
    "relu and clamp": lambda y: F.relu(y).clamp(0, 5),
    "abs of relu": lambda y: F.relu(y).abs(),
    "relu times its mask": lambda y: F.relu(y) * (F.relu(y) > 0),
    "relu of hardsigmoid": lambda y: F.relu(F.hardsigmoid(8 * y)),
}


@pytest.mark.parametrize("name", PLATEAUS)
@pytest.mark.parametrize("w", [-1.0, 0.0, 1.0])
def test_comparisons_that_are_met_where_what_they_compare_is_constant_are_no_rounding(name: str, w: float) -> None:
    step = step_with(Scalars(lambda s, x: PLATEAUS[name](s.w * x + 0 * s.b), w=w, b=0.0), lambda output: output.sum())
    assert step.verdict == "certified", step.text


def test_a_comparison_that_rounding_moves_to_another_kink_of_the_chain() -> None:
    """In float32 y + 1024 is 1024 at y = 2^-17, a kink of the second ReLU: AD returns 0 there, and slopes are 1 and 3."""
    model = Scalars(lambda s, x: F.relu((s.w * x + 1024) - 1024) + 2 * F.relu(s.w * x - 2.0**-17), w=2.0**-17).float()
    checked = fxcheck.instrument(model, (ONE.float(),))
    with checked.step() as step:
        checked(ONE.float()).sum().backward()
    assert model.w.grad.item() == 0
    assert step.verdict == "uncertified" and "rounding moved a kink" in step.text


def test_kinks_that_cancel_in_exact_arithmetic_and_not_as_they_are_computed() -> None:
    """Just above 1 the second ReLU is computed at 0 and the first one is not: AD returns 2, and the slope is 1."""
    def function(s: Scalars, x: Tensor) -> Tensor:
        y = s.w * x
        return F.relu(y - 1) - F.relu((y + 7) - 8) + F.relu(y)

    model = Scalars(function, w=float(np.nextafter(1.0, 2.0)))
    step = step_with(model, lambda output: output.sum())
    assert model.w.grad.item() == 2
    assert step.verdict == "uncertified" and "rounding moved a kink" in step.text


def test_two_heads_that_read_a_relu_and_a_sum_with_it() -> None:
    """Two samples x = 1, -1: the loss is w, and AD returns 2."""
    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(1, 1, bias=False)
            nn.init.zeros_(self.layer.weight)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            y = self.layer(x)
            a = F.relu(y)
            return a, y + a

    model, x = Heads(), torch.tensor([[1.0], [-1.0]])
    checked = fxcheck.instrument(model, (x,))
    with checked.step() as step:
        a, e = checked(x)
        (a[:, 0] @ torch.tensor([-3.0, 1.0]) + e[:, 0] @ torch.tensor([2.0, 0.0])).backward()
    assert model.layer.weight.grad.item() == 2 and step.verdict == "uncertified"


# What a second look runs again ---------------------------------------------------------------------


@pytest.mark.parametrize("name", ["threshold", "frozen"])
def test_a_buffer_or_frozen_parameter_written_before_the_step_ends_leaves_it_open(name: str) -> None:
    """relu(w - t) - relu(-w - t) at w = t = 0 is w; where t is 1 afterwards nothing is on a kink."""
    class Annealed(Scalars):
        def __init__(self) -> None:
            super().__init__(lambda s, x: F.relu(s.w * x - s.t) - F.relu((-s.w * x - s.t).reshape(1, 1)).reshape(1), w=0.0)
            if name == "threshold":
                self.register_buffer("t", torch.zeros(1, dtype=F64))
            else:
                self.t = nn.Parameter(torch.zeros(1, dtype=F64), requires_grad=False)

    model = Annealed()
    checked = fxcheck.instrument(model, (ONE,))
    with checked.step() as step:
        checked(ONE).sum().backward()
        (model.t if name == "threshold" else model.t.data).add_(1.0)
    assert step.verdict == "uncertified"
