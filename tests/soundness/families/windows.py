"""Max-pools and what stands around them: padding, dilation, ceil_mode, overlap, averages, interpolation."""

from __future__ import annotations

import random

from tests.soundness.families.draft import Draft
from tests.soundness.families.plan import Plan
from tests.soundness.families.registry import family

SIGNAL, IMAGE, VOLUME = (2, 1, 6), (2, 1, 4, 4), (2, 1, 2, 2, 3)


def _front(d: Draft) -> None:
    d.affine()
    if d.rng.random() < 0.5:
        d.act("relu", "relu", "leaky_relu", "hardtanh", "clamp_max")


@family("pool:1d")
def pool_1d(rng: random.Random) -> Plan:
    d = Draft(rng, SIGNAL)
    _front(d)
    d.max_pool()
    if rng.random() < 0.4:
        d.affine()
        d.max_pool()
    return d.plan()


@family("pool:2d")
def pool_2d(rng: random.Random) -> Plan:
    d = Draft(rng, IMAGE)
    _front(d)
    d.max_pool()
    if rng.random() < 0.3:
        d.act("relu", "hardtanh2")
    return d.plan()


@family("pool:3d")
def pool_3d(rng: random.Random) -> Plan:
    d = Draft(rng, VOLUME)
    d.add("conv", args=(rng.choice([1, 2]), rng.choice([1, 2]), 1, rng.choice([0, 1]), rng.random() < 0.5))
    if rng.random() < 0.5:
        d.act("relu")
    d.max_pool()
    return d.plan()


@family("pool:adaptive")
def adaptive(rng: random.Random) -> Plan:
    d = Draft(rng, rng.choice([SIGNAL, (2, 1, 5), IMAGE, (2, 1, 3, 5)]))
    _front(d)
    d.add("adaptive_max", args=(rng.choice([1, 2, 3]),))
    return d.plan()


@family("pool:of a pool")
def of_a_pool(rng: random.Random) -> Plan:
    """Two pools in series, overlapping, or in the branches of an Inception block."""
    d = Draft(rng, rng.choice([SIGNAL, IMAGE]))
    _front(d)
    first = d.max_pool()
    if rng.random() < 0.5:
        d.max_pool(first)
    else:
        d.combine(d.max_pool(first), d.max_pool(first))
        if rng.random() < 0.5:
            d.max_pool()
    return d.plan()


@family("pool:minima")
def minima(rng: random.Random) -> Plan:
    """Max beside min of one tensor: ties with opposite picks."""
    d = Draft(rng, SIGNAL)
    y = d.affine()
    low = d.add("min_pool", y, args=(2, rng.choice([1, 2])))
    high = d.add("max_pool", y, args=(2, rng.choice([1, 2])))
    d.combine(high, low)
    return d.plan()


@family("pool:after an average")
def after_an_average(rng: random.Random) -> Plan:
    """Unequal coefficients of a shared bias under zero padding: Algorithm 1, not 2."""
    d = Draft(rng, SIGNAL, data=(-4, 0, 0, 4))
    d.affine(bias=True)
    d.avg_pool()
    if rng.random() < 0.8:
        d.act("relu")
    d.max_pool()
    return d.plan()


@family("pool:averages only")
def averages_only(rng: random.Random) -> Plan:
    d = Draft(rng, rng.choice([SIGNAL, IMAGE]))
    d.affine()
    d.avg_pool()
    d.act("relu", "leaky_relu", "relu6")
    if rng.random() < 0.4:
        d.affine()
        d.avg_pool()
        d.act("relu")
    return d.plan()


@family("pool:padding variants")
def padding(rng: random.Random) -> Plan:
    """Zero, reflected, replicated and circular padding, in the convolution or before it."""
    d = Draft(rng, rng.choice([SIGNAL, (3, 1, 4)]))
    mode = rng.choice(["zeros", "reflect", "replicate", "circular"])
    d.add("conv", args=(rng.choice([1, 2]), rng.choice([2, 3]), 1, 1, rng.random() < 0.5, 1, 1, mode))
    if rng.random() < 0.4:
        d.add("pad", args=(1, rng.choice([0, 1]), rng.choice(["constant", "reflect", "replicate", "circular"])))
    d.act("relu", "relu", "hardtanh")
    if rng.random() < 0.7:
        d.max_pool()
    return d.plan()


@family("pool:dilated and grouped")
def dilated(rng: random.Random) -> Plan:
    d = Draft(rng, (2, 2, 6))
    d.add("conv", args=(2, 2, 1, rng.choice([0, 1]), rng.random() < 0.5, rng.choice([1, 2]), rng.choice([1, 2])))
    if rng.random() < 0.5:
        d.act("relu")
    d.max_pool()
    return d.plan()


@family("pool:strided transposed convolution")
def transposed(rng: random.Random) -> Plan:
    """Twins at different phases are different functions."""
    d = Draft(rng, rng.choice([(2, 1, 3), (2, 1, 2, 2)]))
    d.add("conv_transpose", args=(1, 2, rng.choice([1, 2]), rng.random() < 0.5))
    if rng.random() < 0.5:
        d.act("relu")
    a = d.max_pool()
    if rng.random() < 0.5:
        d.combine(a, d.add("flip", a, args=(2,)))
    return d.plan()


@family("pool:interpolated")
def interpolated(rng: random.Random) -> Plan:
    d = Draft(rng, (2, 1, 3))
    d.affine()
    d.add("interpolate", args=(2, rng.choice(["nearest", "linear"])))
    d.act("relu", "hardtanh")
    if rng.random() < 0.7:
        d.max_pool()
    return d.plan()


@family("pool:position parameters")
def position_parameters(rng: random.Random) -> Plan:
    """Position embeddings and factors in front of a pool: equal values, different functions."""
    d = Draft(rng, (2, 1, 4))
    d.affine()
    d.add(rng.choice(["plus", "times"]), args=("entry",))
    y = d.last
    a = d.max_pool(y)
    if rng.random() < 0.7:
        d.combine(a, d.max_pool(d.add("flip", y, args=(2,))))
    return d.plan()


@family("pool:joined branches")
def joined(rng: random.Random) -> Plan:
    """Two branches side by side, by channel or by position, then one pool."""
    d = Draft(rng, (2, 1, 4))
    a = d.affine()
    if rng.random() < 0.5:
        a = d.act("relu", on=a)
    b = d.affine(on="x0", width=d.shape(a)[1])
    d.add("cat", a, b, args=(rng.choice([1, 2]),))
    d.max_pool()
    return d.plan()
