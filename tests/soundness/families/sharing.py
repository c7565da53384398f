"""Weights that are used again: recurrent, siamese, tied, repeated; and layers that own no parameter at all."""

from __future__ import annotations

import random
from dataclasses import replace

from tests.soundness.families.draft import Draft
from tests.soundness.families.plan import Plan
from tests.soundness.families.registry import family

ZEROS = (-1, 0, 0, 1)
ACTS = ("relu", "relu", "leaky_relu", "hardtanh", "relu6", "h", "abs", "clamp_max")
DATA = {"relu6": (0, 3, 6)}


def finished(d: Draft) -> Plan:
    """The plan, now and then in float32."""
    plan = d.plan()
    return replace(plan, dtype="float32") if d.rng.random() < 0.15 else plan


def _drafted(rng: random.Random, act: str, *shapes: tuple[int, ...]) -> Draft:
    return Draft(rng, *shapes, data=DATA.get(act, (-1, 0, 1)), weights=rng.choice([ZEROS, (-1, 0, 1, 1)]))


def _compared(d: Draft, a: str, b: str) -> None:
    """Two uses of one encoder: their difference, its size, or a layer behind both."""
    kind = d.rng.random()
    if kind < 0.5:
        d.add("add", a, b, args=(-1,))
    elif kind < 0.7:
        d.act("abs", "relu", on=d.add("add", a, b, args=(d.rng.choice([-1, -1, 1]),)))
    elif kind < 0.85:
        d.add(d.rng.choice(["max2", "maximum", "minimum"]), a, b)
    else:
        d.affine(on=d.add("cat", a, b, args=(1,)), bias=False)


@family("joint:recurrent")
def recurrent(rng: random.Random) -> Plan:
    """state = act(W x_t + U state [+ b]); the last state, or differences and sums of several."""
    act = rng.choice(ACTS[:5])
    width, length = rng.choice([1, 1, 2]), rng.choice([2, 3, 4])
    d = _drafted(rng, act, (rng.choice([1, 2, 3]), length))
    token = d.add("part", "x0", args=(1, 0, 1))
    w = d.add("linear", token, args=(width, rng.random() < 0.5))
    args, states, u = d.steps[-1].args, [d.add(act, w)], ""
    for t in range(1, length):
        new = d.add("linear", d.add("part", "x0", args=(1, t, t + 1)), args=args, of=w)
        old = d.add("linear", states[-1], args=(width, False), of=u)
        u = u or old
        states.append(d.add(act, d.add("add", new, old)))
    if rng.random() < 0.5:
        d.combine(states[-1], rng.choice(states[:-1]))
    if rng.random() < 0.3:
        d.affine()
    return finished(d)


@family("joint:recurrent, wide")
def wide(rng: random.Random) -> Plan:
    """A few touched entries of states that have biases enough to serve them, which is all that rows by biases need."""
    width, length, biased = rng.choice([3, 4, 5]), rng.choice([2, 3]), rng.random() < 0.5
    d = Draft(rng, (rng.choice([1, 2, 3]), length), data=(-1, 0, 1, 2), weights=rng.choice([(-1, 1, 2), (-2, -1, 0, 1, 2)]))
    w = d.add("linear", d.add("part", "x0", args=(1, 0, 1)), args=(width, True))
    args, states, u = d.steps[-1].args, [d.add("relu", w)], ""
    for t in range(1, length):
        new = d.add("linear", d.add("part", "x0", args=(1, t, t + 1)), args=args, of=w)
        old = d.add("linear", states[-1], args=(width, biased), of=u)
        u = u or old
        read = d.add("add", new, old)
        if rng.random() < 0.3:
            read = d.add("add", read, states[-1])
        states.append(d.add("relu", read))
    if rng.random() < 0.5:
        d.combine(states[-1], rng.choice(states[:-1]))
    return finished(d)


@family("joint:siamese")
def siamese(rng: random.Random) -> Plan:
    """An encoder of one or two layers on two inputs, used with opposite signs."""
    act, shape = rng.choice(ACTS), rng.choice([(2, 2), (3, 2), (2, 1, 3)])
    d = _drafted(rng, act, shape, shape)
    ends, firsts = [], {}
    depth, pooled = rng.choice([1, 1, 2]), rng.random() < 0.5
    layers = [(rng.choice([1, 2]), rng.random() < 0.5) for _ in range(depth)]
    for x in ("x0", "x1"):
        y = x
        for i, (width, bias) in enumerate(layers):
            op, args = ("linear", (width, bias)) if len(shape) == 2 else ("conv", (width, rng.choice([1]), 1, 0, bias))
            y = d.add(op, y, args=args, of=firsts.get(i, ""))
            firsts.setdefault(i, y)
            y = d.add(act, y)
        ends.append(d.add("max_pool", y, args=(2, 1)) if len(shape) > 2 and pooled else y)
    _compared(d, *ends)
    return finished(d)


@family("joint:tied autoencoder")
def autoencoder(rng: random.Random) -> Plan:
    """act(x W^T) W, against the input."""
    act = rng.choice(ACTS)
    d = _drafted(rng, act, (rng.choice([1, 2, 3]), 2))
    width = rng.choice([1, 2])
    first = d.add("linear", args=(width, rng.random() < 0.4))
    back = d.add("linear_t", d.add(act), args=(2,), of=first)
    if rng.random() < 0.4:
        back = d.add(act, back)
    if rng.random() < 0.4:
        back = d.add("linear_t", d.add(act, d.add("linear", back, args=d.steps[0].args, of=first)), args=(2,), of=first)
    if rng.random() < 0.7:
        d.add("add", back, "x0", args=(-1,))
        if rng.random() < 0.6:
            d.act("abs", "softshrink", "relu", "hardtanh")
    return finished(d)


@family("joint:repeated block")
def repeated(rng: random.Random) -> Plan:
    """z = act(W z + U x [+ b]) from 0 on, as a deep equilibrium is unrolled."""
    act = rng.choice(ACTS)
    d = _drafted(rng, act, (rng.choice([1, 2, 3]), rng.choice([1, 2])))
    width = rng.choice([1, 2])
    u = d.add("linear", "x0", args=(width, rng.random() < 0.5))
    z, before, w = d.add(act, u), u, ""
    for _ in range(rng.randint(1, 3)):
        again = d.add("linear", z, args=(width, False), of=w)
        w, before = w or again, z
        z = d.add(act, d.add("add", again, u, args=(rng.choice([1, 1, -1]),)))
    if rng.random() < 0.5:
        d.add("add", z, before, args=(-1,))
    return finished(d)


@family("joint:one layer at two depths")
def two_depths(rng: random.Random) -> Plan:
    """The second use sees the first; sometimes a layer of its own, a pool or a normalisation stands between."""
    act = rng.choice(ACTS)
    d = _drafted(rng, act, rng.choice([(2, 2), (3, 2), (2, 2, 3)]))
    op, args = ("linear", (2, rng.random() < 0.5)) if len(d.shape()) == 2 else ("conv", (2, 1, 1, 0, rng.random() < 0.5))
    first = d.add(op, args=args)
    y = d.add(act)
    kind = rng.random()
    if kind < 0.2:
        d.add(op, args=(2, *args[1:]))
    elif kind < 0.35:
        d.add("flip", args=(1,))
    elif kind < 0.5 and len(d.shape()) > 2:
        d.max_pool()
    elif kind < 0.6:
        d.add("scale", args=(-1,))
    z = d.add(act, d.add(op, args=args, of=first))
    if rng.random() < 0.5:
        d.combine(z, y)
    return finished(d)


@family("joint:layers without parameters")
def without_parameters(rng: random.Random) -> Plan:
    """ReLUs of sums of ReLUs, of features mixed by constants: one layer owns all weights."""
    d = _drafted(rng, "", (rng.choice([1, 2, 3]), 2))
    values = [d.affine(bias=rng.random() < 0.4, width=2)]
    for _ in range(rng.randint(2, 4)):
        a, b = rng.choice(values), rng.choice(values)
        mixed = d.add("flip", b, args=(1,)) if rng.random() < 0.5 else d.add("skew", b, args=(rng.choice([1, -1]), 1))
        y = d.add("add", a, mixed, args=(rng.choice([1, -1, -1, 2]),))
        values.append(d.act("relu", "relu", "abs", "leaky_relu", "hardtanh", on=y))
    if rng.random() < 0.6:
        d.combine(values[-1], values[-2])
    return finished(d)
