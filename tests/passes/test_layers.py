"""Groups, fresh parameters and bias certificates on graphs of several layers (theory 4.5 to 4.8)."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fxcheck
from fxcheck.api import analyze


class Inception(nn.Module):
    """Branches that end in ReLUs, joined and pooled, with a use before the pool."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(3, 4, 3, padding=1) for _ in range(3))
        self.last = nn.Conv2d(8, 4, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        joined = torch.cat([F.relu(self.a(x)), F.relu(self.b(x))], 1)
        return F.max_pool2d(joined, 2), F.relu(self.last(joined))


def test_parallel_relus_before_a_pool_are_one_group_with_it() -> None:
    report = analyze(Inception(), torch.zeros(2, 3, 8, 8))
    groups = {layer.name: layer.group for layer in report.layers}
    assert len({groups["relu"], groups["relu#2"], groups["max_pool2d"]}) == 1
    assert groups["relu#3"] != groups["relu"]
    assert [str(layer.verdict) for layer in report.layers] == ["runtime", "runtime", "runtime", "certified"]


def test_a_relu_that_feeds_both_the_pool_and_another_member_stays_outside() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            first = F.relu(self.a(x))
            return F.max_pool2d(torch.cat([first, F.relu(self.b(first))], 1), 2)

    report = analyze(Net(), torch.zeros(2, 3, 8, 8))
    first, second = report.layers
    assert first.group != second.group and first.maxpool is None and second.maxpool == "max_pool2d"
    assert str(first.verdict) == "certified" and str(second.verdict) == "runtime"


def test_siamese_branches_share_their_groups_layer_by_layer() -> None:
    class Twins(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            def branch(z: torch.Tensor) -> torch.Tensor:
                return F.relu(self.b(F.relu(self.a(z))))

            return branch(x) - branch(y)

    report = analyze(Twins(), (torch.zeros(2, 3), torch.zeros(2, 3)))
    assert [layer.group for layer in report.layers] == [0, 1, 0, 1]
    assert report.verdict == "certified" and report.theorem == "T6"
    assert {layer.bias.kind for layer in report.layers} == {"shared"}


def test_a_recurrence_by_hand_is_left_to_the_joint_condition_after_its_first_step() -> None:
    class Cell(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.relu(self.cell(F.relu(self.cell(x))))

    report = analyze(Cell(), torch.zeros(2, 3))
    assert [str(layer.verdict) for layer in report.layers] == ["certified", "runtime"]
    assert (report.theorem, report.subdifferential) == ("joint", "bouligand")
    assert report.layers[1].diagnostics[0].code == "FX103"
    assert report.conditions.condition_1 is False


def test_the_sign_of_a_bias_is_reported() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.f = nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.relu((-2 * self.f(x)).reshape(-1))

    (layer,) = analyze(Net(), torch.zeros(2, 3)).layers
    assert (layer.bias.parameters, layer.bias.signs, layer.bias.kind) == (("f.bias",), (-1,), "distinct")
    assert str(layer.verdict) == "certified"


def test_the_five_theorems_are_named_where_they_apply() -> None:
    def mlp(activation: nn.Module) -> nn.Module:
        return nn.Sequential(nn.Linear(6, 5), activation, nn.Linear(5, 4), activation)

    x = torch.zeros(2, 6)
    assert analyze(mlp(nn.ReLU()), x).theorem == "T4"
    assert analyze(mlp(nn.ReLU6()), x).theorem == "T5"
    assert analyze(mlp(nn.ReLU6()), x[:1], batch_size=1).theorem == "T1"
    assert analyze(mlp(nn.ReLU()), torch.zeros(2, 3, 6)).theorem == "T6"
    with_dropout = nn.Sequential(nn.Linear(6, 5), nn.ReLU6(), nn.Dropout(), nn.Linear(5, 4), nn.ReLU6())
    assert analyze(with_dropout, x).theorem == "T8"
    assert analyze(mlp(nn.SiLU()), x).theorem is None


@pytest.mark.parametrize("repeat", [
    lambda y: y[:, :2].repeat_interleave(torch.tensor([3, 1]), 1, output_size=4),
    lambda y: torch.where(torch.ones(1, 4) > 0, y[:, :1], y[:, :1] * 0 + 5),
    lambda y: F.interpolate(y[:, None, :2, None].expand(-1, -1, -1, 4), size=(4, 2)).flatten(1)[:, :4],
    lambda y: F.pad(y[:, None], (3, 3), mode="reflect")[:, 0, 1:5],
], ids=["repeat_interleave", "where", "interpolate", "reflect"])  # fmt: skip
def test_t1_is_not_named_where_an_operator_may_repeat_a_bias_entry(repeat) -> None:
    """The result is not larger than the bias, yet several of its entries share one."""
    class Repeats(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.b = nn.Parameter(torch.zeros(4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.hardtanh(repeat(x * 0 + self.b) + x)

    report = fxcheck.analyze(Repeats(), torch.zeros(1, 4), batch_size=1)
    assert report.theorem != "T1" and report.verdict != "certified"


def test_a_running_mean_that_is_read_is_blamed_on_the_normalisation_that_wrote_it() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.norm = nn.Linear(3, 3), nn.BatchNorm1d(3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.norm(self.linear(x)) + self.norm.running_mean

    (found,) = analyze(Net(), torch.zeros(2, 3)).diagnostics
    assert found.code == "FX501" and found.message.startswith("batch_norm at norm ") and "test_layers.py:" in found.location
