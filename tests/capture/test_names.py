"""Leaves, names and origins of a lowered graph."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fxcheck.capture.export import capture, captured_archive
from fxcheck.capture.lower import lower
from fxcheck.errors import CaptureError, FxcheckError, UsageError


class Tied(nn.Module):
    def __init__(self, by_data: bool):
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
        if by_data:
            self.b.weight.data = self.a.weight.data
        else:
            self.b.weight = self.a.weight

    def forward(self, x):
        return self.b(self.a(x).relu())


@pytest.mark.parametrize("by_data", [False, True])
def test_tied_parameters_are_one_leaf(by_data: bool) -> None:
    graph = lower(capture(Tied(by_data), (torch.zeros(3, 4),)))
    assert sorted(graph.trainable.values()) == ["a.bias", "a.weight", "b.bias"]
    first, second = (n.arguments["weight"] for n in graph.nodes if n.op == "aten.linear.default")
    assert first == second


def test_wrt_selects_by_identity() -> None:
    model = Tied(False)
    captured = capture(model, (torch.zeros(3, 4),))
    assert set(lower(captured, [model.b.bias]).trainable.values()) == {"b.bias"}
    assert set(lower(captured, []).trainable.values()) == set()
    with pytest.raises(UsageError, match="not parameters of the captured model"):
        lower(captured, [nn.Parameter(torch.zeros(1))])


def test_a_parameter_without_gradients_is_a_leaf_that_is_not_trainable() -> None:
    model = nn.Linear(4, 4)
    model.bias.requires_grad_(False)
    graph = lower(capture(model, (torch.zeros(3, 4),)))
    assert list(graph.trainable.values()) == ["weight"]
    assert [n.arguments["name"] for n in graph.nodes if n.op == "fxcheck.parameter"] == ["weight", "bias"]


def test_names_under_a_loss_are_the_users() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    graph = lower(capture(model, (torch.zeros(3, 4),), loss=nn.MSELoss(), target=torch.zeros(3, 4)))
    assert set(graph.trainable.values()) == {"0.weight", "0.bias"}
    relu = next(n for n in graph.nodes if n.op == "aten.relu.default")
    assert relu.origin.module == "1"
    assert not graph.smooth_criterion
    assert [graph.nodes[i].shape for i in graph.outputs] == [()]


def test_a_loss_may_be_a_function_of_the_output_alone_or_a_module_with_parameters() -> None:
    class Learned(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))

        def forward(self, output, target):
            return ((output - target) * self.scale).square().mean()

    model = nn.Linear(4, 4)
    alone = lower(capture(model, (torch.zeros(3, 4),), loss=lambda out: out.square().mean()))
    learned = lower(capture(model, (torch.zeros(3, 4),), loss=Learned(), target=torch.zeros(3, 4)))
    assert set(alone.trainable.values()) == {"weight", "bias"}
    assert len(learned.trainable) == 3


def test_a_loss_that_only_mentions_a_trainable_module_is_refused() -> None:
    head = nn.Linear(4, 1)
    with pytest.raises(UsageError, match="head"):
        capture(nn.Linear(4, 4), (torch.zeros(3, 4),), loss=lambda out: head(out).mean())


def _plain_loss(head: nn.Module, out: torch.Tensor) -> torch.Tensor:
    return head(out).mean()


class _Holder:
    def __init__(self) -> None:
        self.head = nn.Linear(4, 1)

    def loss(self, out):
        return self.head(out).mean()

    def __call__(self, out):
        return self.loss(out)


_WEIGHT = nn.Parameter(torch.ones(4))
HIDING = {
    "a tensor": lambda: lambda out: (out * _WEIGHT).mean(),
    "a partial": lambda: partial(_plain_loss, nn.Linear(4, 1)),
    "a bound method": lambda: _Holder().loss,
    "an object": _Holder,
    "a method of a module": lambda: nn.Linear(4, 1).forward,
}


@pytest.mark.parametrize("kind", HIDING)
def test_a_loss_that_hides_a_trainable_parameter_is_refused(kind: str) -> None:
    with pytest.raises(UsageError, match="does not own"):
        capture(nn.Linear(4, 4), (torch.zeros(3, 4),), loss=HIDING[kind]())


def test_a_loss_may_use_what_the_model_owns() -> None:
    model = nn.Linear(4, 4)
    assert capture(model, (torch.zeros(3, 4),), loss=partial(lambda m, out: out.mean() + m.weight.square().sum(), model))


def test_a_loss_that_is_no_scalar_is_refused() -> None:
    with pytest.raises(FxcheckError, match="scalar"):
        capture(nn.Linear(4, 4), (torch.zeros(3, 4),), loss=lambda out: out * 2)


def test_origins_carry_module_call_and_line() -> None:
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.act = nn.ReLU()
            self.linear = nn.Linear(4, 4)

        def forward(self, x):
            y = self.act(self.linear(x))
            return self.act(y - 1).relu()

    graph = lower(capture(Twice(), (torch.zeros(3, 4),)))
    relus = [n.origin for n in graph.nodes if n.op == "aten.relu.default"]
    assert [(o.module, o.call) for o in relus] == [("act", 0), ("act", 1), ("", 0)]
    assert all("test_names.py:" in o.location for o in relus)
    assert relus[0].source == "y = self.act(self.linear(x))"


def test_lifted_constants_carry_their_value_when_it_is_uniform() -> None:
    class Constants(nn.Module):
        def forward(self, x):
            return x * torch.tensor(2.0) + torch.tensor([1.0, 2.0, 3.0, 4.0])

    graph = lower(capture(Constants(), (torch.zeros(3, 4),)))
    assert [n.arguments["value"] for n in graph.nodes if n.op == "fxcheck.constant"] == [2.0, None]


def test_defaults_of_the_schema_are_filled_in() -> None:
    graph = lower(capture(nn.Sequential(nn.Linear(4, 4), nn.LeakyReLU(), nn.Softplus()), (torch.zeros(3, 4),)))
    leaky = next(n for n in graph.nodes if n.op == "aten.leaky_relu.default")
    assert leaky.arguments["negative_slope"] == 0.01
    softplus = next(n for n in graph.nodes if n.op == "aten.softplus.default")
    assert (softplus.arguments["beta"], softplus.arguments["threshold"]) == (1, 20)


def test_outputs_are_the_floating_point_ones_of_nested_structures() -> None:
    class Many(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, x):
            y = self.linear(x)
            return {"scores": y, "best": y.argmax(1), "parts": [y[:, :2], None], "size": x.shape[0]}

    graph = lower(capture(Many(), (torch.zeros(3, 4),)))
    assert [graph.nodes[i].shape for i in graph.outputs] == [(3, 4), (3, 2)]
    assert graph.batch == 3


@pytest.mark.parametrize(
    ("body", "holds"),
    [
        (lambda y: y, True),
        (lambda y: y if y.shape[0] > 2 else -y, False),
        (lambda y: y if y.shape[0] % 3 == 0 else -y, False),
        (lambda y: y.view(3, 4) * 1, False),
        (lambda y: y * (y.shape[0] - 5), False),
        (lambda y: F.leaky_relu(y, y.shape[0] / 2 - 2), False),
        (lambda y: y * (1 / y.shape[0]), False),
        (lambda y: y.clamp(min=1 / y.shape[0]), False),
        (lambda y: F.relu(y) ** (y.shape[0] / 2), False),
        (lambda y: y.new_full((4,), y.shape[0]) * y, False),
        (lambda y: y[torch.arange(y.shape[0]), 0] * 2, True),
    ],
)
def test_a_capture_that_looked_at_the_batch_size_does_not_claim_every_size(body, holds: bool) -> None:
    class Branch(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, *xs):
            return body(self.linear(xs[0]))

    assert capture(Branch(), (torch.zeros(3, 4),)).batch_dynamic is holds


def test_an_archive_lowers_like_the_model_and_keeps_its_mode(tmp_path) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True), nn.Flatten(0))
    torch.export.save(torch.export.export(model, (torch.zeros(3, 4),)), tmp_path / "m.pt2")
    captured = captured_archive(torch.export.load(tmp_path / "m.pt2"))
    graph = lower(captured)
    assert captured.mode == "exported"
    assert set(graph.trainable.values()) == {"0.weight", "0.bias"}
    assert [n.op for n in graph.nodes if n.op.startswith("aten.")] == [
        "aten.linear.default", "aten.relu.default", "aten.flatten.using_ints",
    ]  # fmt: skip


def test_a_decomposed_archive_and_one_with_nan_weights_are_refused() -> None:
    model = nn.Linear(4, 4)
    program = torch.export.export(model, (torch.zeros(3, 4),))
    with pytest.raises(CaptureError) as caught:
        captured_archive(program.run_decompositions())
    assert caught.value.code == "FX605"
    with torch.no_grad():
        model.weight[0, 0] = float("nan")
    with pytest.raises(FxcheckError, match="NaN"):
        captured_archive(torch.export.export(model, (torch.zeros(3, 4),)))
