"""Weights and data for a network from a seed: small integers, so that kinks and ties are hit exactly."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from tests.soundness.families.plan import Net, Point, short


def point_of(net: Net, seed: str | int) -> Point:
    """The point of a seed; always the same one for a plan.

    Args:
        net: the network; its parameters are not touched.
        seed: of the weights, the data, the criterion's numbers and dropout.
    """
    rng, plan = random.Random(f"point {seed}"), net.plan
    zeros = rng.choice([0.0, 0.0, 0.3, 0.6])
    parameters = {
        short(n): _filled(tuple(p.shape), plan.weights, rng, zeros) for n, p in net.named_parameters()
    }  # fmt: skip
    twins = rng.random()
    inputs = tuple(
        tuple(_twinned(_filled(shape, plan.data, rng, zeros / 2), twins, rng) for shape in plan.shapes)
        for _ in range(plan.forwards)
    )
    batch = plan.shapes[0][0]
    shape = (2, batch, net.width) if plan.loss else (batch, net.width)
    ends = tuple(_filled(shape, (-2, -1, 0, 1, 2), rng, 0.0) for _ in range(plan.forwards))
    return Point(parameters, inputs, ends, rng.randrange(1 << 20))


def _filled(shape: tuple[int, ...], values: Sequence[int], rng: random.Random, zeros: float) -> Any:
    """Nested lists of random values, some of them 0."""
    if not shape:
        return float(0 if rng.random() < zeros else rng.choice(values))
    return [_filled(shape[1:], values, rng, zeros) for _ in range(shape[0])]


def _twinned(batch: list, kind: float, rng: random.Random) -> list:
    """Samples that share patches: equal ones, negatives of each other, or rotated along the last dimension."""
    if kind < 0.6:
        return batch
    if kind < 0.72:
        return [batch[0] for _ in batch]
    if kind < 0.86:
        return [batch[0] if i % 2 == 0 else _mapped(batch[0], lambda row: [-v for v in row]) for i in range(len(batch))]
    return [_mapped(sample, lambda row: row[-1:] + row[:-1]) if rng.random() < 0.5 else sample for sample in batch]


def _mapped(nested: Any, change: Any) -> Any:
    if isinstance(nested[0], list):
        return [_mapped(part, change) for part in nested]
    return change(nested)
