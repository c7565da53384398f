"""Inputs that share memory: what the forward writes into one of them is read through the other."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import fxcheck
from tests.runtime.models import Scalars
from tests.soundness.oracle import Verdict, judge

ZERO = torch.zeros(1, dtype=torch.float64)


def _through_another_input(s: Scalars, x: Tensor, y: Tensor) -> Tensor:
    x.copy_(s.w)
    return torch.relu(y) - torch.relu(-y)


def _scaled(s: Scalars, x: Tensor, y: Tensor) -> Tensor:
    x.add_(1).mul_(s.w)
    return torch.relu(y) - torch.relu(-y)


def _only_read(s: Scalars, x: Tensor, y: Tensor) -> Tensor:
    return torch.relu(s.w + x) + y


def _twice(x: Tensor) -> tuple[Tensor, Tensor]:
    return x, x


def _view(x: Tensor) -> tuple[Tensor, Tensor]:
    return x, x.view(-1)


@pytest.mark.parametrize("function", [_through_another_input, _scaled])
@pytest.mark.parametrize("inputs", [_twice, _view])
def test_a_write_that_is_read_through_another_input_leaves_the_step_undecided(
    function: Callable[..., Tensor], inputs: Callable[[Tensor], tuple[Tensor, Tensor]]
) -> None:
    model = Scalars(function, w=[0.0])
    assert judge([model.w], lambda: model(*inputs(ZERO.clone())).sum()).verdict is Verdict.OUTSIDE
    checked = fxcheck.instrument(model, (ZERO.clone(), ZERO.clone()))
    with checked.step() as step:
        checked(*inputs(ZERO.clone())).sum().backward()
    assert step.verdict == "uncertified" and "wrote into an input" in step.text


@pytest.mark.parametrize("function, inputs", [(_only_read, _twice), (_through_another_input, lambda x: (x, x.clone()))])
def test_inputs_that_are_only_read_or_lie_apart_are_certified(
    function: Callable[..., Tensor], inputs: Callable[[Tensor], tuple[Tensor, Tensor]]
) -> None:
    checked = fxcheck.instrument(Scalars(function, w=[0.0]), (ZERO.clone(), ZERO.clone()))
    with checked.step() as step:
        checked(*inputs(ZERO.clone())).sum()
    assert step.verdict == "certified"
