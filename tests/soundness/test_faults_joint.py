"""Wrong gradients that one rule of deciding a step as a whole keeps from being certified: each kills planted faults."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import fxcheck
from fxcheck.runtime.derivatives import SKETCH
from tests.runtime.models import Scalars
from tests.soundness.families import FAMILIES, Net
from tests.soundness.faults import Fault
from tests.soundness.faults.joint import BY_HAND, FAULTS_OF_JOINT, LABORATORY
from tests.soundness.laboratory import outcome, seed_point
from tests.soundness.oracle import Verdict, judge
from tests.soundness.test_joint_once_wrong import ONE, _absolute_values_in_place, widest

relu = torch.relu
Loss = Callable[[Any], Tensor]


def h(x: Tensor) -> Tensor:
    """The ReLU whose proxy at 0 is 1."""
    return torch.where(x >= 0, x, 0 * x)


def straight(x: Tensor) -> Tensor:
    """x, where AD gives 0 at 0, as two layers that share their parameters."""
    return relu(x) - relu((-x).reshape(1, *x.shape)).reshape(x.shape)


def absolute(x: Tensor) -> Tensor:
    """|x| as a maximum that splits."""
    return torch.maximum(x, -x)


@dataclass(frozen=True)
class Case:
    """A function at parameters where AD is wrong."""

    function: Callable[..., Any]
    parameters: dict[str, Any] = field(default_factory=lambda: {"w": [0.0]})
    x: Tensor = ONE
    losses: Sequence[Loss] = (lambda out: out.sum(),)
    """Each is differentiated by itself."""
    twin: Callable[..., Any] | None = None
    """The same function of fewer parameters, for the oracle."""


def _many(s: Any, x: Tensor) -> Tensor:
    """relu(w x) - relu(-w x) = w x, 80 touches."""
    return (relu(s.w * x) - relu(-(s.w * x))).sum()


def _joint(w: Tensor) -> Tensor:
    """|w + 1|: T8 says nothing about a model with it."""
    return (w + 1).abs().sum()


def _masked(s: Any, x: Tensor) -> Tensor:
    y = F.dropout(s.w * x, 0.5)
    return relu(y[:, :1]) - relu(-y[:, 1:])


def _tied_twins(s: Any, x: Tensor) -> Tensor:
    """max(-w, w, w) - |w| - relu(w) / 2 = -relu(w) / 2, where AD gives a third."""
    return F.conv1d(x, s.w).amax(2) - absolute(s.w[0]) - relu(s.w[0]) / 2


def _discharged(s: Any, x: Tensor) -> Tensor:
    return relu(s.w + s.u) + (s.w + relu(1 + s.u) - 1).clamp(max=0) + relu((-s.w - s.u - 7).reshape(1, 1)).sum()


def _flat(s: Any, x: Tensor) -> Tensor:
    """|w| - 2 relu(w) = -w, where AD gives 0; the pool is tied on the flat part of the ReLU."""
    pooled = F.max_pool1d(relu(torch.cat([s.w * x, -s.w * x]))[None], 2).reshape(-1)
    return pooled - 2 * relu((s.w * x).reshape(1, 1)).reshape(-1)


CASES = {
    "weights that cancel along (1, 1)": Case(
        lambda s, x: (relu(F.linear(x, s.w)) * torch.tensor([[1.0], [-1.0]]).double()).sum() + 0 * s.w.abs().sum(),
        {"w": [[0.0, 0.0]]}, torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).double(),
    ),
    "a gradient of 1e-6": Case(lambda s, x: straight(1e-6 * s.w)),
    "touches of a discharged layer": Case(_discharged, {"w": 0.0, "u": 0.0}),
    "a minimum and a maximum": Case(lambda s, x: torch.stack([s.w, -s.w]).min(0).values + widest(s.w, -s.w)),
    "in place on views": Case(_absolute_values_in_place, {"w": 0.0}),
    "two maxima": Case(lambda s, x: widest(s.w, -s.w) - widest(-s.w, s.w)),
    "amax and a maximum": Case(
        lambda s, x: F.conv1d(x, s.w).amax(2) - F.conv1d(x, s.w).max(2).values,
        {"w": [[[0.0]]]}, torch.tensor([[[1.0, -1.0]]]).double(),
    ),
    "many touches": Case(_many, {"w": 0.0}, torch.arange(1.0, 41.0).double()),
    "rows that vanish on the bias": Case(
        lambda s, x: straight(F.linear(x, s.w)).sum() + s.b.sum() + _joint(s.w), {"w": [[0.0]], "b": [0.0] * 4},
        torch.ones(1, 1).double(),
    ),
    "both sides": Case(lambda s, x: relu(s.w) - h(s.w.reshape(1, 1)).reshape(1) + _joint(s.w)),
    "|2w + |w|| - 2|w| of the operation": Case(
        lambda s, x: (2 * s.w * x + (s.w * x).abs() * x).abs() - 2 * (s.w * x).abs()
    ),
    "|2w + |w|| - 2|w|": Case(lambda s, x: absolute(2 * s.w + absolute(s.w)) - 2 * absolute(s.w)),
    "a pool that is tied at the flat value": Case(_flat),
    "an entry twice under amax": Case(_tied_twins, {"w": [[[0.0]]]}, torch.tensor([[[-1.0, 1.0, 1.0]]]).double()),
    "two outputs": Case(
        lambda s, x: (absolute(2 * s.w + absolute(s.w)), absolute(s.w)), losses=(lambda out: (out[0] - 2 * out[1]).sum(),)
    ),
    "two backward passes": Case(
        lambda s, x: torch.stack([absolute(2 * s.w + absolute(s.w)), absolute(s.w)]),
        losses=(lambda out: out[0].sum(), lambda out: -2 * out[1].sum()),
    ),
    "1 beside 1e12": Case(lambda s, x: 1e12 * (s.u * x).abs() + straight(s.w * x), {"w": [0.0], "u": [0.0]}),
    "dropout": Case(_masked, {"w": 0.0}, torch.ones(1, 2).double()),
    "gradients that share a coordinate of a sketch": Case(
        lambda s, x: torch.maximum(straight(s.w[:1]), s.w[SKETCH : SKETCH + 1]), {"w": [0.0] * (SKETCH + 8)},
        twin=lambda s, x: torch.maximum(straight(s.w[:1]), s.w[1:]),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_wrong_gradient_is_not_certified(name: str) -> None:
    case = CASES[name]
    plain = Scalars(case.function, **case.parameters)
    if case.twin is not None:
        plain = Scalars(case.twin, w=[0.0, 0.0])

    def value() -> Tensor:
        torch.manual_seed(39)  # two entries that dropout keeps; the next two times it drops the second
        out = plain(case.x)
        return torch.stack([loss(out) for loss in case.losses]).sum()

    assert judge(list(plain.parameters()), value).verdict is Verdict.OUTSIDE, "the case must be a trap"
    checked = fxcheck.instrument(Scalars(case.function, **case.parameters), (case.x,))
    torch.manual_seed(39)
    with checked.step() as step:
        out = checked(case.x)
        for loss in case.losses:
            loss(out).backward(retain_graph=True)
    assert step.verdict == "uncertified", f"{step.theorem}, {step.subdifferential}"


OF_THE_LABORATORY = tuple(f.killer[len(LABORATORY) + 1 : -1] for f in FAULTS_OF_JOINT if f.killer.startswith(LABORATORY))


@pytest.mark.parametrize("name", dict.fromkeys(OF_THE_LABORATORY))
def test_a_case_of_the_laboratory_is_not_certified_wrongly(name: str) -> None:
    """Family, seed and trial."""
    family, seed, trial = name.rsplit(" ", 2)
    plan = FAMILIES[family].plan(int(seed))
    found = outcome(plan, seed_point(Net(plan), int(seed), int(trial)))
    assert not found.has_failed, found


@pytest.mark.parametrize("fault", FAULTS_OF_JOINT, ids=lambda f: f.name)
def test_a_fault_is_noticed(fault: Fault) -> None:
    notices = test_a_wrong_gradient_is_not_certified if fault.killer.startswith(BY_HAND) else (
        test_a_case_of_the_laboratory_is_not_certified_wrongly)  # fmt: skip
    name = fault.killer.partition("[")[2][:-1]
    with fault.planted(), pytest.raises(AssertionError) as told:
        notices(name)
    assert "the case must be a trap" not in str(told.value)
