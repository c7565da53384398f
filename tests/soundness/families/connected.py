"""Stacks of fully connected layers alone, where T5 may decide a step."""

from __future__ import annotations

import random

from tests.soundness.families.draft import Draft
from tests.soundness.families.plan import Plan
from tests.soundness.families.registry import family

NOT_CONSISTENT = ("relu6", "hardtanh", "hardsigmoid", "hardswish", "abs", "softshrink", "clamp", "maximum_0")
DATA = {"relu6": (0, 3, 6), "hardsigmoid": (-3, 0, 3), "hardswish": (-3, 0, 3)}


def _stack(rng: random.Random, act: str, bias: float, shape: tuple[int, ...]) -> Plan:
    d = Draft(rng, shape, data=DATA.get(act, (-1, 0, 1)))
    for _ in range(rng.randint(1, 3)):
        d.add("linear", args=(rng.choice([1, 2, 3]), rng.random() < bias))
        d.add(act)
    if rng.random() < 0.3:
        d.add("linear", args=(1, rng.random() < 0.5))
    return d.plan()


@family("dense:kinks on two sides")
def two_sided(rng: random.Random) -> Plan:
    """The paper's experiment: layers with and without biases that are not lambda-consistent."""
    return _stack(rng, rng.choice(NOT_CONSISTENT), 0.5, rng.choice([(2, 3), (3, 3), (2, 2)]))


@family("dense:without biases")
def without_biases(rng: random.Random) -> Plan:
    return _stack(
        rng, rng.choice(["relu", "leaky_relu", "h", *NOT_CONSISTENT]), 0.0, rng.choice([(2, 2), (3, 2), (2, 4)])
    )


@family("dense:tokens")
def tokens(rng: random.Random) -> Plan:
    """A linear layer on (B, T, N): its columns are all B*T of them."""
    return _stack(rng, rng.choice([*NOT_CONSISTENT, "relu"]), 0.4, (2, 2, 3))


@family("dense:one layer that hurts T5")
def almost(rng: random.Random) -> Plan:
    """A residual, a second use or a shared vector makes it no stack, so that T5 must not be used."""
    d = Draft(rng, (2, 2))
    act = rng.choice([*NOT_CONSISTENT, "relu"])
    first = d.add("linear", args=(2, rng.random() < 0.3))
    a = d.add(act)
    second = d.add("linear", args=(2, False), of=first if rng.random() < 0.5 else "")
    if rng.random() < 0.6:
        d.add("add", second, rng.choice([a, first, "x0"]), args=(rng.choice([1, -1]),))
    d.add(act)
    return d.plan()


@family("dense:two activations of one layer")
def two_heads(rng: random.Random) -> Plan:
    """act(A x) - act'(A x): a stack up to its end."""
    d = Draft(rng, (2, 2))
    y = d.add("linear", args=(2, rng.random() < 0.3))
    acts = [*NOT_CONSISTENT, "relu", "h", "clamp_max"]
    d.combine(d.act(*acts, on=y), d.act(*acts, on=y))
    return d.plan()
