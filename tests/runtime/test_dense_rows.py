"""Rows by biases that are written out: as autograd has them in float64, or not at all."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fxcheck.runtime.dense_rows import NotDense, look_at, measured, pulled_back
from fxcheck.runtime.joint_rows import Reading, Rows
from fxcheck.runtime.operands import Entries, Operand

_BATCH, _WIDTH = 5, 6
_Graph = tuple[list[Tensor], dict[str, Tensor]]


def _dense(seed: int, dtype: torch.dtype) -> _Graph:
    """Pre-activations of a random net with weights and biases that are used again, and its parameters."""
    generator = torch.Generator().manual_seed(seed)

    def drawn(*shape: int) -> Tensor:
        return torch.randint(-8, 9, shape, generator=generator).to(dtype).div(8).requires_grad_()

    p = {n: drawn(_WIDTH, _WIDTH) for n in "wv"} | {n: drawn(_WIDTH) for n in "bc"}
    p |= {"w3": drawn(_WIDTH, 3), "v3": drawn(3, _WIDTH), "c3": drawn(3)}
    layers: list[Callable[[Tensor], Tensor]] = [
        lambda h: F.linear(h, p["w"], p["b"]),
        lambda h: F.linear(h, p["w"].t(), p["c"]),
        lambda h: h @ p["v"] + p["b"],
        lambda h: F.linear(F.linear(h, p["v3"], p["c3"]).relu(), p["w3"]) + h,
        lambda h: torch.addmm(p["c"], h, p["v"]) + F.linear(h, p["w"]),
        lambda h: h + p["c"],
    ]
    h, found = drawn(_BATCH, _WIDTH).detach(), []
    for _ in range(int(torch.randint(2, 7, (), generator=generator))):
        z = layers[int(torch.randint(len(layers), (), generator=generator))](h)
        if z.requires_grad:
            found.append(z)
        h = z.relu()
    return found, p


def _groups(operands: Sequence[Tensor], seed: int) -> list[Entries]:
    generator = torch.Generator().manual_seed(seed)
    return [Entries(Operand.of(z), torch.randperm(z.numel(), generator=generator)[:4].sort().values) for z in operands]


def _by_autograd(operands: Sequence[Tensor], groups: Sequence[Entries], biases: Sequence[Tensor]) -> Tensor:
    rows = []
    for z, group in zip(operands, groups, strict=True):
        for entry in group.entries:
            found = torch.autograd.grad(
                z.view(-1)[entry], list(biases), retain_graph=True, materialize_grads=True, allow_unused=True
            )
            rows.append(torch.cat([g.reshape(-1) for g in found]).double())
    return torch.stack(rows)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_they_are_the_gradients_of_the_entries(dtype: torch.dtype) -> None:
    seen = 0
    for seed in range(150):
        operands, parameters = _dense(seed, dtype)
        groups, biases = _groups(operands, seed), [parameters[n] for n in ("b", "c", "c3")]
        found = pulled_back(groups, biases, (1.0, 0.75))
        right = _by_autograd(operands, groups, biases)
        rtol = 1e-5 if dtype is torch.float32 else 1e-12
        torch.testing.assert_close(found, torch.cat([right, 0.75 * right]), rtol=rtol, atol=rtol)
        seen += int(right.count_nonzero())
    assert seen > 1000


def _mean_over_samples(h: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return F.linear(h, w, b).relu() + F.linear(h, w, b).relu().mean(0, keepdim=True)


def _one_sample_for_all(h: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return F.linear(h, w) + F.linear(h[:1], w, b).relu()


def _one_feature_for_all(h: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return F.linear(h, w) + F.linear(h, w, b).relu() @ w[:, :1].detach()


def _weight_of_biases(h: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return F.linear(h, w * b, b)


def _normalised(h: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return F.batch_norm(F.linear(h, w, b), None, None, training=True)


def _scaled(h: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return torch.addmm(b, h, w, alpha=2) + torch.addmm(b, h, w, beta=3)


def _subtracted(h: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return torch.add(F.linear(h, w), b, alpha=-1)


def _computed_bias(h: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return F.linear(h, w, F.linear(b, w))


def _spread_bias(h: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return F.linear(h, w) + b.sum().reshape(1)


def _samples_as_features(h: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return h.t() @ F.linear(h, w, b)


def _another_batch(h: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return w.detach() @ F.linear(w, w, b).relu()


def _rolled(h: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return F.linear(h, w, b).roll(1, 0)


@pytest.mark.parametrize("function", [
    _mean_over_samples, _one_sample_for_all, _one_feature_for_all, _weight_of_biases, _normalised, _scaled, _subtracted,
    _computed_bias, _spread_bias, _samples_as_features, _another_batch, _rolled,
])  # fmt: skip
def test_where_anything_else_lies_between_they_are_not_written(function: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
    """Each is wrong where samples, features or slopes are taken for those of a dense layer."""
    torch.manual_seed(0)
    h, w, b = torch.randn(_BATCH, _WIDTH), torch.randn(_WIDTH, _WIDTH).requires_grad_(), torch.randn(_WIDTH).requires_grad_()
    z = function(h, w, b)
    with pytest.raises(NotDense):
        pulled_back(_groups([z], 0), [b], (1.0,))


def test_what_was_overwritten_is_an_error() -> None:
    w, b = torch.randn(_WIDTH, _WIDTH, requires_grad=True), torch.randn(_WIDTH, requires_grad=True)
    h = F.linear(torch.randn(_BATCH, _WIDTH), w, b).relu()
    z = F.linear(h, w, b)
    with torch.no_grad():
        h.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        pulled_back(_groups([z], 0), [b], (1.0,))


def _rows_of(z: Tensor, entries: Sequence[int], signs: Sequence[float]) -> Rows:
    count = len(entries)
    reading = Reading(Entries(Operand.of(z), torch.tensor(entries)), np.arange(count), np.arange(count), np.array(signs))
    return Rows([reading], ("layer",) * count, np.zeros(count, dtype=bool))


def test_opposite_rows_have_no_direction_and_parallel_ones_do() -> None:
    """Two samples read the same bias."""
    b = torch.zeros(_WIDTH, requires_grad=True)
    z = torch.randn(_BATCH, _WIDTH) @ torch.randn(_WIDTH, _WIDTH) + b
    assert look_at(_rows_of(z, [0, _WIDTH], [1.0, -1.0]), [b]) is None
    found = look_at(_rows_of(z, [0, _WIDTH], [-1.0, -1.0]), [b])
    assert found is not None and found.system is not None and len(found.layers) == 2 and found.dropped == 0


def test_what_rounding_moved_is_not_more_than_what_is_measured() -> None:
    """Weights of 62 bits of which almost nothing is left in their sum."""
    random, worst = np.random.default_rng(0), 0.0
    for _ in range(300):
        a, b = (random.integers(1 << 60, 1 << 62, (_WIDTH, _WIDTH)).astype(np.float64) for _ in range(2))
        matrices = [a, b, -(a + b) + random.integers(-999, 999, a.shape) * 512.0]
        exact = np.sum([[[int(x) for x in row] for row in m] for m in matrices], 0, dtype=object).astype(np.float64)
        bias = torch.ones(_WIDTH, dtype=torch.float64, requires_grad=True)
        h = torch.zeros(_BATCH, _WIDTH, dtype=torch.float64) + bias
        first, second, third = (h @ torch.from_numpy(m) for m in matrices)
        z = first + second + third
        entries, moved = measured([Entries(Operand.of(z), torch.arange(_WIDTH))], [bias])
        off = np.linalg.norm(entries - exact.T, axis=1).max()
        assert off <= moved
        worst = max(worst, off / np.linalg.norm(exact, axis=0).max())
    assert worst > 1e-3, "rounding must matter"
