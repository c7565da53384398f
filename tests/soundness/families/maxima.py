"""Maxima that are no pools: along a dimension, running, between tensors, of embedding bags, order statistics."""

from __future__ import annotations

import random

from tests.soundness.families.draft import Draft
from tests.soundness.families.plan import Plan
from tests.soundness.families.registry import FAMILIES, Family, family

FLAT, SIGNAL = (3, 2), (2, 2, 3)
ALONG = ("max_dim", "min_dim", "cummax", "cummin", "amax", "amin", "sort_first", "median", "topk", "logsumexp", "norm")


def _along(rng: random.Random, op: str) -> Plan:
    d = Draft(rng, rng.choice([FLAT, SIGNAL]))
    y = d.affine(width=rng.choice([2, 3]))
    if rng.random() < 0.3:
        y = d.act("relu", "hardtanh", on=y)
    a = d.add(op, y, args=(rng.randrange(1, len(d.shape(y))),))
    kind = rng.random()
    if kind < 0.4:
        other = d.add("flip", y, args=(1,)) if rng.random() < 0.5 else d.add("scale", y, args=(-1,))
        d.combine(a, d.add(op, other, args=(1,)))
    elif kind < 0.6 and len(d.shape()) == 2:
        d.affine()
        d.act("relu")
    return d.plan()


def _register(op: str) -> None:
    FAMILIES[f"max:{op}"] = Family(
        f"max:{op}", lambda rng: _along(rng, op), refused=op in ("sort_first", "median", "topk")
    )


for _op in ALONG:
    _register(_op)


def _between(rng: random.Random, op: str) -> Plan:
    """A max of two tensors, alone or with the same max of their negatives (max(w,-w) - max(-w,w))."""
    d = Draft(rng, FLAT)
    a = d.affine()
    b = d.add("scale", a, args=(-1,)) if rng.random() < 0.4 else d.affine(on="x0", width=d.shape(a)[1])
    m = d.add(op, a, b)
    if rng.random() < 0.6:
        d.combine(m, d.add(op, b, a))
    elif rng.random() < 0.5:
        d.affine()
        d.act("relu")
    return d.plan()


@family("max:of two, stacked")
def stacked(rng: random.Random) -> Plan:
    return _between(rng, "max2")


@family("max:of two, split")
def split(rng: random.Random) -> Plan:
    return _between(rng, rng.choice(["maximum", "minimum", "fmax"]))


@family("max:embedding bag")
def embedding_bag(rng: random.Random) -> Plan:
    d = Draft(rng, (3, rng.choice([2, 3])), data=(0, 1, 2, 3))
    d.add("embedding_bag_max", args=(4, rng.choice([1, 2])))
    if rng.random() < 0.5:
        d.affine()
        d.act("relu")
    return d.plan()


@family("max:embedding, then pooled")
def embedding(rng: random.Random) -> Plan:
    d = Draft(rng, (2, 4), data=(0, 1, 2))
    d.add("embedding", args=(3, rng.choice([1, 2])))
    d.add("transpose")
    if rng.random() < 0.6:
        d.affine()
    if rng.random() < 0.4:
        d.act("relu")
    d.max_pool()
    return d.plan()


@family("max:over features")
def over_features(rng: random.Random) -> Plan:
    """Channels of one position tie: windows across channels need full gradients."""
    d = Draft(rng, rng.choice([FLAT, (2, 1, 3)]))
    y = d.affine(width=rng.choice([2, 3]))
    a = d.add("max_dim", y, args=(1,))
    if rng.random() < 0.6:
        d.combine(a, d.add("max_dim", d.add("flip", y, args=(1,)), args=(1,)))
    return d.plan()
