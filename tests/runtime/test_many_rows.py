"""Rows that are not written out: how well they are known, and what a look at them costs."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import fxcheck
from fxcheck.records.system import Outcome
from fxcheck.runtime.joint_rows import Reading, Rows
from fxcheck.runtime.many_rows import ManyRows, Unclear
from fxcheck.runtime.operands import Entries, Operand
from fxcheck.runtime.scene import Budget

_Operation = tuple[str, Tensor, Tensor]


def _cancelling(generator: torch.Generator, size: int) -> list[_Operation]:
    """Operations of a linear function of ``size`` numbers in which large terms cancel."""
    found = []
    for _ in range(int(torch.randint(2, 5, (), generator=generator))):
        name = ("large sum", "pair", "mean")[int(torch.randint(3, (), generator=generator))]
        matrix = torch.randn(size, size, generator=generator)
        found.append((name, matrix, 10 ** (3 + 4 * torch.rand((), generator=generator))))
    return found


def _applied(operations: Sequence[_Operation], h: Tensor) -> Tensor:
    for name, matrix, large in operations:
        a, b = matrix.to(h.dtype), large.to(h.dtype)
        if name == "large sum":
            h = (a @ h + b * h.sum()) - b * h.sum()
        elif name == "pair":
            h = (a @ h) * b - (a @ h) * (b - 1)
        else:
            h = h * b - (h * b).mean()
    return h


def _graphs(count: int) -> Iterator[tuple[ManyRows, np.ndarray]]:
    """Rows in float32, and the same in float64: (K, P)."""
    generator = torch.Generator().manual_seed(20241128)
    for _ in range(count):
        size, rows = (int(torch.randint(*some, (), generator=generator)) for some in ((4, 10), (2, 5)))
        operations = _cancelling(generator, size)
        entries = torch.randperm(size, generator=generator)[:rows].sort().values
        signs = np.where(torch.rand(rows, generator=generator).numpy() < 0.5, -1.0, 1.0)
        start = torch.randn(size, generator=generator)
        single, double = (start.to(t).requires_grad_() for t in (torch.float32, torch.float64))
        here, there = _applied(operations, single), _applied(operations, double)
        exact = [torch.autograd.grad(there[i], double, retain_graph=True)[0].numpy() for i in entries]
        reading = Reading(Entries(Operand.of(here), entries), np.arange(rows), np.arange(rows), signs)
        looked_at = Rows([reading], ("layer",) * rows, np.zeros(rows, dtype=bool))
        yield ManyRows(looked_at, [single], Budget(time.perf_counter() + 60)), np.stack(exact) * signs[:, None]


def test_a_direction_counts_only_where_it_clears_what_cancellation_lost() -> None:
    """Where large terms cancel, rows of float32 are off by any share of their length, to the wrong sign."""
    held = 0
    for many, exact in _graphs(1500):
        try:
            found = many.decide()
        except Unclear:
            continue
        if found.decision.outcome is Outcome.FEASIBLE and found.system is not None and found.system.rows.shape[1] == 1:
            first, along = many._tangents.pulled[0], found.decision.direction
            assert first is not None and along is not None
            products = exact @ (along[0] * first.double().numpy())
            assert (products > 0).all(), "certified along a direction on which a row is not positive"
            held += 1
    assert held > 50, "the check must hold for rows that are certified, too"


class Elman(nn.Module):
    """A recurrence whose rows start at a bias, with a deep head behind it."""

    def __init__(self, is_subtracted: bool) -> None:
        super().__init__()
        self.is_subtracted = is_subtracted
        self.into, self.along, self.head = nn.Linear(3, 8), nn.Linear(8, 8, bias=False), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        state = torch.zeros(len(x), 8)
        for t in range(x.shape[1]):
            read, held = self.into(x[:, t]), self.along(state)
            state = torch.relu(read - held if self.is_subtracted else read + held)
        return self.head(state)


def _touched_twice(is_subtracted: bool) -> tuple[Elman, Tensor]:
    """Two units on their kinks in the first samples: the step has two rows."""
    torch.manual_seed(3)
    model, x = Elman(is_subtracted), torch.randn(4, 5, 3)
    with torch.no_grad():
        model.into.bias.zero_()
        x[0, 0] = 0.0
        model.into.bias[2:] += 0.5
    return model, x


@pytest.mark.parametrize(("is_subtracted", "passes"), [(False, []), (True, [[(8,)], [(4, 8)]])])
def test_rows_of_a_recurrence_take_two_passes_by_one_bias_or_none(
    is_subtracted: bool, passes: list[list[tuple[int, ...]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One pass with a graph, one along it; what rounding did is seen from the two, and no weight is differentiated by. Where
    nothing but dense layers lies between, rows are written out."""
    model, x = _touched_twice(is_subtracted)
    checked = fxcheck.instrument(model, (x,))
    by: list[list[tuple[int, ...]]] = []
    grad = torch.autograd.grad

    def counted(outputs: Sequence[Tensor], inputs: Sequence[Tensor], *rest: object, **more: object) -> object:
        by.append([tuple(t.shape) for t in inputs])
        return grad(outputs, inputs, *rest, **more)

    monkeypatch.setattr(torch.autograd, "grad", counted)
    with checked.step() as step:
        checked(x).square().sum().backward()
    assert (step.verdict, step.theorem, step.subdifferential) == ("certified", "joint", "bouligand")
    assert sum(layer.constraints for layer in step.layers) == 2
    assert by == passes


class Mirrored(nn.Module):
    """Two rows that are opposite on the bias that both start at, and not on the weights."""

    def __init__(self) -> None:
        super().__init__()
        self.into = nn.Linear(2, 1)
        with torch.no_grad():
            self.into.weight.copy_(torch.tensor([[2.0, -1.0]]))
            self.into.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        first = torch.relu(self.into(x))
        return torch.relu(-self.into(torch.cat([first, first])))


def test_where_near_biases_do_not_serve_all_parameters_do() -> None:
    model, x = Mirrored(), torch.tensor([1.0, 2.0])
    checked = fxcheck.instrument(model, (x,))
    with checked.step() as step:
        checked(x).sum().backward()
    assert sum(layer.touched for layer in step.layers) == 2
    assert (step.verdict, step.theorem, step.subdifferential) == ("certified", "joint", "bouligand")
