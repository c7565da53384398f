"""What a dtype cannot hold: bounds and exact forms are those of the numbers that are computed (theory 4.1, 4.7)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fxcheck import analyze

CLAIMS = ("certified", "smooth")


class _Net(nn.Module):
    """A function of three weights, some biases and inputs."""

    def __init__(self, function: Callable[..., Tensor], biases: int = 2, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.w, self.b = nn.Parameter(torch.zeros(3, dtype=dtype)), nn.Parameter(torch.zeros(biases, dtype=dtype))
        self.function = function

    def forward(self, x: Tensor, *more: Tensor) -> Tensor:
        return self.function(self, x, *more)


def _x(samples: int = 1, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(samples, 3, dtype=dtype, generator=torch.Generator().manual_seed(0))


def _by_a_factor(factor: Callable[..., Any]) -> Callable[..., Tensor]:
    """relu(z + kb) - relu(-z + kc): z, where AD says 0, if k is 0."""

    def function(s: _Net, x: Tensor, *more: Tensor) -> Tensor:
        z = x @ s.w
        y = F.relu(torch.stack([z, -z], 1) + factor(*more) * s.b)
        return y[:, 0] - y[:, 1]

    return function


def _by_a_sign(factor: Callable[..., Any]) -> Callable[..., Tensor]:
    """relu(z + b) - relu(-z + kb): z + b, where AD says 0, if k is -1."""

    def function(s: _Net, x: Tensor, *more: Tensor) -> Tensor:
        z = x @ s.w
        y = F.relu(torch.stack([z + s.b, -z + factor(*more) * s.b], 1))
        return y[:, 0] - y[:, 1]

    return function


FACTORS: dict[str, tuple[Callable[..., Any], Tensor]] = {
    "uint16": (lambda n: n.clamp(min=1).to(torch.uint16).double()[:, None], torch.tensor([65536])),
    "uint32": (lambda n: n.clamp(min=1).to(torch.uint32).double()[:, None], torch.tensor([2**32])),
    "a norm of nothing": (lambda n: torch.linalg.vector_norm(torch.ones(0, dtype=torch.float64)), torch.zeros(1)),
    "masked log_softmax": (lambda m: torch.log_softmax(torch.cat([m, 0 * m[:, :1]], 1), 1)[:, :2].exp(), torch.randn(1, 2)),
    "a sigmoid written out": (lambda m: torch.reciprocal((-m).exp() + 1), torch.randn(1, 2)),
    "a logsigmoid written out": (lambda m: (-F.softplus(-m)).exp(), torch.randn(1, 2)),
    "minus a relu": (lambda m: (-F.relu(-m)).exp(), torch.randn(1, 2)),
    "one over a softplus": (lambda m: 1 / (1 + F.softplus(-m)), torch.randn(1, 2)),
    "a root of it": (lambda m: torch.rsqrt(F.softplus(-m) + 1), torch.randn(1, 2)),
    "the largest of a mask": (lambda m: m.amax(1, keepdim=True).exp(), torch.randn(1, 2)),
    "the largest so far": (lambda m: m.cummax(1)[0].exp(), torch.randn(1, 2)),
    "dropout of a mask": (lambda m: F.dropout(m, 0.1).exp(), torch.randn(1, 2)),
}


@pytest.mark.parametrize("name", FACTORS)
def test_a_factor_that_may_be_zero_moves_nothing(name: str) -> None:
    factor, more = FACTORS[name]
    assert analyze(_Net(_by_a_factor(factor)), (_x(), more)).verdict not in CLAIMS


def test_a_factor_that_is_positive_moves() -> None:
    for factor in (lambda m: (m * m + 1), lambda m: m.square().neg().exp(), lambda m: torch.full((), 0.5, dtype=torch.float16)):
        assert analyze(_Net(_by_a_factor(factor)), (_x(), torch.randn(1, 2))).verdict in CLAIMS


TINY: dict[str, Callable[..., Tensor]] = {
    "a factor": _by_a_factor(lambda: 1e-60),
    "a divisor": _by_a_factor(lambda: 1 / torch.full((), 1e30) / 1e60),
    "a positive factor": _by_a_factor(lambda: torch.randn(1, 2).square().add(1.0).mul(1e-60)),
}


@pytest.mark.parametrize("name", TINY)
def test_numbers_that_the_dtype_holds_as_zero(name: str) -> None:
    assert analyze(_Net(TINY[name], dtype=torch.float32), (_x(dtype=torch.float32),)).verdict not in CLAIMS


def test_a_scale_that_the_dtype_holds_as_zero() -> None:
    def function(s: _Net, x: Tensor) -> Tensor:
        z = x @ s.w
        y = F.relu(torch.add(torch.stack([z, -z], 1), s.b.expand(1, 2), alpha=1e-60))
        return y[:, 0] - y[:, 1]

    assert analyze(_Net(function, dtype=torch.float32), (_x(dtype=torch.float32),)).verdict not in CLAIMS


SIGNS: dict[str, Callable[[Tensor], Tensor]] = {
    "a number as a truth value": lambda n: n.clamp(min=3).bool().double() + -2,
    "a sum of truth values": lambda n: ((n.clamp(min=1).bool() + n.clamp(min=1).bool()).double() + -1.5) * 2,
    "a bound rounded to half": lambda n: (n.double().clamp(min=0.1).half().double() + -0.09999) * 70000.0,
}


@pytest.mark.parametrize("name", SIGNS)
def test_a_factor_that_may_be_negative_is_not_positive(name: str) -> None:
    assert analyze(_Net(_by_a_sign(SIGNS[name]), biases=1), (_x(), torch.tensor([5]))).verdict not in CLAIMS


def test_minus_one_of_eight_bits_is_large() -> None:
    model = _Net(lambda s, x, u: torch.clamp(x @ s.w + s.b, -(u.clamp(min=1)), torch.full((1,), 255.0)), biases=1)
    assert analyze(model, (_x(), torch.tensor([1], dtype=torch.uint8))).verdict not in CLAIMS


WRITES: dict[str, Callable[[Tensor], Tensor]] = {
    "one row": lambda h: h.index_put((torch.tensor([1]),), torch.zeros((), dtype=h.dtype)),
    "the last row": lambda h: h.index_put((torch.tensor([-1]),), torch.zeros((), dtype=h.dtype)),
    "as many as there are": lambda h: h.index_put((torch.ones(1, dtype=torch.long),), torch.zeros((), dtype=h.dtype)),
}


@pytest.mark.parametrize("name", WRITES)
def test_a_write_by_number_is_no_write_by_mask(name: str) -> None:
    """relu(h0) - relu(h2) = h0 where the last sample is minus the first one; row 1 is set to 0."""

    def function(s: _Net, x: Tensor) -> Tensor:
        y = F.relu(WRITES[name](x @ s.w[:, None]))
        return y[0] - y[2]

    assert analyze(_Net(function), (_x(3),)).verdict not in CLAIMS


def test_a_write_in_place_by_a_list() -> None:
    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lin = nn.Linear(3, 2, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            h = self.lin(x).clone()
            h[[1]] = 0.0
            return F.relu(h)

    assert analyze(InPlace(), (torch.randn(3, 3),)).verdict not in CLAIMS


def _truncated(y: Tensor) -> Tensor:
    k = torch.ones_like(y, dtype=torch.long).masked_fill(y > 0, 1.5)
    return torch.where(y > 0, k * 2 * y, 3 * y)


def _two_in_a_bool(y: Tensor) -> Tensor:
    k = (y > -5).masked_fill(y > 0, 2)
    return torch.where(y > 0, k * y, 2 * y)


def _wrapped(y: Tensor) -> Tensor:
    k = torch.where(y > 0, torch.full((), 300, dtype=torch.int64), torch.ones((2,), dtype=torch.uint8))
    return torch.where(y > 0, k * y, 300 * y)


def _compared_in_eight_bits(y: Tensor) -> Tensor:
    k = torch.where(y > 0, torch.full((2,), 50, dtype=torch.uint8), torch.full((2,), 10, dtype=torch.uint8))
    return torch.where(k < 300, 3 * y, 2 * y)


def _clipped(y: Tensor) -> Tensor:
    return torch.where(y > 0, F.hardtanh((y > 0) * 5, -1.5, 2.5) * y, 2.5 * y)


def _threshold(y: Tensor) -> Tensor:
    return torch.where(y > 0, 1.7 * y, F.threshold((y > 0) * 1, 0.5, 1.7) * y)


@pytest.mark.parametrize("f", [_truncated, _two_in_a_bool, _wrapped, _compared_in_eight_bits, _clipped, _threshold])
def test_exact_forms_hold_what_their_dtype_holds(f: Callable[[Tensor], Tensor]) -> None:
    def function(s: _Net, x: Tensor) -> Tensor:
        y = x @ s.w
        return f(y) - f(-y)

    assert analyze(_Net(function), (_x(2),)).verdict not in CLAIMS


INFINITE: dict[str, Callable[[Tensor], Tensor]] = {
    "maximum": lambda w: torch.maximum(w, torch.full((3,), torch.inf)),
    "clamp": lambda w: torch.clamp(w, min=torch.tensor(torch.inf)),
    "fmax": lambda w: torch.fmax(w, torch.full((3,), torch.nan)),
    "clamp at nan": lambda w: torch.clamp(w, min=torch.full((3,), torch.nan)),
    "threshold": lambda w: F.threshold(w, 0.0, torch.inf),
    "threshold at infinity": lambda w: F.threshold(w, torch.inf, 0.0),
    "threshold to nan": lambda w: F.threshold(w, 0.0, torch.nan),
    "leaky_relu": lambda w: F.leaky_relu(w, torch.inf),
    "hardshrink": lambda w: F.hardshrink(w, torch.inf),
    "softshrink": lambda w: F.softshrink(w, 1e300),
    "add": lambda w: torch.add(w, torch.relu(w), alpha=torch.inf),
    "where": lambda w: torch.where(w > 0, w, torch.inf),
    "compared": lambda w: torch.where(w > torch.inf, w, -w),
}


@pytest.mark.parametrize("name", INFINITE)
def test_infinite_constants_have_no_exact_form_and_raise_nothing(name: str) -> None:
    analyze(_Net(lambda s, x: INFINITE[name](s.w) + x), (_x(),))


def test_bounds_that_bound_nothing_are_known() -> None:
    for f in (lambda y: y.clamp(min=-torch.inf), lambda y: y.clamp(-torch.inf, torch.inf)):
        assert analyze(_Net(lambda s, x, f=f: f(x @ s.w)), (_x(),)).verdict == "smooth"
