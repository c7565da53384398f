"""Certificates of the zoo survive numbers: at parameters that hit kinks, AD's gradient is in the hull of its neighbours."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch

from fxcheck.errors import FxcheckError
from tests.soundness.membership import Landscape, disagreement, distance_to_hull, outside_by
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


def landscape_of(case: Case, seed: int) -> Landscape:
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

    return Landscape(parameters, value)


@pytest.mark.slow
@pytest.mark.parametrize("case", [c for c in CASES if c.guard], ids=str)
def test_certified_gradients_lie_among_their_neighbours(case: Case) -> None:
    report = outcome_of(case)
    if isinstance(report, FxcheckError) or report.verdict not in ("smooth", "certified"):
        return
    for seed in SEEDS:
        landscape = landscape_of(case, seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if not torch.isfinite(landscape.value()):
                continue
            wrong = disagreement(landscape, seed)
            distance = outside_by(landscape, seed)
        assert wrong < 1e-3, f"{report.verdict}, but backward differs from finite differences by {wrong:.2e}"
        assert distance == 0.0, f"{report.verdict} by {report.theorem}, but OUTSIDE by {distance:.3f} at seed {seed}"


def test_guard_sees_lemma_2_outside() -> None:
    """The meta-test: a known wrong gradient must be reported."""
    case = Case("", of(lambda s: torch.relu(s.w) - torch.relu(-s.w), w=0.0), (), nothing)
    landscape = landscape_of(case, 0)
    landscape.center = [torch.zeros((), dtype=torch.float64)]
    assert outside_by(landscape) > 0.5


def test_guard_sees_a_detached_value() -> None:
    case = Case("", of(lambda s, x: s.layer(x) * s.layer(x).detach(), layer=linear), ())
    assert disagreement(landscape_of(case, 0), 0) > 0.05


def test_guard_accepts_relu_at_zero() -> None:
    case = Case("", of(lambda s, x: torch.relu(s.layer(x)), layer=linear), ())
    landscape = landscape_of(case, 0)
    landscape.center = [torch.zeros_like(c) for c in landscape.center]
    assert outside_by(landscape) == 0.0


def test_hull_distance_is_exact_on_a_segment() -> None:
    segment = np.array([[0.0, 1.0], [2.0, 1.0]])
    assert distance_to_hull(np.array([1.0, 1.0]), segment) < 1e-9
    assert abs(distance_to_hull(np.array([1.0, 3.0]), segment) - 2.0) < 1e-9
