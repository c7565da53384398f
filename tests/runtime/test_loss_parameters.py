"""A loss with parameters of its own, called as those of the model are: each of them counts as itself."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import fxcheck
from tests.runtime.models import Scalars
from tests.soundness.oracle import Verdict, judge

ONE = torch.ones(1, dtype=torch.float64)


def _wrong(w: Tensor, x: Tensor) -> Tensor:
    """relu(w) - relu(-w) = w, where AD gives 0 at 0."""
    return torch.relu(w * x) - torch.relu((-w * x).reshape(1, 1)).reshape(1)


def _loss() -> Scalars:
    return Scalars(lambda s, out: out.sum() * s.w, w=1.0)


def _plain() -> tuple[nn.Module, nn.Parameter]:
    model = Scalars(lambda s, x: _wrong(s.w, x), w=0.0)
    return model, model.w


def _with_a_child_called_loss() -> tuple[nn.Module, nn.Parameter]:
    model = Scalars(lambda s, x: _wrong(s.loss.w, x))
    model.loss = Scalars(lambda s: s.w, w=0.0)
    return model, model.loss.w


@pytest.mark.parametrize("build", [_plain, _with_a_child_called_loss])
@pytest.mark.parametrize("which", ["all", "the model's", "both"])
def test_a_parameter_of_the_loss_does_not_stand_for_one_of_the_model(build, which: str) -> None:
    (model, w), loss = build(), _loss()
    assert judge([w], lambda: loss(model(ONE))).verdict is Verdict.OUTSIDE
    wrt = {"all": None, "the model's": [w], "both": [w, loss.w]}[which]
    checked = fxcheck.instrument(model, (ONE,), loss=loss, wrt=wrt)
    assert [id(p) for p in checked.updated] == [id(p) for p in ([w] if which == "the model's" else [w, loss.w])]
    with checked.step() as step:
        checked.loss(ONE).backward()
    assert step.verdict == "uncertified"


def test_the_parameters_of_the_loss_alone() -> None:
    (model, _), loss = _plain(), _loss()
    checked = fxcheck.instrument(model, (ONE,), loss=loss, wrt=[loss.w])
    with checked.step() as step:
        checked.loss(ONE).backward()
    assert step.verdict == "certified" and checked.updated == (loss.w,)
