"""One family for each activation with kinks: alone, behind itself, in branches of either sign, under maxima."""

from __future__ import annotations

import random

from tests.soundness.families.draft import Draft
from tests.soundness.families.plan import Plan
from tests.soundness.families.pointwise import POINTWISE
from tests.soundness.families.registry import FAMILIES, Family, family

REFUSED = ("hardshrink_0", "where_0", "hardshrink")
"""Not continuous, or with a slope at a kink that no subgradient has."""
FLAT, SIGNAL = (3, 2), (2, 1, 4)


def around(rng: random.Random, name: str) -> Plan:
    """A small network around one activation."""
    data = POINTWISE[name][1] if name in POINTWISE else (-1, 0, 1)
    d = Draft(rng, rng.choice([FLAT, FLAT, SIGNAL]), data=data)
    first = d.affine()
    d.act(name)
    for _ in range(rng.randint(0, 3)):
        kind = rng.random()
        if kind < 0.35:
            d.affine()
            d.act(name, name, "relu")
        elif kind < 0.6:
            flipped = d.add("scale", first, args=(rng.choice([-1, -1, 2, -2]),))
            d.combine(d.steps[-2].name if len(d.steps) > 1 else first, d.act(name, "relu", on=flipped))
        elif kind < 0.75 and len(d.shape()) > 2:
            d.max_pool()
        else:
            d.add("plus", args=(rng.choice(["one", "entry", "channel"]),))
            d.act(name)
    return d.plan()


def _register(name: str) -> None:
    FAMILIES[f"act:{name}"] = Family(f"act:{name}", lambda rng: around(rng, name), refused=name in REFUSED)


for _name in POINTWISE:
    _register(_name)


@family("act:prelu")
def prelu(rng: random.Random) -> Plan:
    """Its slope is trainable: two pre-activations on one bias."""
    return around(rng, "prelu")


@family("act:clamp by a parameter")
def clamp_by(rng: random.Random) -> Plan:
    """A bound that is trained makes it a max of tensors, which splits."""
    d = Draft(rng, FLAT)
    d.affine()
    d.add("clamp_by", args=("entry",))
    if rng.random() < 0.5:
        d.affine()
    return d.plan()


@family("act:mixed in one layer")
def mixed(rng: random.Random) -> Plan:
    """Different activations of one pre-activation, or of shared biases, that need one or opposite sides."""
    names = [n for n in POINTWISE if n not in REFUSED]
    d = Draft(rng, FLAT, data=rng.choice([(-1, 0, 1), (0, 3, 6)]))
    y = d.affine()
    if rng.random() < 0.5:
        d.combine(d.act(*names, on=y), d.act(*names, on=y))
    else:
        bias = d.add("parameter", "x0", args=(d.shape(y)[1],))
        left = d.act(*names, on=d.add("add", y, bias, args=(rng.choice([1, -1, 2]),)))
        other = d.add("linear", "x0", args=(d.shape(y)[1], False))
        d.combine(left, d.act(*names, on=d.add("add", other, bias, args=(rng.choice([1, -1]),))))
    return d.plan()
