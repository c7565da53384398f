"""Entries of one bias that are asked for different things, and minibatches of one: certified where each asks for one coin."""

from __future__ import annotations

import random

from tests.soundness.families.draft import Draft
from tests.soundness.families.plan import Plan
from tests.soundness.families.registry import family
from tests.soundness.families.theorems import TWO_SIDED, ZEROS

LEFT, RIGHT, BETWEEN = ("relu", "leaky_relu"), ("clamp_max", "h"), ("abs",)
ASKING = (LEFT, RIGHT, BETWEEN)
"""Activations with their kink at 0, by the side that AD takes there."""


def _layer(d: Draft, width: int = 4) -> str:
    """A layer with a bias under each feature or channel, sometimes two of them, or one of a normalisation."""
    kind, bias = d.rng.random(), d.rng.random() < 0.5
    if kind < 0.5:
        return d.affine(bias=True, width=width)
    y = d.affine(bias=bias, width=width)
    if kind < 0.7:
        return d.add("batch_norm", y, args=(True, d.rng.random() < 0.5))
    return d.add("plus", y, args=(d.rng.choice(["entry", "channel"]),))


def _moved(d: Draft, y: str) -> str:
    """The same entries elsewhere, or turned around; now and then across samples or repeated."""
    rng = d.rng
    match rng.randrange(9):
        case 0:
            return d.add("flip", y, args=(rng.choice([1, 1, 0]),))
        case 1:
            return d.add("roll", y, args=(rng.choice([1, 1, 0]),))
        case 2:
            return d.add("scale", y, args=(rng.choice([-1, 2]),))
        case 3:
            return d.add("channel_shuffle", y)
        case 4:
            return d.add("cat", d.add("chunk", y, args=(1, 1)), d.add("scale", d.add("chunk", y, args=(0, 1)), args=(-1,)))
        case 5:
            return d.add(rng.choice(["rolled_flat", "turned_flat"]), y)
        case 6:
            return d.add("add", y, d.add(rng.choice(["flip", "roll"]), y, args=(1,)), args=(rng.choice([1, 1, -1]),))
        case 7:
            return d.add("add", y, d.add("linear", "x0", args=(d.shape(y)[1], False))) if len(d.shape(y)) == 2 else y
    return y


@family("entries:parts of one layer")
def parts(rng: random.Random) -> Plan:
    """Features of one layer split between activations that take different sides, apart or overlapping by one."""
    d = Draft(rng, rng.choice([(1, 2), (2, 2), (3, 2), (2, 1, 3), (2, 1, 4)]), weights=ZEROS)
    y = _layer(d)
    for _ in range(rng.choice([0, 0, 1, 1, 2])):
        y = _moved(d, y)
    width = d.shape(y)[1]
    cut = rng.randint(1, max(1, width - 1))
    overlap = rng.choice([0, 0, 0, 1])
    first, second = rng.sample(ASKING, 2)
    a = d.act(*first, on=d.add("part", y, args=(1, 0, cut)))
    b = d.act(*second, on=d.add("part", y, args=(1, max(0, cut - overlap), width)))
    return _joined(d, a, b)


@family("entries:parts that meet again")
def meeting(rng: random.Random) -> Plan:
    """As before, but what one half is asked for reaches the other by a sum, a repeat or a second use of the bias."""
    d = Draft(rng, rng.choice([(1, 2), (2, 2), (3, 2), (2, 1, 3)]), weights=ZEROS)
    y = _layer(d)
    a, b = (d.add("chunk", y, args=(i, 1)) for i in (0, 1))
    match rng.randrange(7):
        case 0:
            b = d.add("add", b, a, args=(rng.choice([1, -1, 2]),))
        case 1:
            a = d.add("cat", a, b)
        case 5:
            a, b = d.add("add", a, b), d.add("add", b, a)
        case 6:
            a = d.add("cat", a, d.add("scale", a, args=(rng.choice([-1, -2]),)))
        case 2:
            b = d.add("chunk", d.add("roll", y, args=(1,)), args=(1, 1))
        case 3:
            a = b = d.add("mean", y, args=(1,)) if len(d.shape(y)) > 2 else d.add("add", a, b)
        case 4:
            b = d.add("chunk", d.add("rolled_flat", y), args=(1, 1))
    first, second = rng.sample(ASKING, 2)
    return _joined(d, d.act(*first, on=a), d.act(*second, on=b))


@family("entries:constants among biases")
def constants_among(rng: random.Random) -> Plan:
    """Features of which some have a bias and others a constant of any dtype, or one times a number that wraps round to 0."""
    d = Draft(rng, rng.choice([(1, 2), (2, 2), (3, 2), (2, 1, 3)]), weights=ZEROS)
    d.affine(bias=False, width=rng.choice([2, 4]))
    how = rng.choice(["cat", "stack", "where", "masked_fill", "wrap"])
    if how == "wrap":
        dtype, scale = rng.choice([("uint8", 16), ("int8", 16), ("int16", 256), ("uint8", 3), ("int32", 1 << 16)])
        y = d.add("partly_biased", args=(how, dtype, scale))
    else:
        y = d.add("partly_biased", args=(how, rng.choice(["bool", "uint8", "int32", "int64", "float32"])))
    if rng.random() < 0.2:
        y = _moved(d, y)
    act = rng.choice(rng.choice(ASKING))
    if rng.random() < 0.2:
        return _joined(d, d.add(act, y), d.add(act, d.add("scale", y, args=(-1,))))
    d.add(act, y)
    return d.plan()


@family("entries:one sample, each layer in its own way")
def one_sample(rng: random.Random) -> Plan:
    """A minibatch of one: layers with shared biases and one side beside layers with distinct ones and two sides."""
    act = rng.choice(list(TWO_SIDED))
    d = Draft(rng, rng.choice([(1, 1, 3), (1, 2, 2), (1, 2)]), data=TWO_SIDED[act], **_asked(rng))
    if len(d.shape()) > 2:
        d.affine(bias=True)
        d.act("relu", "leaky_relu", "abs", "h")
        d.add("mean", args=(2,)) if rng.random() < 0.4 else d.add("flatten")
    y = _layer(d, rng.choice([1, 2, 4]))
    if rng.random() < 0.3:
        y = _moved(d, y)
    if rng.random() < 0.5:
        d.add(act, y)
    else:
        _joined(d, d.add(act, d.add("chunk", y, args=(0, 1))), d.act("relu", "h", act, on=d.add("chunk", y, args=(1, 1))))
    if rng.random() < 0.3:
        d.affine()
        d.act("relu", act)
    return d.plan()


@family("entries:one sample, one bias under two entries")
def one_sample_twice(rng: random.Random) -> Plan:
    """A minibatch of one in which some bias entry reaches two entries with kinks that ask for different coins."""
    act = rng.choice(list(TWO_SIDED))
    d = Draft(rng, (1, rng.choice([1, 2])), data=TWO_SIDED[act], **_asked(rng))
    y = d.affine(bias=True, width=rng.choice([1, 2]))
    match rng.randrange(6):
        case 0 | 5:
            apart = TWO_SIDED[act][-1] - TWO_SIDED[act][0]
            z = d.add("cat", y, d.add("shift", y, args=(rng.choice([apart, apart, 1]),)))
        case 1:
            z = d.add("add", y, d.add("flip", y, args=(1,)))
        case 2:
            z = d.add("plus", d.add("interpolate", d.add("channel", y), args=(2, "nearest")))
        case 3:
            z = d.add("plus", d.add("pad", d.add("channel", y), args=(1, 1, "reflect")))
        case 4:
            z = d.add("cat", y, d.add("slice", y, args=(0,)))
    a = d.add(act, z)
    if rng.random() < 0.5:
        d.combine(a, d.act(act, "relu", on=d.add("scale", y, args=(-1,))))
    return d.plan()


def _asked(rng: random.Random) -> dict[str, object]:
    """Mostly T1, for a step that is one forward or that wrongly has two."""
    return {"one_sample": rng.random() < 0.8, "weights": ZEROS, "forwards": rng.choice([1, 1, 2])}


def _joined(d: Draft, a: str, b: str) -> Plan:
    """Side by side, summed or multiplied; sometimes with a layer behind."""
    if d.shape(a) == d.shape(b) and d.rng.random() < 0.6:
        d.add("add", a, b, args=(d.rng.choice([1, -1]),)) if d.rng.random() < 0.7 else d.add("mul", a, b)
    else:
        d.add("cat", a, b)
    if d.rng.random() < 0.25:
        d.affine()
        d.act("relu", "tanh", "abs")
    return d.plan()
