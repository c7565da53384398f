"""Small wrong gradients that only one rule of fxcheck keeps from being certified: each kills planted faults."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fxcheck.runtime.joint import LAYER
from tests.runtime.test_traps_at_run_time import (
    PAIR,
    SAWTOOTH,
    Case,
    conv,
    differ,
    given,
    gradient_is,
    of,
    run,
    told,
    weighted,
)
from tests.soundness.oracle import Verdict

relu = torch.relu


def assert_not_certified(case: Case, word: Verdict = Verdict.OUTSIDE) -> None:
    """AD's gradient lies outside, so neither a step nor the model may be certified."""
    assert gradient_is(case) is word, "the case must be a trap"
    step = run(case)
    assert step is None or step.verdict != "certified", told(step)


PARALLEL = Case("", of(lambda s, x: relu(s.w) - relu(s.v * x - s.w), w=[0.0], v=[0.0]), given([[1.0], [-1.0]]))
"""relu(w) owns w; v alone cannot push both v - w and -v - w to AD's side, and w would."""


def test_a_parameter_of_a_parallel_layer_is_not_fresh() -> None:
    assert_not_certified(PARALLEL)


def test_rows_show_fresh_coordinates_only() -> None:
    step = run(PARALLEL)
    assert step is not None and step.reason == "infeasible", "the second layer's rows, on v, are v > 0 and -v > 0"
    own = [b for b in step.certificate.blocks if b.claim == "multipliers" and b.layer != LAYER]
    assert {b.coordinates for b in own} == {("v[0]",)}
    assert_not_certified(PARALLEL)


def test_equal_values_are_not_equal_functions() -> None:
    """max(v relu(u1), v relu(u2)) minus the same maximum with its entries swapped, at u1 = u2: 0, and AD picks u1, u2.

    The rows vanish on v, the only fresh coordinate, and both patches of activations hold a 1.
    """
    swapped = given([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [1.0, 0.0]]])
    model = of(lambda s, x: F.max_pool1d(F.conv1d(relu(F.conv1d(x, s.u)), s.v), 2), u=[[[1.0], [1.0]]], v=[[[1.0]]])
    assert_not_certified(Case("", model, swapped, differ))


def test_the_padding_of_a_pool_is_not_a_zero_pixel() -> None:
    """max(-w, 0) minus max(0, -w) at 0, where the pooled inputs -1 and 0 come from (padding, -1) and (0, -1)."""
    signals = given([[[-1.0, 0.0, -1.0]], [[0.0, -1.0, -1.0]]])
    model = of(lambda s, x: F.max_pool1d(conv(s, F.max_pool1d(x, 2, 2, padding=1)), 2), w=[[[0.0]]])
    assert_not_certified(Case("", model, signals, differ))


def test_a_touched_entry_that_wins_needs_its_row() -> None:
    """max(relu(w), 0) - max(relu(-w), 0) = w, where AD gives 0."""
    assert_not_certified(Case("", of(lambda s, x: F.max_pool1d(relu(conv(s, x)), 2), w=[[[0.0]]]), SAWTOOTH, differ))


def test_cummax_picks_the_last_of_equals() -> None:
    """max(dim) picks the first of equal entries and cummax the last, so their difference has a gradient and is 0."""
    y = torch.zeros(2)
    assert (int(y.max(0)[1]), int(y.cummax(0)[1][1])) == (0, 1), "the test rests on the picks of the installed torch"
    assert_not_certified(Case("", of(lambda s: s.w.max(0)[0] - s.w.cummax(0)[0][1], w=[0.0, 0.0])))


def test_the_pick_of_a_minimum_stays_below() -> None:
    """max(a, b) + min(a, b) = a + b, where AD picks a twice."""
    assert_not_certified(Case("", of(lambda s: s.w.max(0)[0] + s.w.min(0)[0], w=[0.0, 0.0])))


def test_a_norm_at_its_singular_point() -> None:
    """|2w + |w|| - 2 |w| = w, written with norms, whose gradient at 0 is 0."""

    def size(w: Tensor) -> Any:
        return torch.linalg.vector_norm(w, dim=0, keepdim=True)

    assert_not_certified(Case("", of(lambda s: size(2 * s.w + size(s.w)) - 2 * size(s.w), w=[0.0])))


def test_an_angle_of_a_vector_that_is_shorter_than_epsilon() -> None:
    """<w, a> / (4 |a|), whose gradient backward computes as if w were divided by its own length and scaled."""
    def model(s: Any, x: Tensor) -> Tensor:
        return F.cosine_similarity(s.w, x, eps=4.0)

    assert_not_certified(Case("", of(model, w=[[1.0, 2.0]]), given([[4.0, 4.0]])), Verdict.NOT_AD)


def test_rounding_inside_a_chain_hits_a_kink_off_it() -> None:
    """relu(y + 1 - 1) for y = w and y = -w, whose difference is w: at 1e-20 the ReLUs see 0, and AD gives 0."""
    model = of(lambda s, x: relu(F.linear(x, s.w) + 1 - 1), w=[[1e-20]])
    assert_not_certified(Case("", model, PAIR, differ), Verdict.ROUNDING)


def test_position_wise_parameters_of_a_normalisation_tell_positions_apart() -> None:
    """max(q1, q2) - max(q2, q1) = 0, where AD picks q1 and q2."""

    def model(s: Any, x: Tensor) -> Tensor:
        y = F.layer_norm(conv(s, x), (2,), s.p, s.q)
        return F.max_pool1d(y, 2) - F.max_pool1d(y.flip(2), 2)

    signals = given([[[1.0, 1.0]], [[1.0, 1.0]]])
    assert_not_certified(Case("", of(model, w=[[[1.0]]], p=[1.0, 1.0], q=[0.0, 0.0]), signals))


def test_t5_says_nothing_about_dependent_columns() -> None:
    """|w| + |-w| without a bias: the gradient is right, but neither T5 nor T8 shows it; a mixture does."""
    model = of(lambda s, x: F.linear(x, s.w).abs(), w=[[0.0]])
    step = run(Case("", model, PAIR, options={"joint_seconds": 0}))
    assert step is not None and (step.verdict, step.reason) == ("uncertified", "undecided")
    step = run(Case("", model, PAIR))
    assert step is not None and (step.theorem, step.subdifferential) == ("joint", "clarke")


def test_gamma_0_leaves_rows_on_gamma_alone() -> None:
    """3 max(g, -g) - max(-3 g, 0) at 0 has slopes 3 and 0, and AD gives 6; the patches differ by (1, -1) and (0, 3)."""

    def model(s: Any, x: Tensor) -> Tensor:
        return F.max_pool1d(F.batch_norm(conv(s, x), torch.zeros(1).double(), torch.ones(1).double(), s.g, s.b), 2)

    signals = given([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 0.0], [3.0, 0.0]]])
    module = of(model, w=[[[1.0], [-1.0]]], g=[0.0], b=[1.0])
    assert_not_certified(Case("", module, signals, weighted([[[3.0]], [[-1.0]]])))


def test_a_row_that_leaves_coordinates_out_keeps_them_from_moving() -> None:
    """max(y0, y1) - max(y1, y0) = 0, where AD picks y0 and y1, for y = <w, x + p> with position factors p.

    The first row, a difference of patches, is on w alone; the second comes from autograd behind the flip and has p.
    """

    def model(s: Any, x: Tensor) -> Tensor:
        y = conv(s, x + s.p)
        return F.max_pool1d(y, 2) - F.max_pool1d(y.flip(2), 2)

    module = of(model, w=[[[1.0], [1.0]]], p=[[0.0, 0.0], [0.0, 0.0]])
    assert_not_certified(Case("", module, given([[[1.0, 0.0], [0.0, 1.0]]])))
