"""Kinks made of several operators, and layers that are read alone and inside of such a chain."""

from __future__ import annotations

import random

from tests.soundness.families.draft import Draft
from tests.soundness.families.plan import Plan
from tests.soundness.families.pointwise import CHAINS, POINTWISE
from tests.soundness.families.registry import family
from tests.soundness.families.sharing import ZEROS, finished

_PLAIN = ("relu", "relu", "abs", "h", "clamp_max", "leaky_relu", "hardtanh", "maximum_0", "mask", "clamp_min")


def _drafted(rng: random.Random, *ops: str) -> Draft:
    """A draft with data that hits the kinks of the operations."""
    known = POINTWISE | CHAINS
    data = {v for op in ops for v in known[op][1]}
    return Draft(rng, (rng.choice([1, 2, 3]), rng.choice([1, 2])), data=tuple(sorted(data)), weights=ZEROS)


def _layer(d: Draft, of: str = "", on: str = "x0") -> str:
    """A linear layer, or one that is there again."""
    args = next((s.args for s in d.steps if s.name == of), (d.shape("x0")[1], d.rng.random() < 0.4))
    return d.add("linear", on, args=args, of=of)


def _turned(d: Draft, y: str) -> str:
    kind = d.rng.random()
    if kind < 0.4:
        return y
    if kind < 0.75:
        return d.add("scale", y, args=(d.rng.choice([-1, -1, 2]),))
    return d.add("flip", y, args=(1,))


@family("chain:of several operators")
def several(rng: random.Random) -> Plan:
    """Two chains on one layer or on a layer used twice, added, subtracted or side by side."""
    first, second = rng.choice([*CHAINS]), rng.choice([*CHAINS, *_PLAIN])
    d = _drafted(rng, first, second)
    y = _layer(d)
    a = d.add(first, y)
    b = d.add(second, _layer(d, y, a) if rng.random() < 0.4 else _turned(d, y))
    d.combine(a, b)
    if rng.random() < 0.3:
        d.affine()
        d.act(*_PLAIN, *CHAINS)
    return finished(d)


@family("chain:a layer inside and alone")
def inside(rng: random.Random) -> Plan:
    """z = relu(y) is read as it is, and y + k z, or a kink of that, too."""
    act = rng.choice(_PLAIN)
    d = _drafted(rng, act)
    y = _layer(d)
    z = d.add(act, y)
    k = rng.choice([1, 1, -1, -1, 2, -2])
    mixed = d.add("add", y, z, args=(k,))
    if rng.random() < 0.4:
        mixed = d.act(*_PLAIN, "hinge", "capped", on=mixed)
    heads = [mixed, z if rng.random() < 0.7 else d.add("scale", z, args=(rng.choice([-1, 2]),))]
    if rng.random() < 0.4:
        heads.append(_layer(d, y if rng.random() < 0.5 else "", z))
    rng.shuffle(heads)
    if rng.random() < 0.5:
        d.add("cat", heads[0], heads[1], args=(1,))
    else:
        d.combine(heads[0], heads[1])
    if len(heads) > 2:
        d.combine(d.last, heads[2])
    elif rng.random() < 0.3:
        d.options["beside"] = heads[0]
    return finished(d)


@family("chain:expressions of one value")
def expressions(rng: random.Random) -> Plan:
    """Random expressions of one layer's output: kinks, sums, maxima, products of them."""
    d = Draft(rng, (rng.choice([1, 2, 3]), rng.choice([1, 2])), data=(-1, 0, 1, 2), weights=ZEROS)
    values = [_layer(d)]
    for _ in range(rng.randint(2, 6)):
        a, b = rng.choice(values[-3:]), rng.choice(values)
        kind = rng.random()
        if kind < 0.45:
            y = d.act(*_PLAIN, on=a)
        elif kind < 0.55:
            y = d.add(rng.choice([*CHAINS]), a)
        elif kind < 0.7:
            y = d.add("shift", a, args=(rng.choice([-1, 1]),))
        elif kind < 0.78:
            y = d.add("scale", a, args=(rng.choice([-1, 2]),))
        elif kind < 0.93:
            y = d.add("add", a, b, args=(rng.choice([1, -1, 2]),))
        else:
            y = d.add(rng.choice(["maximum", "minimum", "mul"]), a, b)
        values.append(y)
    if rng.random() < 0.5:
        d.combine(d.last, rng.choice(values[:-1]))
    return finished(d)


@family("chain:two heads of expressions")
def two_heads(rng: random.Random) -> Plan:
    """Two outputs made of the same kinks, under a random linear criterion."""
    first, second = rng.choice([*CHAINS, *_PLAIN]), rng.choice([*CHAINS, *_PLAIN])
    d = _drafted(rng, first, second)
    y = _layer(d)
    a = d.add(first, _turned(d, y))
    one = d.add("add", a, _turned(d, y), args=(rng.choice([1, -1, 2]),))
    two = d.add("add", a, d.add(second, _turned(d, y)), args=(rng.choice([1, -1]),))
    if rng.random() < 0.3:
        two = _layer(d, y, two)
    d.add("cat", one, two, args=(1,))
    return finished(d)
