"""Steps that were decided as a whole and certified wrongly, each the smallest that was found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fxcheck
from fxcheck.records.step import StepResult
from fxcheck.runtime.derivatives import SKETCH
from tests.runtime.models import Scalars
from tests.soundness.families import Plan, Point, Step
from tests.soundness.laboratory import outcome
from tests.soundness.oracle import Verdict, judge

ONE = torch.ones(1, dtype=torch.float64)


def widest(*values: Tensor) -> Tensor:
    return torch.stack(values).max(0).values


def assert_not_certified(
    model: nn.Module, loss: Callable[[Any], Tensor] = torch.sum, begin: Callable[[], Any] = lambda: None
) -> None:
    """The oracle says that backward is wrong, and the step is not certified.

    Args:
        model: takes one input.
        loss: of its output.
        begin: sets the model's buffers to where a step begins.
    """
    def value() -> Tensor:
        begin()
        return loss(model(ONE))

    assert judge(list(model.parameters()), value).verdict is Verdict.OUTSIDE, "the case must be a trap"
    step = _step(model, loss, begin)
    assert step.verdict == "uncertified", f"{step.theorem}, {step.subdifferential}"


def _step(model: nn.Module, loss: Callable[[Any], Tensor], begin: Callable[[], Any] = lambda: None) -> StepResult:
    checked = fxcheck.instrument(model, (ONE,))
    begin()
    with checked.step() as step:
        loss(checked(ONE)).backward()
    return step


Pair = Callable[[Tensor, Tensor], Tensor]
PAIRS: dict[str, Pair] = {
    "max(a, b) - max(b, a)": lambda a, b: widest(a, b) - widest(b, a),
    "max(a, b) - maximum(a, b)": lambda a, b: widest(a, b) - torch.maximum(a, b),
}
"""0, where AD does not give 0."""


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("first", range(6))
def test_gradients_that_a_sketch_makes_equal_are_not_equal(name: str, first: int) -> None:
    """a and b are entries of one parameter that come into one coordinate of a sketch, with one sign or with two."""
    pair = PAIRS[name]
    twin = Scalars(lambda s, x: pair(s.a, s.b) * x, a=0.0, b=0.0)
    assert judge(list(twin.parameters()), lambda: twin(ONE).sum()).verdict is Verdict.OUTSIDE
    model = Scalars(lambda s, x: pair(s.w[first], s.w[first + SKETCH]) * x, w=[0.0] * (SKETCH + 8))
    assert _step(model, torch.sum).verdict == "uncertified"


def _absolute_values_in_place(s: Scalars, x: Tensor) -> Tensor:
    y = (s.w * x).reshape(1, 1)
    pair = torch.cat([y, y], 1) * 1
    pair[:, 1:].abs_()
    outer = torch.cat([2 * pair[:, :1] + pair[:, 1:], y], 1)
    outer[:, :1].abs_()
    return outer[:, :1] - 2 * pair[:, 1:]


def test_what_cannot_be_chosen_for_is_on_no_side() -> None:
    """|2w + |w|| - 2|w| = w with absolute values through views: AD's 0 is neither slope, and nothing can stand in its place."""
    assert_not_certified(Scalars(_absolute_values_in_place, w=0.0))


class Warmed(nn.Module):
    """relu(w - t) - relu(-w - t), t the forwards before this one."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(1, dtype=torch.float64))
        self.register_buffer("t", -ONE.clone())

    def forward(self, x: Tensor) -> Tensor:
        self.t.add_(1)
        return F.relu(self.w * x - self.t) - F.relu(-self.w * x - self.t)


def test_a_forward_is_run_again_with_the_buffers_it_had() -> None:
    """w at the first forward, where AD gives 0; the second one has the same output and touches nothing."""
    model = Warmed()
    assert_not_certified(model, begin=lambda: model.t.fill_(-1))


def _terms(s: Scalars, x: Tensor) -> tuple[Tensor, Tensor]:
    """relu(w), relu(-w) - 1.5 relu(w)."""
    y = s.w * x
    return F.relu(y.reshape(1, 1)), F.relu(-y.reshape(1, 1, 1)).reshape(1, 1) - 1.5 * F.relu(y[:1].reshape(1, 1))


RETURNED: dict[str, tuple[Callable[[Tensor, Tensor], tuple[Tensor, ...]], Callable[[Any], Tensor]]] = {
    "features, and the result made of them": (lambda a, b: (a, a + b), lambda out: out[1].sum()),
    "one output twice": (lambda a, b: (a, a, b), lambda out: (out[0] + out[2]).sum()),
}


@pytest.mark.parametrize("name", RETURNED)
def test_an_outputs_gradient_is_counted_once(name: str) -> None:
    """-w / 2 and -w on the two sides of 0, and AD gives 0; the gradient that reaches a is also part of what reaches a + b."""
    outputs, loss = RETURNED[name]
    assert_not_certified(Scalars(lambda s, x: outputs(*_terms(s, x)), w=[0.0]), loss)


def test_a_clamp_by_a_parameter_in_place_gives_a_verdict() -> None:
    """The second look does not break the training loop."""
    model = Scalars(lambda s, x: (s.w * x).clamp_(min=s.v * x), w=[0.0], v=[0.0])
    assert _step(model, torch.sum).verdict in ("certified", "uncertified")


def test_a_row_whose_terms_cancel_is_no_better_known_than_they_are() -> None:
    """relu(w) - relu(-3w), where AD gives 0: autograd's gradient of -3w, written as -12w + 1e17w + 9w - 1e17w, is 4."""
    def cancelling(s: Scalars, x: Tensor) -> Tensor:
        y = -12 * s.w + 1e17 * s.w + 9 * s.w - 1e17 * s.w
        return F.relu(s.w) - F.relu(y.reshape(1, 1)).reshape(1)

    right = Scalars(lambda s, x: F.relu(s.w) - F.relu(-3 * s.w), w=[0.0])
    assert judge(list(right.parameters()), lambda: right(ONE).sum()).verdict is Verdict.OUTSIDE, "the case must be a trap"
    step = _step(Scalars(cancelling, w=[0.0]), torch.sum)
    assert step.verdict == "uncertified", f"{step.theorem}, up to rounding: {step.up_to_rounding}"


class Centred(nn.Module):
    """relu(u - mean of u over the samples), u = <w, x>."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(1, 2))

    def forward(self, x: Tensor) -> Tensor:
        u = F.linear(x, self.w)
        return F.relu(u - u.mean(0))


def test_a_row_is_no_better_known_than_the_sums_it_came_from() -> None:
    """relu(y) - relu(-y) = y, where AD gives 0: a micro-batch, and its opposite in another order.

    In float32 autograd's rows are (1.8001, -1.79999) and (-1.7999, 1.8001); the first one's opposite is off by 1e-4.
    """
    x, order = torch.tensor([[2998.0, 3002], [2998, 3000], [3003, 2998], [2998, 3000], [3002, 3001]]), [4, 3, 0, 1, 2]

    def value(model: Callable[[Tensor], Tensor]) -> Tensor:
        return (model(x)[0] - model(-x[order])[order.index(0)]).sum()

    model = Centred()
    assert judge(list(model.parameters()), lambda: value(model)).verdict is Verdict.OUTSIDE, "the case must be a trap"
    checked = fxcheck.instrument(model, (x,))
    with checked.step() as step:
        value(checked).backward()
    assert [layer.touched for layer in step.layers] == [2]
    assert step.verdict == "uncertified", f"{step.theorem}, up to rounding: {step.up_to_rounding}"


class CentredTwice(nn.Module):
    """relu(y) - relu(-y) + |w + 1|, y of the first sample, -y from the opposite samples in another order."""

    def __init__(self, order: list[int]) -> None:
        super().__init__()
        self.centred, self.order = Centred(), order

    def forward(self, x: Tensor) -> Tensor:
        first = self.order.index(0)
        opposite = self.centred(-x[self.order])[first : first + 1]
        return self.centred(x)[:1].sum() - opposite.sum() + (self.centred.w + 1).abs().sum()


def test_rows_that_are_not_written_out_are_no_better_known_than_the_sums_they_came_from() -> None:
    """As above, in one forward: two rows that are opposite but for rounding, looked at while its graph lives."""
    x = torch.tensor([[3001.0, 3001], [3001, 3002], [3002, 3003], [3000, 3001], [3000, 2999]])
    model = CentredTwice([2, 0, 4, 1, 3])
    assert judge(list(model.parameters()), lambda: model(x)).verdict is Verdict.OUTSIDE, "the case must be a trap"
    checked = fxcheck.instrument(model, (x,))
    with checked.step() as step:
        checked(x).backward()
    assert sum(layer.touched for layer in step.layers) == 2
    assert step.verdict == "uncertified", f"{step.theorem}, up to rounding: {step.up_to_rounding}"


HARDLY_HELD = Plan(shapes=((1, 2),),
     steps=(Step(name='v0', op='linear', on=('x0',), args=(2, True), of=''),
            Step(name='v1', op='scale', on=('v0',), args=(-1,), of=''),
            Step(name='v2', op='relu', on=('v1',), args=(), of=''),
            Step(name='v4', op='scale', on=('v0',), args=(-1000000.0,), of=''),
            Step(name='v5', op='flip', on=('v4',), args=(1,), of=''),
            Step(name='v6', op='abs', on=('v5',), args=(), of=''),
            Step(name='v7', op='scale', on=('v6',), args=(-1e-06,), of=''),
            Step(name='v9', op='abs', on=('v0',), args=(), of=''),
            Step(name='v10', op='scale', on=('v9',), args=(1e-06,), of=''),
            Step(name='v11', op='add', on=('v2', 'v7'), args=(-1,), of=''),
            Step(name='v12', op='add', on=('v11', 'v10'), args=(1,), of='')),
     data=(-1, 0, 1),
     weights=(-1, 0, 0, 1),
     forwards=1,
     frozen=(),
     left_out=(),
     loss='',
     dtype='float32',
     one_sample=False,
     exact_ties=False,
     beside='',
     unused=0)

AT = Point(parameters={'v0.bias': [1.0, 0.0], 'v0.weight': [[0.0, 0.0], [0.0, 0.0]]},
      inputs=(([[0.0, 1.0]],),),
      ends=([[-1.0, 1.0]],),
      seed=0)


def test_a_term_that_float32_hardly_holds_is_not_taken_for_rounding() -> None:
    """1e-6 |v|, whose slope AD has at neither end, beside a term of slope 1: eight units of roundoff, and not nothing."""
    found = outcome(HARDLY_HELD, AT)
    assert not found.has_failed, found


class Small(nn.Module):
    """A function of u = <w, x> / 2**15, averaged over positions, and of a copy of -u."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor], dtype: torch.dtype) -> None:
        super().__init__()
        self.w, self.function = nn.Parameter(torch.zeros(1, 2, dtype=dtype)), function

    def forward(self, x: Tensor) -> Tensor:
        u = F.linear(x, self.w).mean(1) * 2.0**-15
        return self.function(u, F.linear(-u, torch.ones(1, 1, dtype=u.dtype)))


def _maxima(u: Tensor, v: Tensor) -> Tensor:
    return torch.cat([u, v], 1).max(1).values - torch.cat([v, u], 1).max(1).values


@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("function", [lambda u, v: F.relu(u) - F.relu(v), _maxima], ids=["relu", "max"])
def test_a_gradient_that_is_too_small_for_its_dtype_is_not_zero(
    function: Callable[[Tensor, Tensor], Tensor], samples: int
) -> None:
    """Each of 1024 positions has half of the smallest number of float16; under a scaled loss backward has more."""
    wide, few = Small(function, torch.float64), torch.ones(samples, 2, 2, dtype=torch.float64)
    assert judge([wide.w], lambda: wide(few).sum() * 2.0**14).verdict is Verdict.OUTSIDE, "the case must be a trap"
    model, x = Small(function, torch.float16), torch.ones(samples, 1024, 2, dtype=torch.float16)
    checked = fxcheck.instrument(model, (x,))
    with checked.step() as step:
        (checked(x).float().sum() * 2.0**14).backward()
    assert step.verdict == "uncertified", f"{step.theorem}, up to rounding: {step.up_to_rounding}"


def test_a_touched_relu_behind_the_max_whose_picks_are_mixed() -> None:
    """Its row is that of the pick: -2 |w| + 3 relu(-w), where AD gives 0."""
    plan = Plan(
        ((1, 1, 6),),
        (
            Step("v0", "conv", ("x0",), (1, 1, 1, 0, False)),
            Step("v1", "max_pool", ("v0",), (3, 1)),
            Step("v2", "relu", ("v1",), ()),
            Step("v3", "flip", ("v2",), (2,)),
            Step("v4", "max_pool", ("v3",), (2, 1, 1)),
        ),
    )
    point = Point({"v0.weight": [[[0]]]}, (([[[-1, -1, -1, -1, 1, 1]]],),), ([[-2, -2, 2, 2, 1]],))
    found = outcome(plan, point)
    assert not found.has_failed and found.verdict == "uncertified", found


@pytest.mark.parametrize("frozen", [False, True])
def test_slopes_of_a_prelu_that_is_not_trained_are_not_those_that_were_measured(frozen: bool) -> None:
    """3 |w| - 2 |w| by two PReLUs of slope -1 behind one of slope 1: AD gives -5, the slopes are -1 and 1."""
    apart, together = torch.tensor([[1.0, -1.0]], dtype=torch.float64), torch.tensor([[3.0], [-2.0]], dtype=torch.float64)

    class Slopes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.zeros(1, 1, dtype=torch.float64))
            self.one, self.minus = (
                nn.Parameter(t, requires_grad=False) if frozen else nn.Buffer(t) for t in (ONE.reshape(1), -ONE.reshape(1))
            )

        def forward(self, x: Tensor) -> Tensor:
            return F.prelu(F.prelu(x @ self.w, self.one) @ apart, self.minus) @ together

    model, x = Slopes(), torch.ones(1, 1, dtype=torch.float64)
    assert judge([model.w], lambda: model(x).sum()).verdict is Verdict.OUTSIDE
    checked = fxcheck.instrument(model, (x,))
    with checked.step() as step:
        checked(x).sum().backward()
    assert step.verdict == "uncertified"


def test_a_clamp_that_broadcasts_its_operand_between_equal_bounds() -> None:
    """It is constant, and AD returns slope 1; no reduction is at work, although the result has another shape."""
    assert_not_certified(Scalars(lambda s, x: (s.w * x).sum().clamp(ONE, ONE), w=1.0))


@pytest.mark.parametrize(("low", "high"), [([-1.0, -1.0], [1.0, 1.0]), ([float("-inf")], [0.0])])
def test_a_clamp_by_tensors_gives_a_verdict(low: list[float], high: list[float]) -> None:
    bounds = [torch.tensor(b, dtype=torch.float64) for b in (low, high)]
    assert _step(Scalars(lambda s, x: (s.w * x).clamp(*bounds), w=0.0), torch.sum).verdict in ("certified", "uncertified")


def test_a_clamp_whose_lower_bound_is_the_higher_one_has_no_kink_there() -> None:
    """w - 1 by two ReLUs, where AD gives 0: with slopes 0 and 1 of the clamp, which is constant, 0 is a mixture."""
    low, high = torch.tensor([1.0, -1.0], dtype=torch.float64), torch.tensor([-1.0, 1.0], dtype=torch.float64)

    def value(s: Scalars, x: Tensor) -> Tensor:
        y = s.w * x
        return F.relu(y - 1)[:1] - F.relu(1 - y)[:1] - 2 * y.clamp(low, high)[:1]

    assert_not_certified(Scalars(value, w=[1.0, 0.0]))
