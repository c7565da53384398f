"""Certificates of the zoo survive numbers: at parameters that hit kinks, AD's gradient is in the hull of its neighbours."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch

from fxcheck.errors import FxcheckError
from tests.soundness.laboratory import WRONG
from tests.soundness.oracle import Verdict, judge
from tests.zoo.case import Case, linear, nothing, of
from tests.zoo.models import CASES
from tests.zoo.reports import outcome_of

SEEDS = range(3)


def _tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value] if value.is_floating_point() else []
    if isinstance(value, dict):
        value = tuple(value.values())
    return [t for part in value for t in _tensors(part)] if isinstance(value, (tuple, list)) else []


def _integers(like: torch.Tensor, generator: torch.Generator, bound: int) -> torch.Tensor:
    return torch.randint(-bound, bound + 1, like.shape, generator=generator).to(torch.float64)


def problem_of(case: Case, seed: int) -> tuple[list[torch.nn.Parameter], Callable[[], torch.Tensor]]:
    """The case's loss at random small integers; without a loss, a fixed integer combination of its outputs."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(0)
    model = case.build().double()
    model.train(case.options.get("mode", "train") == "train")
    parameters = case.wrt(model) if case.wrt else [p for p in model.parameters() if p.requires_grad]
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(_integers(p, generator, 1 + seed % 2))
    args = [_integers(a, generator, 2) if a.is_floating_point() else a for a in case.args()]
    target = case.options.get("target")
    target = target.double() if target is not None and target.is_floating_point() else target
    loss = case.options.get("loss")

    def value() -> torch.Tensor:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            out = model(*args)
        if loss is not None:
            return loss(out) if target is None else loss(out, target)
        weights = torch.Generator().manual_seed(seed)
        return sum((o * _integers(o, weights, 2)).sum() for o in _tensors(out))

    return parameters, value


@pytest.mark.slow
@pytest.mark.parametrize("case", [c for c in CASES if c.guard], ids=str)
def test_certified_gradients_lie_among_their_neighbours(case: Case) -> None:
    report = outcome_of(case)
    if isinstance(report, FxcheckError) or report.verdict not in ("smooth", "certified"):
        return
    for seed in SEEDS:
        parameters, value = problem_of(case, seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if not torch.isfinite(value()):
                continue
            found = judge(parameters, value, seed=seed, exact=False)
        assert found.verdict not in WRONG, f"{report.verdict} by {report.theorem}, but {found} at seed {seed}"


def _judged(case: Case, at: float | None = None) -> Verdict:
    """The guard's word where all parameters are equal, or at the integers of a seed."""
    parameters, value = problem_of(case, 0)
    with torch.no_grad():
        for p in parameters if at is not None else ():
            p.fill_(at)
    return judge(parameters, value, exact=False).verdict


def test_guard_sees_lemma_2_outside() -> None:
    """The meta-test: a known wrong gradient must be reported."""
    case = Case("", of(lambda s: torch.relu(s.w) - torch.relu(-s.w), w=0.0), (), nothing)
    assert _judged(case, 0.0) is Verdict.OUTSIDE


def test_guard_sees_a_detached_value() -> None:
    case = Case("", of(lambda s, x: s.layer(x) * s.layer(x).detach(), layer=linear), ())
    assert _judged(case) is Verdict.NOT_AD


def test_guard_accepts_relu_at_zero() -> None:
    case = Case("", of(lambda s, x: torch.relu(s.layer(x)), layer=linear), ())
    assert _judged(case, 0.0) is Verdict.INSIDE
