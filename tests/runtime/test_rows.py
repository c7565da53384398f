"""Rows in closed form are the rows that autograd gives; what needs no row is left out, and nothing else."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fxcheck
from fxcheck.runtime import build_rows, closed_rows
from fxcheck.runtime.blocks import blocks_of
from fxcheck.runtime.gradients import Gradients
from fxcheck.runtime.rows import Row, RowKind
from fxcheck.runtime.session import Session
from tests.runtime.models import Scalars, fully_connected, small_cnn, step_of


def _rows(model: nn.Module, x: Tensor, monkeypatch: pytest.MonkeyPatch, closed: bool) -> list[Row]:
    """The rows of one forward before anything was decided; without closed forms all of them come from autograd."""
    kept: list[Row] = []

    def keep(self: Session, rows: list[Row], gradients: Gradients) -> list[Row]:
        kept.extend(rows)
        return rows

    with monkeypatch.context() as patched:
        patched.setattr(Session, "_settle_zero_rows", keep)
        patched.setattr(Session, "_settle", lambda *_: None)
        if not closed:
            patched.setattr(build_rows, "patches_of", lambda *_: None)
        fxcheck.instrument(model, (x,), exact_ties=True)(x)
    return kept


def _dense(row: Row, model: nn.Module) -> np.ndarray:
    shapes = {n: p.shape for n, p in model.named_parameters()}
    parts = {n: np.zeros((s[0], int(np.prod(s[1:])))) for n, s in shapes.items()}
    at = 0
    for name, index in row.slots:
        size = parts[name].shape[1]
        parts[name][index] = row.values[at : at + size]
        at += size
    return np.concatenate([p.reshape(-1) for p in parts.values()])


def _mirrored() -> Tensor:
    """Integer images with equal values at positions whose surroundings differ, so that ties are not trivial."""
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, 2, (3, 2, 8, 8), generator=generator).double()


def _conv(*, stride: int = 1, padding: int = 0, dilation: int = 1, groups: int = 1, bias: bool = True) -> nn.Module:
    layer = nn.Conv2d(2, 4, 3, stride=stride, padding=padding, dilation=dilation, groups=groups, bias=bias).double()
    with torch.no_grad():
        layer.weight.copy_(torch.randint(-1, 2, layer.weight.shape, generator=torch.Generator().manual_seed(1)))
        if bias:
            layer.bias.fill_(1.0)
    return layer


TAUS: dict[str, Callable[[], nn.Module]] = {
    "conv": _conv, "no bias": lambda: _conv(bias=False), "padded": lambda: _conv(padding=1),
    "strided": lambda: _conv(stride=2, padding=1), "dilated": lambda: _conv(dilation=2, padding=2),
    "grouped": lambda: _conv(groups=2),
    "eval norm": lambda: nn.Sequential(_conv(), _norm(False)), "train norm": lambda: nn.Sequential(_conv(), _norm(True)),
}  # fmt: skip


def _norm(training: bool) -> nn.Module:
    layer = nn.BatchNorm2d(4).double().train(training)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([1.0, -2.0, 0.5, 3.0]))
        layer.bias.fill_(0.25)
    return layer


@pytest.mark.parametrize("tau", TAUS)
@pytest.mark.parametrize("sigma", ["pool", "relu pool"])
def test_tie_rows_in_closed_form_are_autograds(tau: str, sigma: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Sequential(TAUS[tau](), *([nn.ReLU()] if sigma == "relu pool" else []), nn.MaxPool2d(2))
    closed = _rows(model, _mirrored(), monkeypatch, True)
    autograd = _rows(model, _mirrored(), monkeypatch, False)
    by_entry = {(r.entry, r.loser): r for r in autograd}
    assert len(closed) > 5
    for row in closed:
        expected, found = _dense(by_entry[row.entry, row.loser], model), _dense(row, model)
        scale = np.abs(expected).max() / max(np.abs(found).max(), 1e-300)  # a closed form leaves out |gamma| / sigma
        assert np.allclose(found * scale, expected, atol=1e-9 * (1 + np.abs(expected).max()))
    left_out = by_entry.keys() - {(r.entry, r.loser) for r in closed}
    assert all(np.abs(_dense(by_entry[key], model)).max() < 1e-9 for key in left_out), "only equal functions are left out"


def test_touch_rows_in_closed_form_are_autograds(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Sequential(_conv(bias=False), nn.ReLU6())
    closed = _rows(model, _mirrored(), monkeypatch, True)
    autograd = {r.entry: r for r in _rows(model, _mirrored(), monkeypatch, False)}
    assert len(closed) > 5 and {r.direction for r in closed} <= {-1, 1}
    assert all(np.allclose(_dense(r, model), _dense(autograd[r.entry], model)) for r in closed)


def test_linear_touch_rows_have_the_bias_coordinate(monkeypatch: pytest.MonkeyPatch) -> None:
    model = fully_connected(nn.ReLU6(), torch.float64)
    with torch.no_grad():
        model[0].weight.zero_()
        model[0].bias.copy_(torch.tensor([0.0, 6.0, 1.0, 2.0, 3.0]))
    rows = _rows(model, torch.randn(3, 6, dtype=torch.float64), monkeypatch, True)
    first = [r for r in rows if r.slots[0][0] == "0.weight"]
    assert {(r.slots, r.direction, float(r.values[-1])) for r in first} == {
        ((("0.weight", 0), ("0.bias", 0)), -1, -1.0), ((("0.weight", 1), ("0.bias", 1)), 1, 1.0),
    }  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_entries_are_read_alike_by_numpy_and_by_torch(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a view that is not contiguous, with -1 for the last entry; what is returned shares no memory with it."""
    tensor = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0)).to(dtype).transpose(1, 2)
    places = np.array([[2], [0]]), np.array([[0, 4, -1], [3, 3, 1]])
    expected = tensor.double().numpy()[places]
    found = closed_rows.entries_at(tensor, *places)
    monkeypatch.setattr(closed_rows, "_READABLE", ())
    by_torch = closed_rows.entries_at(tensor, *places)
    for entries in (found, by_torch):
        assert entries.dtype == np.float64 and np.array_equal(entries, expected)
        entries[:] = 7.0
    assert np.array_equal(tensor.double().numpy()[places], expected)


def test_zero_patches_of_bias_free_layers_are_frozen() -> None:
    """Dark borders: conv without bias gives exactly 0, a touch whose row is 0, and the entry is a constant."""
    model = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1, bias=False), nn.ReLU(), nn.Conv2d(3, 2, 3, bias=False), nn.ReLU())
    x = torch.zeros(2, 2, 8, 8)
    x[:, :, 3:5, 3:5] = torch.rand(2, 2, 2, 2) + 0.5
    step = step_of(fxcheck.instrument(model, (x,)), x)
    assert step.layers[0].touched > 0 and step.layers[0].constraints == 0
    assert step.verdict == "certified"


def test_zeros_by_cancellation_are_not_frozen() -> None:
    """The second layer sees zeros that come from x - x', not out of a ReLU: they move with w."""
    model = Scalars(
        lambda s, x: torch.relu((s.w * x - s.w * x.flip(0)) @ s.v) - torch.relu(-(s.w * x - s.w * x.flip(0)) @ s.v),
        w=1.0, v=[[1.0]],
    )  # fmt: skip
    x = torch.ones(2, 1, dtype=torch.float64)
    assert step_of(fxcheck.instrument(model, (x,), joint_seconds=0), x).verdict == "uncertified"
    assert step_of(fxcheck.instrument(model, (x,)), x).up_to_rounding is True  # right: the function is 0 everywhere


def test_touches_that_strictly_lose_every_max_need_no_row() -> None:
    """An identity beside the relu keeps Algorithm 1; the touched entry is below the maximum of its only window."""
    model = Scalars(lambda s, x: nn.functional.max_pool1d(torch.relu(x * s.w), 2), w=[[[0.0, 1.0]]])
    x = torch.ones(1, 1, 2, dtype=torch.float64)
    step = step_of(fxcheck.instrument(model, (x,)), x)
    assert sum(s.touched for s in step.layers) == 1
    assert (step.verdict, sum(s.constraints for s in step.layers)) == ("certified", 0)


def test_unequal_bias_coefficients_are_decided_by_algorithm_1() -> None:
    """Theory 4.7: a = relu(avg_pool1d(conv(x), 2, 1, padding=1)), max(a1, a0) - a2 / 2, w = 1, b = 4."""
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv1d(1, 1, 1).double()
            nn.init.constant_(self.conv.weight, 1.0)
            nn.init.constant_(self.conv.bias, 4.0)

        def forward(self, x: Tensor) -> Tensor:
            a = torch.relu(nn.functional.avg_pool1d(self.conv(x), 2, 1, padding=1))
            return nn.functional.max_pool1d(a[..., :2].flip(-1), 2).sum() - a[..., 2].sum() / 2

    x = torch.tensor([[[0.0, -4.0, -4.0, 0.0]]], dtype=torch.float64)
    step = step_of(fxcheck.instrument(Net(), (x,)), x)
    assert (step.verdict, step.reason) == ("uncertified", "infeasible")


def test_algorithm_2_asks_nothing_of_touches_under_one_common_bias() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)).double()
    with torch.no_grad():
        model[0].bias.zero_()
    x = torch.zeros(1, 2, 8, 8, dtype=torch.float64)
    step = step_of(fxcheck.instrument(model, (x,)), x)  # every entry is touched and every window is tied at 0
    assert (step.verdict, step.layers[0].ties, step.layers[0].constraints) == ("certified", 0, 0)


def test_the_per_window_trap_is_infeasible_although_each_row_alone_is_feasible() -> None:
    """runtime.md: two samples with two swapped pixels; the loss is 0 near w and AD gives (1, -1)."""
    class Difference(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 1, 3, padding=1, bias=False).double()
            with torch.no_grad():
                self.conv.weight.zero_()
                self.conv.weight[0, 0, 1, 1] = 1.0

        def forward(self, x: Tensor) -> Tensor:
            y = nn.functional.max_pool2d(self.conv(x), 4).flatten()
            return y[0] - y[1]

    x = torch.zeros(2, 1, 4, 4, dtype=torch.float64)
    x[:, 0, 0, 1] = x[:, 0, 3, 3] = 1.0
    x[0, 0, 0, 0], x[1, 0, 3, 2] = 0.5, 0.5
    step = step_of(fxcheck.instrument(Difference(), (x,)), x)
    block, _ = step.certificate.blocks  # of the layer, and of all layers together
    assert step.reason == "infeasible" and [tuple(r[r != 0]) for r in block.rows] == [(0.5,), (-0.5,)]
    assert block.multipliers[0] == block.multipliers[1] > 0
    for sample in (0, 1):
        alone = fxcheck.instrument(nn.Sequential(Difference().conv, nn.MaxPool2d(4)), (x[sample : sample + 1],))
        assert step_of(alone, x[sample : sample + 1]).verdict == "certified"


def test_ties_between_equal_receptive_fields_need_no_row() -> None:
    x = torch.ones(2, 2, 8, 8)
    step = step_of(fxcheck.instrument(small_cnn(), (x,)), x)
    assert step.verdict == "certified" and all(s.nontrivial == 0 for s in step.layers)


def test_a_row_that_leaves_coordinates_out_keeps_all_rows_of_its_layer_from_moving_them() -> None:
    """w > 0 without p, and -w - 2p > 0: on w alone they contradict each other; another layer's row keeps its p."""
    rows = [
        Row(0, RowKind.TIE, None, "pool", 0, slots=(("w", 0),), values=np.array([1.0]), left_out=frozenset({"p"})),
        Row(0, RowKind.TIE, None, "pool", 1, slots=(("w", 0), ("p", 0)), values=np.array([-1.0, -2.0])),
        Row(1, RowKind.TIE, None, "other", 0, slots=(("p", 0),), values=np.array([1.0])),
    ]
    first, other = blocks_of(rows, lambda name: 1)
    assert (first.slots, first.system.rows.tolist()) == ((("w", 0),), [[1.0], [-1.0]])
    assert (other.slots, other.system.rows.tolist()) == ((("p", 0),), [[1.0]])


def test_ties_between_pooled_values_of_one_origin_are_in_t_j() -> None:
    """Two windows of the first pool with the same winner and other losers: other functions, the same AD gradient."""
    model = nn.Sequential(
        nn.Conv1d(1, 1, 1, bias=False), nn.MaxPool1d(2), nn.Conv1d(1, 1, 1, bias=False), nn.MaxPool1d(2)
    ).double()
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(1.0)
    x = torch.tensor([[[2.0, 0.0, 2.0, 1.0]]], dtype=torch.float64)
    step = step_of(fxcheck.instrument(model, (x,)), x)
    last = step.layers[-1]
    assert (step.verdict, last.ties, last.nontrivial, last.constraints) == ("certified", 1, 0, 0)


def test_a_pool_over_a_pool_ties_where_neighbours_share_their_winner() -> None:
    """As in Inception blocks: overlapping windows have one winner, so their maxima are one function."""
    model = nn.Sequential(nn.Conv1d(1, 1, 1, bias=False), nn.MaxPool1d(3, 1), nn.MaxPool1d(3, 1)).double()
    nn.init.ones_(model[0].weight)
    x = torch.tensor([[[0.0, 1.0, 5.0, 2.0, 1.0]]], dtype=torch.float64)
    step = step_of(fxcheck.instrument(model, (x,)), x)
    assert step.verdict == "certified" and sum(s.ties for s in step.layers) == 1
    assert sum(s.nontrivial for s in step.layers) == 0


def test_a_layer_without_fresh_parameters_in_an_uncovered_model_is_counted_and_raises_nothing() -> None:
    """The second layer's rows have no coordinates of their own."""
    def function(s: Scalars, x: Tensor) -> tuple[Tensor, Tensor]:
        first = F.leaky_relu(s.w * x, 0.5)
        rest = 2 * s.w - first
        return F.relu(rest - first).sum(), F.multi_margin_loss(rest.reshape(1, -1), torch.tensor([1]))

    x = torch.ones(3, dtype=torch.float64)
    checked = fxcheck.instrument(Scalars(function, w=[0.0, 0.0, 1.0]), (x,), allow_uncovered=True)
    with checked.step() as step:
        sum(checked(x)).backward()
    assert (step.verdict, step.reason) == ("uncertified", "uncovered") and sum(x.touched for x in step.layers) > 0
