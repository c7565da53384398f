"""One layer's picks as a mixture, where T8 alone finds no direction (docs/theory.md 5.9)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fxcheck
from fxcheck.lp.recheck import recheck
from fxcheck.records.certificate import Certificate
from fxcheck.records.step import StepResult
from fxcheck.render.run import headline

P, Q, R = (1.0, 2.0, 3.0), (3.0, 2.0, 1.0), (2.0, 1.0, 3.0)
"""Patches on which a convolution with weights of 1 has the value 6."""


class Pooled(nn.Module):
    """A convolution over patches of three numbers, and pools: the weights' gradients are the patches."""

    def __init__(self, factors: tuple[float, ...], pools: int = 1, norm: nn.Module | None = None, width: int = 2) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 1, 3, stride=3, bias=False)
        self.norm = norm or nn.Identity()
        self.pools, self.width = pools, width
        self.register_buffer("factors", torch.tensor(factors))
        self.double()
        nn.init.ones_(self.conv.weight)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.conv(x))
        for _ in range(self.pools):
            y = F.max_pool1d(y, self.width)
        return (y.flatten(1) * self.factors).sum()


def patches(*rows: tuple[float, ...]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64).reshape(1, 1, -1)


def run(model: nn.Module, *batches: Tensor, **options: object) -> StepResult:
    """One step of a forward for each batch."""
    checked = fxcheck.instrument(model, (batches[0],), on_uncertified="record", **options)  # type: ignore[arg-type]
    with checked.step() as step:
        for x in batches:
            checked(x).backward()
    return step


def confirmed(step: StepResult, folder: Path) -> bool:
    step.certificate.save(folder / "step.json")
    return recheck(Certificate.load(folder / "step.json")).confirmed


def test_opposite_rows_that_pull_the_same_way_are_a_mixture(tmp_path: Path) -> None:
    # max(p, q) + 3 max(q, p) = 4 max(p, q), whose subgradients are 4 times the mixtures of p and q; AD returns p + 3 q.
    step = run(Pooled((1.0, 3.0)), patches(P, Q, Q, P))
    assert (step.verdict, step.theorem, step.subdifferential) == ("certified", "T8", "clarke")
    assert step.up_to_rounding
    claims = [b.claim for b in step.certificate.blocks]
    assert claims.count("direction") == 2 and claims.count("mixture") == 1 and "multipliers" not in claims
    weights = next(b.weights for b in step.certificate.blocks if b.claim == "mixture")
    assert sorted(weights.tolist()) == pytest.approx([0.25, 0.75])
    assert confirmed(step, tmp_path)


def test_opposite_rows_that_pull_apart_are_none(tmp_path: Path) -> None:
    # max(p, q) - 3 max(q, p) = -2 max(p, q), and AD's p - 3 q is no mixture of -2 p and -2 q.
    step = run(Pooled((1.0, -3.0)), patches(P, Q, Q, P))
    assert step.verdict == "uncertified" and step.reason == "infeasible"
    assert step.refuted
    assert "; AD's gradient is no Clarke subgradient: only ties of max_pool1d are on a kink" in step.text
    assert [b.claim for b in step.certificate.blocks] == ["multipliers", "direction"] and confirmed(step, tmp_path)
    difference = step.certificate.blocks[1]
    assert len(difference.rows) == 2  # -2 p and -2 q, less p - 3 q
    expected = [[-3 * p + 3 * q for p, q in zip(P, Q, strict=True)], [q - p for p, q in zip(P, Q, strict=True)]]
    assert sorted(difference.rows.tolist()) == sorted(expected)


def test_three_rows_that_exclude_one_another(tmp_path: Path) -> None:
    # p > q, q > r and r > p: each two leave the third one out.
    step = run(Pooled((2.0, 1.0, 3.0)), patches(P, Q, Q, R, R, P))
    assert (step.verdict, step.subdifferential) == ("certified", "clarke")
    assert sum(b.claim == "direction" for b in step.certificate.blocks) == 3
    assert confirmed(step, tmp_path)


def test_three_rows_one_of_which_pulls_apart() -> None:
    # 2 max(p, q) + max(q, r) - 3 max(r, p): AD's p pulls back what is beyond all six orders of p, q and r.
    step = run(Pooled((2.0, 1.0, -3.0)), patches(P, Q, Q, R, R, P))
    assert step.verdict == "uncertified" and step.refuted
    assert len(step.certificate.blocks[-1].rows) == 6


class Touched(nn.Module):
    """Two maxes that pull apart, beside a ReLU at its kink that may change what AD's gradient is compared with."""

    def __init__(self) -> None:
        super().__init__()
        self.pooled, self.beside = Pooled((1.0, -3.0)), nn.Linear(1, 1, dtype=torch.float64)
        nn.init.zeros_(self.beside.weight)
        nn.init.zeros_(self.beside.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.pooled(x) + F.relu(self.beside(x[0, 0, :1])).sum()


def test_nothing_is_refuted_where_more_lies_on_a_kink() -> None:
    step = run(Touched(), patches(P, Q, Q, P))
    assert step.verdict == "uncertified" and not step.refuted


class Biased(nn.Module):
    """As ``Pooled``, plus a bias behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.pooled, self.bias = Pooled((1.0, -3.0)), nn.Parameter(torch.zeros((), dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return self.pooled(x) + self.bias


@pytest.mark.parametrize("weights_too", [True, False])
def test_a_gradient_that_nobody_asked_for_is_not_refuted(weights_too: bool) -> None:
    model, x = Biased(), patches(P, Q, Q, P)
    checked = fxcheck.instrument(model, (x,), on_uncertified="record")
    with checked.step() as step:
        checked(x).backward(inputs=[model.bias, *([model.pooled.conv.weight] if weights_too else [])])
    assert step.verdict == "uncertified" and step.refuted is weights_too


@pytest.mark.parametrize(("small", "exact"), [(0.25, True), (1e-9 / 3, False)])
def test_rows_that_are_rounded_refute_nothing(small: float, exact: bool) -> None:
    """Between two hyperplanes that look like one there might be a region of AD's choice."""
    p, q = (1e8 / 3, 0.0, small), (small, 0.0, 1e8 / 3)
    step = run(Pooled((1.0, -3.0)), patches(p, q, q, p))
    assert step.reason == "infeasible" and step.refuted is exact


@pytest.mark.parametrize(("small", "exact"), [(0.0, True), (1e-9 / 3, False)])
def test_two_losers_whose_difference_is_rounded(small: float, exact: bool) -> None:
    # max(p, q, r) - 3 max(q, p), whose rows p - q and p - r are exact; q - r holds 1e8 / 3 - small.
    p, q, r = (0.0, 0.0, 1e8 / 3), (1e8 / 3, 0.0, 0.0), (small, 1e8 / 3, 0.0)
    step = run(Pooled((1.0, -3.0), width=3), patches(p, q, r, q, p, p))
    assert step.reason == "infeasible" and step.refuted is exact


@pytest.mark.parametrize("factor", [1.0, 1e-4])
def test_a_run_counts_what_was_refuted(factor: float) -> None:
    checked = fxcheck.instrument(Pooled((factor, -3.0)), (patches(P, Q, Q, P),), on_uncertified="record")
    for _ in range(2):
        with checked.step():
            checked(patches(P, Q, Q, P)).backward()
    summary = checked.summary()
    assert summary.refuted == summary.to_dict()["refuted"] == 2
    assert str(summary).splitlines()[0] == "0 of 2 steps certified; 2 infeasible (in 2 of them AD's gradient is no subgradient)"
    assert headline(summary).endswith("uncertified: 2 infeasible (in 2 of them AD's gradient is no subgradient)")


class Products(nn.Module):
    """As ``Pooled``, by products and sums, so that rows come from autograd."""

    def __init__(self, factors: tuple[float, ...]) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(3))
        self.register_buffer("factors", torch.tensor(factors))

    def forward(self, x: Tensor) -> Tensor:
        return (F.max_pool1d((x * self.w).sum(-1), 2).flatten(1) * self.factors).sum()


@pytest.mark.parametrize("last", [-1.0, 1.0])
def test_a_sum_is_not_taken_for_rounding_that_nobody_measured(last: float) -> None:
    """Rows a, -a + 2^-16 u and -u exclude one another; without the third one AD's gradient is a mixture up to that 2^-16 u."""
    small = 2.0**-16
    p, q, r = (1.0, 2.0, 3.0), (3.0, 1.0, 2.0), (1 + small, 2 - small, 3.0)
    step = run(Products((1.0, 1.0, last)), torch.tensor([[p, q, q, r, (2.0, 1.0, 3.0), (1.0, 2.0, 3.0)]])[None])
    assert step.verdict == ("certified" if last > 0 else "uncertified")


def test_two_micro_batches_are_one_system(tmp_path: Path) -> None:
    step = run(Pooled((1.0,)), patches(P, Q), patches(Q, P))
    assert (step.verdict, step.subdifferential) == ("certified", "clarke") and confirmed(step, tmp_path)
    model = Pooled((1.0,))
    checked = fxcheck.instrument(model, (patches(P, Q),), on_uncertified="record")
    with checked.step() as step:
        (checked(patches(P, Q)) - 3 * checked(patches(Q, P))).backward()
    assert step.verdict == "uncertified"


def test_behind_a_normalisation_of_one_micro_batch(tmp_path: Path) -> None:
    norm = nn.BatchNorm1d(1)
    nn.init.constant_(norm.weight, -0.5)  # a negative scale turns the rows around, and both alike
    # Of each pair the pool keeps the patches of value 6; those of 9 are negative behind the scale.
    x = patches(P, Q, Q, P, (3.0, 3.0, 3.0), (3.0, 3.0, 3.0))
    step = run(Pooled((1.0, 3.0, 0.0), norm=norm), x)
    assert (step.verdict, step.subdifferential) == ("certified", "clarke") and confirmed(step, tmp_path)


def test_micro_batches_are_normalised_by_scales_of_their_own() -> None:
    # The rows are opposite, but what they leave out is not the same: the mixture cannot be read off them.
    others = [(3.0, 3.0, 3.0), (9.0, 3.0, 3.0)]
    batches = [patches(P, Q, o, o) for o in others], [patches(Q, P, o, o) for o in others]
    step = run(Pooled((1.0, 0.0), norm=nn.BatchNorm1d(1)), batches[0][0], batches[1][1])
    assert step.theorem != "T8"


def test_ties_behind_the_layer_may_rest_on_its_picks() -> None:
    """Where the first pool picks otherwise, the entries that tie in the second one are equal functions no more.

    The function is 3 max(p, r, q) - max(q, p) and AD returns 3 p - q; in no region does p weigh more than 2.
    """
    low = (0.0, 0.0, 0.0)
    x = patches(P, R, P, Q, Q, P, low, low)
    assert run(Pooled((3.0, -1.0), pools=2), x).verdict == "uncertified"


def test_a_layer_behind_other_layers_is_left_to_the_joint_condition() -> None:
    """Its rows show fresh parameters alone, and what cancels there need not cancel on earlier ones.

    w0 multiplies the patches: the gradient of max(w0 p', w0 q') by w0 does not follow from the rows.
    """

    class Deep(Pooled):
        def __init__(self) -> None:
            super().__init__((1.0, 3.0))
            self.w0 = nn.Parameter(torch.ones((), dtype=torch.float64))

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(F.max_pool1d((self.w0 * x).repeat_interleave(2, -1) * torch.tensor([1.0, 0.5]).repeat(12), 2))

    assert run(Deep(), patches(P, Q, Q, P)).theorem != "T8"


def test_no_time_no_second_look() -> None:
    assert run(Pooled((1.0, 3.0)), patches(P, Q, Q, P), joint_seconds=0).verdict == "uncertified"


def test_the_first_step_of_several_forwards_after_single_ones_is_not_run_again() -> None:
    """Inputs are remembered where another forward may come; a step that comes as a surprise is left as T8 left it."""
    quiet, tied = patches(P, (1.0, 1.0, 1.0), P, (1.0, 1.0, 1.0)), patches(P, Q, Q, P)
    checked = fxcheck.instrument(Pooled((1.0, 3.0)), (quiet,), on_uncertified="record")
    found = []
    for batches in ([quiet], *[[quiet, tied]] * 2):
        with checked.step() as step:
            for x in batches:
                checked(x).backward()
        found.append((step.verdict, "were not remembered" in step.text))
    assert found == [("certified", False), ("uncertified", True), ("certified", False)]


def test_an_input_that_the_model_writes_into_is_not_read_again() -> None:
    class Writing(Pooled):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.mul_(1.0))

    step = run(Writing((1.0, 3.0)), patches(P, Q, Q, P))
    assert step.verdict == "uncertified" and "overwritten" in step.text
