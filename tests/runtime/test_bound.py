"""A forward with its operators at hand computes what torch.fx's own does."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import fxcheck
from fxcheck.runtime.bound import bound


@torch.library.custom_op("fxcheck_tests::twice_for_bound", mutates_args=())
def _twice(x: Tensor) -> Tensor:
    return x * 2


_twice.register_fake(torch.empty_like)
_twice.register_autograd(lambda ctx, g: _twice(g))


class WithOperator(nn.Module):
    """An operator of somebody's own, keyword arguments and several outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 4)

    def forward(self, x: Tensor, scale: float = 1.0) -> dict[str, Tensor]:
        y = torch.relu(self.layer(x))
        low, high = y.chunk(2, dim=1)
        return {"low": torch.add(low, high, alpha=2), "high": _twice(high).softmax(-1, dtype=torch.float32) * scale}


@pytest.mark.parametrize("make", [
    lambda: nn.RNN(3, 4, nonlinearity="relu", batch_first=True), lambda: nn.Sequential(nn.Linear(3, 4), nn.Dropout(), nn.ReLU6()),
    WithOperator, lambda: nn.TransformerEncoderLayer(3, 1, 4, batch_first=True),
])  # fmt: skip
def test_bits_are_those_of_the_module(make: Callable[[], nn.Module]) -> None:
    model = make()
    x = torch.randn(2, 5, 3) if isinstance(model, (nn.RNN, nn.TransformerEncoderLayer)) else torch.randn(2, 3)
    (_, program) = fxcheck.instrument(model, (x,), allow_uncovered=True)._programs[0]
    found = []
    for forward in (program.module.forward, bound(program.module)):
        torch.manual_seed(0)
        model.zero_grad()
        outputs = torch.utils._pytree.tree_leaves(forward(x))
        sum(y.square().sum() for y in outputs).backward()
        found.append([*outputs, *(p.grad for p in model.parameters())])
    assert all(map(torch.equal, *found))
    assert "ops" not in bound(program.module).__func__.__code__.co_names  # type: ignore[attr-defined]


class _Rows(nn.Module):
    """Reads rows, writes into a row of its own, and returns a view of all of it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.layer(x)
        z = torch.relu(y[:, 0] + y[:, 1:, 2].sum(1, keepdim=True))
        y[:, 1] += z
        y[:].mul_(2)
        return y[:, :, 1:].sum(2), y[:]


def test_a_colon_costs_no_operator_and_changes_no_bit() -> None:
    model, x = _Rows(), torch.randn(2, 5, 3)
    (_, program) = fxcheck.instrument(model, (x,), allow_uncovered=True)._programs[0]
    kept = program.module.graph.find_nodes(op="call_function", target=torch.ops.aten.slice.Tensor)
    assert [n.args[1:3] for n in kept] == [(1, 1), (0, 0), (2, 1), (0, 0)]  # one is written to, and one is returned
    found = []
    for forward in (model, program.module, bound(program.module)):
        model.zero_grad()
        outputs = forward(x)
        sum(v.square().sum() for v in outputs).backward()
        found.append([*outputs, *(p.grad for p in model.parameters())])
    assert all(map(torch.equal, found[0], found[1])) and all(map(torch.equal, found[0], found[2]))


def test_gradients_are_added_up_in_the_models_order() -> None:
    class Read(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 3, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            y = torch.relu(self.layer(x))
            v = y[:]
            return (v * 1.3).tan() + (y * 1.1).exp() + (v * v).cos() + (y / 3) + (v * 0.7).sin()

    model = Read()
    checked = fxcheck.instrument(model, (torch.zeros(4, 3),))
    for seed in range(20):
        x, found = torch.randn(4, 3, generator=torch.Generator().manual_seed(seed)), []
        for forward in (model, checked):
            model.zero_grad()
            forward(x).sum().backward()
            found.append(model.layer.weight.grad.clone())
        assert torch.equal(*found)
