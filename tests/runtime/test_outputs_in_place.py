"""A training loop may write into an output, or differentiate it twice: what reaches it is seen all the same."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fxcheck

D = torch.float64
ONE = torch.ones(1, 1, dtype=D)


class OneNeuron(nn.Module):
    """c relu(w x), a view or not."""

    def __init__(self, is_view: bool) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(1, dtype=D))
        self.is_view = is_view

    def forward(self, x: Tensor) -> Tensor:
        y = 2 * torch.relu(x * self.w)
        return y.squeeze(-1) if self.is_view else y


class TwoOutputs(nn.Module):
    """relu(w x) and relu(-w x)."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(1, dtype=D))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return 1 * torch.relu(x * self.w), 1 * torch.relu(-x * self.w)


def _one_of_two_forwards(checked: Any) -> Tensor:
    y, z = checked(ONE) / 2, checked(-ONE)
    z /= -2
    return y + z


def _the_first_of_two_forwards(checked: Any) -> Tensor:
    y = checked(ONE)
    y -= checked(-ONE)
    return y / 2


def _one_of_two_outputs(checked: Any) -> Tensor:
    y, z = checked(ONE)
    z *= -1
    return y + z


@pytest.mark.parametrize(("model", "loss"), [
    (OneNeuron(True), _one_of_two_forwards), (OneNeuron(False), _one_of_two_forwards),
    (OneNeuron(True), _the_first_of_two_forwards), (OneNeuron(False), _the_first_of_two_forwards),
    (TwoOutputs(), _one_of_two_outputs),
])  # fmt: skip
def test_relu_minus_relu_of_outputs_written_in_place_is_not_certified(model: nn.Module, loss: Callable[[Any], Tensor]) -> None:
    """The loss is w, its slope 1, and AD says 0."""
    checked = fxcheck.instrument(model, (ONE,))
    for _ in range(2):
        model.zero_grad()
        with checked.step() as step:
            loss(checked).sum().backward()
        assert step.verdict == "uncertified" and model.w.grad.tolist() == [0.0]


@pytest.mark.parametrize("bias", [True, False])
def test_what_is_not_finite_is_seen_past_an_output_written_in_place(bias: bool) -> None:
    model, x = nn.Sequential(nn.Linear(2, 3, bias=bias), nn.ReLU(), nn.Linear(3, 1), nn.Flatten(0)), torch.randn(4, 2)
    checked = fxcheck.instrument(model, (x,))
    with checked.step() as step:
        y = checked(x)
        y -= y.detach()
        y.abs().sqrt().sum().backward()
    assert step.verdict == "uncertified" and "NaN" in step.text


def test_an_output_written_in_place_leaves_directions_standing() -> None:
    model, x = nn.Sequential(nn.Linear(2, 3, bias=False), nn.ReLU(), nn.Linear(3, 1), nn.Flatten(0)), torch.randn(4, 2)
    checked = fxcheck.instrument(model, (x,))
    with checked.step() as step:
        y = checked(x)
        y -= 1.0
        y.square().mean().backward()
    assert (step.verdict, step.theorem) == ("certified", "T5")


@pytest.mark.parametrize("through", [torch.ones_like, lambda y: None])
def test_a_penalty_on_the_slope_by_the_input_is_not_certified(through: Callable[[Tensor], Tensor | None]) -> None:
    """relu(w x) for w x = 0: the loss jumps, since it holds a slope; what arrives at the output is a constant."""
    model, x = nn.Sequential(nn.Linear(2, 1, bias=False), nn.ReLU()).double(), torch.ones(1, 2, dtype=D, requires_grad=True)
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, -1.0]]))
    checked = fxcheck.instrument(model, (x,))
    with checked.step() as step:
        y = checked(x).sum() if through(x) is None else checked(x)
        (slope,) = torch.autograd.grad(y, x, through(y), create_graph=True)
        (slope.square().sum() - 1).square().backward()
    assert step.verdict == "uncertified" and "create_graph" in step.text


@pytest.mark.parametrize("bias", [True, False])
def test_many_gradients_at_once_are_none_of_the_step(bias: bool) -> None:
    """As ``torch.autograd.functional.jacobian(..., vectorize=True)`` sends them."""
    model, x = nn.Sequential(nn.Linear(2, 3, bias=bias), nn.ReLU(), nn.Linear(3, 2)), torch.randn(4, 2)
    checked = fxcheck.instrument(model, (x,))
    for _ in range(2):
        with checked.step() as step:
            y = checked(x)
            units = torch.eye(8).view(8, 4, 2)
            (rows,) = torch.autograd.grad(y, model[0].weight, units, retain_graph=True, is_grads_batched=True)
            y.square().mean().backward()
            checked(x)
        assert step.verdict == "certified" and rows.shape == (8, 3, 2)


@pytest.mark.parametrize("forwards", [1, 2])
def test_a_step_leaves_nothing_to_the_garbage_collector(forwards: int) -> None:
    """Batches and gradients of steps that are over are free as soon as the training loop lets them go."""
    model = nn.Sequential(nn.Linear(2, 3, bias=False), nn.ReLU(), nn.Linear(3, 1))
    checked = fxcheck.instrument(model, (torch.randn(4, 2),))
    seen: list[weakref.ref[Tensor]] = []
    gc.collect()
    gc.disable()
    try:
        for _ in range(4):
            with checked.step():
                for _ in range(forwards):
                    x = torch.randn(4, 2)
                    checked(x).square().mean().backward()
                    seen.append(weakref.ref(x))
            seen += [weakref.ref(p.grad) for p in model.parameters() if p.grad is not None]
            model.zero_grad()
        with checked.step():
            x = torch.randn(4, 2)
            checked(x).square().mean().backward()
        assert sum(held() is not None for held in seen) == 0
    finally:
        gc.enable()


class WithScale(nn.Module):
    """Returns a parameter beside its scores."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.scale = nn.Linear(2, 1), nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"scores": self.layer(x), "scale": self.scale}


@pytest.mark.parametrize("with_kink", [False, True])
def test_a_parameter_that_is_returned_gets_no_hook(with_kink: bool) -> None:
    model, x = WithScale(), torch.randn(4, 2)
    if with_kink:
        model.layer = nn.Sequential(nn.Linear(2, 3, bias=False), nn.ReLU(), nn.Linear(3, 1))
    checked = fxcheck.instrument(model, (x,))
    for _ in range(3):
        model.zero_grad()
        with checked.step() as step:
            found = checked(x)
            (found["scores"].square().mean() * found["scale"].exp().sum()).backward()
        assert step.verdict == "certified" and model.scale.grad is not None and not model.scale._backward_hooks
    assert len(checked._programs) == 1


class Complex(nn.Module):
    """A square root of a complex parameter times 0: its slope is infinite along the imaginary axis."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(2, dtype=torch.complex64))
        self.b = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.w.imag[:, None] + torch.relu(self.b)


def test_infinity_in_the_imaginary_part_of_a_gradient_is_seen() -> None:
    model, x = Complex(), torch.ones(1, 2)
    checked = fxcheck.instrument(model, (x,))
    with checked.step() as step:
        (checked(x).sum() * 3e38 + checked(x).sum() * 3e38).backward()
    assert step.verdict == "uncertified"


@pytest.mark.parametrize("image", [torch.ones(1, 1, 6, 6), torch.randn(1, 1, 6, 6)])
def test_inputs_whose_signs_are_not_in_memory(image: Tensor) -> None:
    x = torch.complex(torch.zeros_like(image), -image).conj().imag
    model = nn.Sequential(nn.Conv2d(1, 2, 3, bias=False), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 1))
    assert x.is_neg() and torch.equal(x, image)
    checked = fxcheck.instrument(model, (x,))
    for _ in range(2):
        with checked.step() as step:
            checked(x).sum().backward()
        assert step.verdict == "certified"


class Graph(nn.Module):
    """A layer between two looks at the neighbours, with a fixed sparse adjacency."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 2)
        self.register_buffer("adjacency", torch.eye(5).to_sparse())

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.sparse.mm(self.adjacency, torch.relu(self.first(x))))


def test_sparse_buffers_end_in_an_answer() -> None:
    try:
        report = fxcheck.analyze(Graph(), (torch.randn(5, 3),))
    except fxcheck.FxcheckError as error:
        assert "sparse" in str(error).lower()
    else:
        assert report.verdict in ("certified", "runtime", "uncovered")


class Coded(nn.Module):
    """As an autoencoder may name its codes."""

    def __init__(self, code: Any) -> None:
        super().__init__()
        self.layer, self.code = nn.Linear(2, 2, bias=False), code

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.layer(x)) * (self.code(x) if isinstance(self.code, nn.Module) else self.code)


@pytest.mark.parametrize("code", [nn.Linear(2, 2), nn.Parameter(torch.ones(2))])
def test_names_that_torch_fx_uses_are_refused_in_words(code: Any) -> None:
    model = Coded(code)
    with pytest.raises(fxcheck.UncoveredModel, match="'code'"):
        fxcheck.instrument(model, (torch.randn(3, 2),), allow_uncovered=True)


class _Halves(nn.Module):
    """Mean and scale, as encoders return them."""

    def __init__(self, kinked: bool) -> None:
        super().__init__()
        self.layer, self.kinked = nn.Linear(3, 4, bias=not kinked), kinked

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        y = self.layer(x)
        return (y.relu() if self.kinked else y).chunk(2, dim=-1)


@pytest.mark.parametrize("used", [0, 1])
@pytest.mark.parametrize("kinked", [False, True])
def test_one_of_several_outputs_of_an_operator_may_get_no_gradient(kinked: bool, used: int) -> None:
    checked = fxcheck.instrument(_Halves(kinked), (torch.randn(5, 3),))
    for _ in range(2):  # the second step expects several forwards
        with checked.step() as step:
            for _ in range(2):
                checked(torch.randn(5, 3))[used].sum().backward()
        assert step.verdict == "certified", step.text


def test_the_last_state_of_an_lstm_alone() -> None:
    checked = fxcheck.instrument(nn.LSTM(3, 3), (torch.randn(5, 2, 3),))
    with checked.step() as step:
        _, (h, _) = checked(torch.randn(5, 2, 3))
        h.sum().backward()
    assert step.verdict == "certified"
