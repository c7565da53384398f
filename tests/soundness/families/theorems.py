"""Networks on which one way of certifying is likely: Algorithm 2, T1, T5; and where only a joint condition would do."""

from __future__ import annotations

import random

from tests.soundness.families.draft import Draft
from tests.soundness.families.plan import Plan
from tests.soundness.families.registry import family

ZEROS = (-1, 0, 0, 1)
TWO_SIDED = {"hardsigmoid": (-3, 0, 3), "hardtanh": (-1, 0, 1), "abs": (-1, 0, 1), "relu6": (0, 3, 6),
             "hardswish": (-3, 0, 3), "softshrink": (-1, 0, 1), "maximum_0": (-1, 0, 1)}  # fmt: skip
"""Activations that are not lambda-consistent or not one-sided, and data that hits their kinks."""


@family("theorem:Algorithm 2")
def algorithm_2(rng: random.Random) -> Plan:
    """ReLU on a shared bias under a max: ties above 0 have rows, the others need none."""
    d = Draft(rng, rng.choice([(2, 1, 5), (3, 2, 4), (2, 1, 3, 3), (4, 2)]), weights=rng.choice([ZEROS, (-1, 0, 1, 2)]))
    d.affine(bias=True)
    if len(d.shape()) == 2:
        d.add("relu")
        d.add(rng.choice(["max_dim", "max_dim", "cummax"]), args=(1,))
    else:
        if rng.random() < 0.2:
            d.add("batch_norm", args=(True, rng.random() < 0.5))
        d.add("relu")
        d.max_pool()
    return _behind(d)


@family("theorem:Algorithm 2 across channels")
def algorithm_2_across(rng: random.Random) -> Plan:
    """Windows over several channels, each with its own bias: one step down still moves all of them."""
    d = Draft(rng, rng.choice([(3, 1, 3), (2, 2, 3)]), weights=ZEROS)
    d.add("conv", args=(2, rng.choice([1, 2]), 1, 0, True))
    if rng.random() < 0.3:
        d.add("cat", d.last, d.add("conv", "x0", args=(1, 1, 1, 0, True)), args=(1,))
    d.add("relu")
    d.add("max_dim", args=(1,))
    return _behind(d)


@family("theorem:ReLU after the pool")
def relu_after(rng: random.Random) -> Plan:
    """The same functions with the pool first: ties at 0 and below are flat."""
    d = Draft(rng, rng.choice([(2, 1, 5), (2, 2, 4)]), weights=ZEROS)
    d.affine(bias=True)
    y = d.max_pool()
    d.add("relu", y)
    if rng.random() < 0.3:
        d.combine(d.last, y)
    return _behind(d)


@family("theorem:T1")
def t1(rng: random.Random) -> Plan:
    """One sample, distinct biases, any Clarke proxies; sometimes a residual, which keeps the hypotheses."""
    act = rng.choice(list(TWO_SIDED))
    d = Draft(
        rng, (1, rng.choice([1, 2])), data=TWO_SIDED[act], one_sample=True, weights=rng.choice([ZEROS, (-1, 0, 1, 3)])
    )
    width = rng.choice([1, 2])
    for _ in range(rng.randint(1, 3)):
        before = d.last
        d.add("linear", args=(width, True))
        y = d.add(act)
        if d.shape(before) == d.shape(y) and rng.random() < 0.4:
            d.add("add", y, before, args=(rng.choice([1, -1]),))
    return d.plan()


@family("theorem:T1 out of reach")
def t1_not(rng: random.Random) -> Plan:
    """One sample, and biases that are not distinct: shared by a convolution, a reuse, a flip or by two branches."""
    act = rng.choice(list(TWO_SIDED))
    d = Draft(rng, (1, 1, 3), data=TWO_SIDED[act], one_sample=True, weights=ZEROS)
    kind = rng.random()
    if kind < 0.4:
        d.add("conv", args=(rng.choice([1, 2]), 1, 1, 0, True))
        d.add(act)
        return _behind(d)
    y = d.add("linear", d.add("flatten"), args=(2, True))
    a = d.add(act, y)
    b = d.add(act, d.add("linear", "v0", args=(2, True), of=y) if kind < 0.7 else d.add("scale", y, args=(-1,)))
    d.combine(a, b)
    return d.plan()


@family("theorem:T5")
def t5(rng: random.Random) -> Plan:
    """Stacks without biases on which touched columns are few."""
    act = rng.choice(list(TWO_SIDED))
    d = Draft(
        rng, rng.choice([(2, 2), (2, 3), (3, 3), (1, 3)]), data=TWO_SIDED[act], weights=rng.choice([ZEROS, (0, 1)])
    )
    for _ in range(rng.randint(1, 2)):
        d.add("linear", args=(rng.choice([2, 3]), rng.random() < 0.2))
        d.add(act)
    d.add("linear", args=(1, False))
    return d.plan()


@family("theorem:joint only")
def joint(rng: random.Random) -> Plan:
    """Weights used again without fresh ones in between: right or wrong, and no layer to see it."""
    d = Draft(rng, (2, 2), weights=ZEROS)
    act = rng.choice(["relu", "relu", "leaky_relu", "h", "hardtanh"])
    first = d.add("linear", args=(2, rng.random() < 0.5))
    y = d.add(act)
    for _ in range(rng.randint(1, 2)):
        again = d.add("linear", y, args=d.steps[0].args, of=first)
        z = d.add("add", again, rng.choice(["x0", first, y]), args=(rng.choice([1, -1]),))
        y = d.add(act, z)
    return d.plan()


def _behind(d: Draft) -> Plan:
    if d.rng.random() < 0.3:
        d.affine()
        d.act("relu", "tanh")
    return d.plan()
