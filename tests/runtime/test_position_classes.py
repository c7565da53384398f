"""Three ways to ask whether positions are equal functions answer alike, on whole graphs."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import fxcheck
from fxcheck.runtime.position_classes import PositionClasses
from fxcheck.runtime.signature import writes


class Residual(nn.Module):
    """Strides, dilation, a skip connection, an average pool that pads, batch normalisation and two max-pools."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 4, 3, padding=2, dilation=2)
        self.norm = nn.BatchNorm2d(4)
        self.last = nn.Conv2d(4, 4, (1, 3), stride=(1, 2))

    def forward(self, x: Tensor) -> Tensor:
        """Two pools, one behind a sum of branches."""
        y = torch.relu(self.first(x))
        y = torch.max_pool2d(y, 2)
        y = torch.max_pool2d(y + torch.relu(self.norm(self.second(y))), 3, 2, 1)
        return torch.max_pool2d(torch.nn.functional.avg_pool2d(self.last(y), 3, 1, 1, ceil_mode=True), 2).mean()


def _flat_images() -> Tensor:
    x = torch.zeros(3, 2, 24, 28)
    x[0, :, 4:20, 3:17] = 0.5
    x[1] = torch.rand(2, 24, 28, generator=torch.Generator().manual_seed(0)).round()
    x[2, :, ::2] = 1.0
    return x


@pytest.fixture(scope="module")
def known() -> PositionClasses:
    x = _flat_images()
    checked = fxcheck.instrument(Residual(), (x,))
    (_, program) = checked._programs[0]
    return program.classes_of([x], writes([x]))


def _maps(known: PositionClasses) -> list[tuple[int, Tensor]]:
    found = [(n.id, known.of(n.id)) for n in known.facts.graph.nodes]
    return [(id_, m) for id_, m in found if m is not None]


def test_the_network_has_maps_of_every_kind(known: PositionClasses) -> None:
    operators = {known.facts.graph.nodes[id_].op for id_, _ in _maps(known)}
    assert {"aten.conv2d.default", "aten.max_pool2d.default", "aten.avg_pool2d.default", "aten.add.Tensor"} <= operators


def test_pairs_and_classes_agree(known: PositionClasses) -> None:
    generator = torch.Generator().manual_seed(1)
    several = 0
    for node, classes in _maps(known):
        size = prod(classes.shape[2:])
        sample, one, other = (torch.randint(n, (300,), generator=generator) for n in (3, size, size))
        flat = classes.flatten(2)
        wanted = (flat[:, sample, one] == flat[:, sample, other]).all(0)
        found = known.are_equal(node, *(t.numpy() for t in (sample, one, other)))
        assert found is not None and np.array_equal(found, wanted.numpy())
        several += int((wanted & (one != other)).sum())
    assert several > 100


def test_many_pairs_are_compared_by_their_classes(known: PositionClasses, monkeypatch: pytest.MonkeyPatch) -> None:
    node, classes = _maps(known)[-1]
    size = prod(classes.shape[2:])
    sample, one, other = np.zeros(size * size, np.int64), np.arange(size * size) % size, np.arange(size * size) // size
    exact = known.are_equal(node, sample, one, other)
    monkeypatch.setattr("fxcheck.runtime.position_classes._MOST_PAIRS", 10)
    hashed = known.are_equal(node, sample, one, other)
    assert exact is not None and hashed is not None and np.array_equal(exact, hashed)


@pytest.mark.parametrize("shift", [(0, 1), (1, 0), (1, -1), (2, 1)])
def test_neighbours_and_classes_agree(known: PositionClasses, shift: tuple[int, int]) -> None:
    several = 0
    for node, classes in _maps(known):
        maps = known.equal_neighbours(node, (shift, (0, 2)))
        assert maps is not None
        found = maps[0]
        height, width = classes.shape[2:]
        wanted = torch.zeros(3, height, width, dtype=torch.bool)
        for i in range(max(0, -shift[0]), height - max(0, shift[0])):
            for j in range(max(0, -shift[1]), width - max(0, shift[1])):
                wanted[:, i, j] = (classes[:, :, i, j] == classes[:, :, i + shift[0], j + shift[1]]).all(0)
        assert torch.equal(found, wanted)
        several += int(wanted.sum())
    assert several > 100


class Branches(nn.Module):
    """Eight times three branches that meet."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleList([nn.Conv2d(3, 1, k, padding=k // 2) for _ in range(8) for k in (1, 3, 5)])

    def forward(self, x: Tensor) -> Tensor:
        """A max-pool behind all of them."""
        for first in range(0, len(self.parts), 3):
            x = torch.relu(torch.cat([part(x) for part in self.parts[first : first + 3]], 1))
        return torch.max_pool2d(x, 2).mean()


def test_pairs_are_not_followed_along_every_path(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.zeros(1, 3, 12, 12)
    (_, program) = fxcheck.instrument(Branches(), (x,))._programs[0]
    known = program.classes_of([x], writes([x]))
    asked, right = [], PositionClasses._equal
    monkeypatch.setattr(PositionClasses, "_equal", lambda self, node, *pairs: (asked.append(node), right(self, node, *pairs))[1])
    last = next(n.id for n in reversed(known.facts.graph.nodes) if n.op.startswith("aten.relu"))
    one = np.array([0])
    assert known.are_equal(last, one, one, one + 1) is not None
    assert asked and len(asked) <= len(known.facts.graph.nodes)


class Wiped(nn.Module):
    """Two windows over the same values, (a, b) and (b, a) times 1 and -1: their sum is 0, and AD's gradient is not."""

    def __init__(self, when: str) -> None:
        super().__init__()
        self.conv, self.when = nn.Conv2d(2, 1, 1, bias=False).double(), when
        nn.init.ones_(self.conv.weight)

    def forward(self, x: Tensor, factors: Tensor) -> Tensor:
        """The input's bits, which tell a from b, go before or after the pool."""
        read = x * 2.0
        if self.when == "before":
            x.zero_()
        y = torch.max_pool2d(self.conv(read), (1, 2))
        if self.when == "after":
            x.zero_()
        return (y * factors).sum()


@pytest.mark.parametrize("when", ["never", "before", "after"])
def test_an_input_that_is_overwritten_tells_nothing_of_what_was_read(when: str) -> None:
    a, b = (1.0, 2.0), (2.0, 1.0)
    x = torch.tensor([[a, b], [b, a]], dtype=torch.float64).movedim(2, 0)[None].contiguous()
    factors = torch.tensor([1.0, -1.0], dtype=torch.float64).reshape(1, 1, 2, 1)
    checked = fxcheck.instrument(Wiped(when), (x.clone(), factors))
    for _ in range(3):  # maxima are looked at where they are at first, and later when the forward has ended
        with checked.step() as step:
            checked(x.clone(), factors).backward()
        assert (step.verdict, step.layers[0].ties, step.layers[0].nontrivial) == ("uncertified", 2, 2)
