"""Many rows in few dimensions: systems that no look at two rows or at their sum settles, feasible or not."""

from __future__ import annotations

import random

from tests.soundness.families.draft import Draft
from tests.soundness.families.plan import Plan
from tests.soundness.families.registry import family

ZEROS = (-1, 0, 0, 0, 1)
TWO_SIDED = ("relu", "relu", "leaky_relu", "h", "clamp_max", "clamp_min", "mask", "threshold", "leaky_relu_falling")


def _skewed(d: Draft, on: str, dim: int = 1) -> str:
    """Features mixed by a unimodular matrix: rows of half-spaces that hardly overlap, and as feasible as before."""
    return d.add("skew", on, args=(d.rng.choice([2, 3, 5, 9]), dim))


def _width(d: Draft) -> int:
    """Two neurons only in two dimensions: the pieces of neurons that share nothing multiply."""
    return d.rng.choice([1, 1, 2]) if d.shape()[1] == 2 else 1


def _end(d: Draft) -> Plan:
    """Sometimes the difference of two outputs, or a layer behind."""
    kind, y = d.rng.random(), d.last
    if kind < 0.25:
        d.combine(y, d.add("flip", y, args=(len(d.shape()) - 1,)))
    elif kind < 0.4:
        d.affine()
    return d.plan()


@family("rows:one neuron, many samples")
def many_samples(rng: random.Random) -> Plan:
    """Touched columns of one neuron without a bias: more of them than dimensions, so that T5 is silent."""
    d = Draft(rng, rng.choice([(4, 2), (5, 2), (6, 3), (5, 3)]), weights=ZEROS)
    _skewed(d, "x0")
    d.add("linear", args=(_width(d), rng.random() < 0.15))
    d.act(*TWO_SIDED)
    return _end(d)


@family("rows:one layer, two activations")
def two_activations(rng: random.Random) -> Plan:
    """One matrix under activations that ask for opposite sides, on inputs of their own."""
    shape = rng.choice([(3, 2), (3, 3)])
    d = Draft(rng, shape, shape, weights=ZEROS)
    args = (_width(d), False)
    first = d.add("linear", _skewed(d, "x0"), args=args)
    a = d.act(*TWO_SIDED, on=first)
    second = d.add("linear", _skewed(d, "x1"), args=args, of=first)
    d.combine(a, d.act(*TWO_SIDED, on=second))
    return d.plan()


@family("rows:tied pools of few channels")
def tied_pools(rng: random.Random) -> Plan:
    """Differences of patches with mixed signs, over several windows and samples."""
    d = Draft(rng, rng.choice([(2, 2, 5), (3, 2, 4), (2, 3, 5)]), weights=ZEROS)
    _skewed(d, "x0")
    d.add("conv", args=(rng.choice([1, 1, 2]), 1, 1, 0, rng.random() < 0.3))
    d.add("max_pool", args=(rng.choice([2, 2, 3]), rng.choice([1, 2]), 0, rng.choice([1, 1, 2])))
    return _end(d)


@family("rows:touches and ties of one layer")
def touches_and_ties(rng: random.Random) -> Plan:
    """Zeros under a pool: rows of touched entries beside differences."""
    d = Draft(rng, rng.choice([(2, 2, 5), (3, 2, 4), (2, 2, 2, 3)]), weights=ZEROS)
    _skewed(d, "x0")
    d.add("conv", args=(rng.choice([1, 1, 2]), 1, 1, 0, False))
    d.act("leaky_relu", "h", "relu", "leaky_relu_falling", "threshold")
    d.add("max_pool", args=(2, rng.choice([1, 2])))
    return _end(d)


@family("rows:maxima across channels")
def across_channels(rng: random.Random) -> Plan:
    """Every channel's weights in each row."""
    d = Draft(rng, rng.choice([(5, 2), (2, 2, 3), (4, 2)]), weights=ZEROS)
    _skewed(d, "x0")
    if len(d.shape()) == 2:
        d.add("linear", args=(rng.choice([2, 3]), rng.random() < 0.3))
    else:
        d.add("conv", args=(rng.choice([2, 3]), 1, 1, 0, rng.random() < 0.3))
    if rng.random() < 0.3:
        d.act("leaky_relu", "h", "relu")
    d.add(rng.choice(["max_dim", "max_dim", "min_dim"]), args=(1,))
    return d.plan()


@family("rows:deep layers on shared parameters")
def shared(rng: random.Random) -> Plan:
    """Neurons whose pre-activations share a vector: u . features, with some features out of an earlier layer."""
    d = Draft(rng, (4, 3), weights=ZEROS)
    _skewed(d, "x0")
    if rng.random() < 0.5:
        d.add("linear", args=(2, True))
        d.act("relu", "leaky_relu")
    features = d.add("channel", d.last)
    y = d.add("conv", features, args=(1, 2, 1, rng.choice([0, 0, 1]), False))
    if rng.random() < 0.3:
        y = d.add("add", y, d.add("flip", y, args=(2,)), args=(-1,))
    d.act(*TWO_SIDED, on=y)
    return _end(d)


@family("rows:of two forwards")
def two_forwards(rng: random.Random) -> Plan:
    """Each micro-batch has a direction; the step may have none."""
    d = Draft(rng, rng.choice([(2, 2), (3, 2), (2, 2, 3)]), weights=ZEROS, forwards=rng.choice([2, 3]))
    _skewed(d, "x0")
    if len(d.shape()) == 2:
        d.add("linear", args=(1, False))
    else:
        d.add("conv", args=(1, 1, 1, 0, False))
    d.act(*TWO_SIDED) if len(d.shape()) == 2 or rng.random() < 0.5 else d.max_pool()
    return d.plan()
