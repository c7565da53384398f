"""Random elementwise networks with shared parameters: what is certified survives kink-hitting integer parameters."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fxcheck.api import analyze
from tests.soundness.laboratory import WRONG
from tests.soundness.oracle import judge

ACTIVATIONS: tuple[Callable[[Tensor], Tensor], ...] = (
    F.relu, F.relu6, torch.abs, lambda y: torch.where(y < 0, 0.0, y), lambda y: y.clamp(max=0), lambda y: y.clamp(-1, 1),
    lambda y: F.leaky_relu(y, 0.5), lambda y: torch.maximum(y, torch.zeros(())), lambda y: F.relu(y) ** 2,
)  # fmt: skip
ANALYTIC: tuple[Callable[[Tensor], Tensor], ...] = (
    lambda y: -y, lambda y: 2 * y, lambda y: y.flip(-1), lambda y: y.roll(1, -1), torch.exp, torch.sigmoid,
    lambda y: y.mean(-1, keepdim=True) + 0 * y, lambda y: torch.cat([y[:, :1], -y[:, 1:]], 1),
    lambda y: F.avg_pool1d(y[:, None], 2, 1, 1)[:, 0, : y.shape[1]], lambda y: F.pad(y[:, 1:], (0, 1)),
    lambda y: y.cumsum(-1),
)  # fmt: skip


class RandomNet(nn.Module):
    """A seeded program over two samples of three features and six parameter vectors."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed
        self.vectors = nn.ParameterList(nn.Parameter(torch.zeros(3, dtype=torch.float64)) for _ in range(6))

    def forward(self, x: Tensor) -> Tensor:
        rng = random.Random(self.seed)
        values = [x, x * self.vectors[0] + self.vectors[1]]
        for _ in range(rng.randint(3, 8)):
            values.append(self._next(rng, rng.choice(values[-4:]), values))
        return values[-1] + rng.choice([0, 1, -1]) * values[-2]

    def _next(self, rng: random.Random, v: Tensor, values: list[Tensor]) -> Tensor:
        kind = rng.random()
        if kind < 0.34:
            return rng.choice(ACTIVATIONS)(v)
        if kind < 0.52:
            return v + rng.choice(list(self.vectors))
        if kind < 0.62:
            return v * rng.choice(list(self.vectors))
        if kind < 0.78:
            return v + rng.choice([1, -1, 2]) * rng.choice(values)
        return v * rng.choice(values) if kind < 0.86 else rng.choice(ANALYTIC)(v)


def problem_of(net: RandomNet, seed: int) -> tuple[list[nn.Parameter], Callable[[], Tensor]] | None:
    """Parameters and a loss at random small integers; None where the loss is constant."""
    generator = torch.Generator().manual_seed(seed)

    def integers(bound: int, *shape: int) -> Tensor:
        return torch.randint(-bound, bound + 1, shape, generator=generator).double()

    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(integers(1, 3))
    x, weights = integers(1, 2, 3), integers(2, 2, 3)
    if not net(x).requires_grad:
        return None
    return list(net.parameters()), lambda: (net(x) * weights).sum()


@pytest.mark.slow
@pytest.mark.parametrize("block", range(4))
def test_certified_random_networks_have_gradients_among_their_neighbours(block: int) -> None:
    certified = 0
    for seed in range(40 * block, 40 * (block + 1)):
        net = RandomNet(seed)
        if analyze(net, torch.zeros(2, 3, dtype=torch.float64)).verdict not in ("smooth", "certified"):
            continue
        certified += 1
        for trial in range(2):
            problem = problem_of(net, 7 * seed + trial)
            if problem is None:
                continue
            found = judge(*problem, seed=trial)
            assert found.verdict not in WRONG, f"network {seed}, parameters {trial}: {found}"
    assert certified >= 5, "the family must keep producing certified networks"
