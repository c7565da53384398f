"""How values flow: residual, dense, siamese, concatenated, tied, recurrent, random depth, dropout, T5 stacks excepted."""

from __future__ import annotations

import random

from tests.soundness.families.draft import Draft
from tests.soundness.families.plan import Plan
from tests.soundness.families.registry import family

FLAT, SIGNAL = (3, 2), (2, 1, 4)
ACTS = ("relu", "relu", "relu", "leaky_relu", "hardtanh", "clamp_max", "abs", "h")


@family("flow:residual")
def residual(rng: random.Random) -> Plan:
    d = Draft(rng, rng.choice([FLAT, SIGNAL]))
    x = d.affine(width=2)
    for _ in range(rng.randint(1, 2)):
        d.act(*ACTS)
        if len(d.shape(x)) == 2:
            d.add("linear", args=(d.shape(x)[1], rng.random() < 0.5))
        else:
            d.add("conv", args=(d.shape(x)[1], 3, 1, 1, rng.random() < 0.5))
        x = d.combine(d.last, x)
    d.act(*ACTS)
    if len(d.shape()) > 2 and rng.random() < 0.5:
        d.max_pool()
    return d.plan()


@family("flow:dense")
def dense(rng: random.Random) -> Plan:
    d = Draft(rng, rng.choice([FLAT, SIGNAL]))
    for _ in range(rng.randint(2, 3)):
        before = d.last
        if len(d.shape()) == 2:
            d.add("linear", args=(1, rng.random() < 0.5))
        else:
            d.add("conv", args=(1, 1, 1, 0, rng.random() < 0.5))
        d.add("cat", before, d.act(*ACTS), args=(1,))
    if len(d.shape()) > 2 and rng.random() < 0.6:
        d.max_pool()
    return d.plan()


@family("flow:siamese")
def siamese(rng: random.Random) -> Plan:
    """One network on two inputs, subtracted."""
    shape = rng.choice([FLAT, SIGNAL])
    d = Draft(rng, shape, shape)
    act = rng.choice(ACTS)
    first = d.affine("x0")
    args = d.steps[-1].args if d.steps else (1, True)
    op = d.steps[-1].op if d.steps else "linear"
    a = d.add(act, first)
    b = d.add(act, d.add(op, "x1", args=args, of=first))
    if len(d.shape(a)) > 2 and rng.random() < 0.5:
        a, b = d.add("max_pool", a, args=(2,)), d.add("max_pool", b, args=(2,))
    d.combine(a, b)
    return d.plan()


@family("flow:tied weights")
def tied(rng: random.Random) -> Plan:
    """A square layer used again and again: no fresh parameters after the first use."""
    d = Draft(rng, FLAT)
    args = (2, rng.random() < 0.6)
    first = d.add("linear", args=args)
    d.act(*ACTS)
    for _ in range(rng.randint(1, 2)):
        d.add("linear", args=args, of=first)
        if rng.random() < 0.4:
            d.add("plus", args=("entry",))
        d.act(*ACTS)
    return d.plan()


@family("flow:recurrent")
def recurrent(rng: random.Random) -> Plan:
    """A recurrent network by hand: state = act(W x_t + U state [+ b_t])."""
    d = Draft(rng, (2, 3))
    act, bias, fresh = rng.choice(ACTS), rng.random() < 0.6, rng.random() < 0.3
    token = d.add("part", "x0", args=(1, 0, 1))
    w = d.add("linear", token, args=(1, bias))
    state, u = d.add(act, w), ""
    for t in range(1, rng.randint(2, 3)):
        token = d.add("part", "x0", args=(1, t, t + 1))
        new = d.add("linear", token, args=(1, bias), of=w)
        old = d.add("linear", state, args=(1, False), of=u)
        u = u or old
        total = d.add("add", new, old)
        state = d.add(act, d.add("plus", total, args=("entry",)) if fresh else total)
    return d.plan()


@family("flow:shared bias variables")
def shared_bias(rng: random.Random) -> Plan:
    """One bias vector under two layers, with signs: b_i - b_j, y - 2b, x1 + b and x2 - b."""
    d = Draft(rng, FLAT)
    y = d.add("linear", args=(2, False))
    b = d.add("parameter", "x0", args=(2,))
    up = d.add("add", y, b, args=(rng.choice([1, -1, 2]),))
    a = d.act(*ACTS, on=up)
    again = rng.choice([b, d.add("flip", b, args=(1,))])
    below = d.add("add", rng.choice([y, a, up]), again, args=(rng.choice([1, -1, -2]),))
    d.combine(a, d.act(*ACTS, on=below))
    return d.plan()


@family("flow:dropout")
def dropout(rng: random.Random) -> Plan:
    d = Draft(rng, rng.choice([FLAT, SIGNAL]))
    d.affine()
    if rng.random() < 0.5:
        d.add("dropout")
        d.act(*ACTS)
    else:
        d.act(*ACTS)
        d.add("dropout")
        d.affine()
        d.act(*ACTS)
    if len(d.shape()) > 2 and rng.random() < 0.6:
        d.max_pool()
    return d.plan()


@family("flow:stochastic depth")
def stochastic_depth(rng: random.Random) -> Plan:
    d = Draft(rng, FLAT)
    skip = d.add("linear", "x0", args=(2, False))
    branch = d.add("linear", "x0", args=(2, True))
    if rng.random() < 0.4:
        branch = d.act("relu", on=branch)
    d.add("add", d.add(rng.choice(["depth_mask", "dropout"]), branch), skip)
    d.act(*ACTS)
    return d.plan()


@family("flow:chunks and frozen zeros")
def chunks(rng: random.Random) -> Plan:
    """Zeros out of ReLUs, views of them, layers without biases: where a touch needs no row, and where it does."""
    d = Draft(rng, rng.choice([(2, 1, 3), FLAT]))
    d.affine(width=2)
    if rng.random() < 0.6:
        d.act("relu", "relu", "h")
    d.add("chunk", args=(rng.randrange(2), rng.choice([1, len(d.shape()) - 1])))
    d.affine(bias=rng.random() < 0.3)
    d.act("relu", "hardtanh")
    if len(d.shape()) > 2 and rng.random() < 0.5:
        d.max_pool()
    return d.plan()


@family("flow:gated")
def gated(rng: random.Random) -> Plan:
    """Products of branches: factors of unknown sign, and of a known one."""
    d = Draft(rng, FLAT)
    a, b = d.affine(width=2), d.affine(on="x0", width=2)
    b = d.add("exp", b) if rng.random() < 0.3 else d.act(*ACTS, on=b)
    d.add("mul", a, b)
    d.act(*ACTS)
    if rng.random() < 0.4:
        d.add("times_exp", args=("entry",))
        d.act(*ACTS)
    return d.plan()


@family("flow:one sample under T1")
def one_sample(rng: random.Random) -> Plan:
    """T1 holds for one forward of one sample with distinct biases, and for nothing larger."""
    d = Draft(rng, rng.choice([(1, 2), (1, 2), (1, 1, 2)]), data=(-3, 0, 3), one_sample=True)
    d.affine(bias=True)
    d.act("hardsigmoid", "hardtanh", "abs", "relu6", "hardswish", "relu")
    if rng.random() < 0.5:
        d.affine(bias=True)
        d.act("hardsigmoid", "abs", "relu")
    return d.plan()
