"""Which layers feed which."""

from __future__ import annotations

import torch
from torch import nn

import fxcheck


class Branches(nn.Module):
    """Two branches, a skip over one of them, and a pooled layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.left, self.right = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.max_pool2d(torch.relu(self.first(x)), 2)
        left = torch.relu(self.left(x))
        return torch.abs(self.right(left) + x) + torch.relu_(self.right(x))


def _inputs(model: nn.Module, example: torch.Tensor) -> list[tuple[str | None, tuple[int, ...]]]:
    report = fxcheck.analyze(model, example)
    assert [layer["inputs"] for layer in report.to_dict()["layers"]] == [list(layer.inputs) for layer in report.layers]
    return [(layer.activation, layer.inputs) for layer in report.layers]


def test_skips_and_branches_are_edges_and_a_fused_pool_is_one_layer() -> None:
    found = _inputs(Branches(), torch.randn(2, 3, 8, 8))
    assert found[0] == ("relu", ()) and found[1] == ("relu", (0,))
    assert sorted(found[2:], key=str) == [("abs", (0, 1)), ("relu", (0,))]


def test_layers_in_parallel_do_not_feed_each_other() -> None:
    class Parallel(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(self.a(x)) + torch.relu(self.b(x))

    assert _inputs(Parallel(), torch.randn(2, 3)) == [("relu", ()), ("relu", ())]


def test_smooth_operations_carry_the_edge() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3), nn.Sigmoid(), nn.Linear(3, 3), nn.Hardtanh())
    assert _inputs(model, torch.randn(2, 3)) == [("relu", ()), ("hardtanh", (0,))]
