"""Maxima that share the gradient among tied entries, and activations whose proxy is no one-sided slope."""

from __future__ import annotations

import random
from functools import partial

from tests.soundness.families.draft import Draft
from tests.soundness.families.losses import LOSSES
from tests.soundness.families.plan import Plan
from tests.soundness.families.registry import FAMILIES, Family, family
from tests.soundness.families.sharing import ZEROS, finished

BETWEEN = ("maximum", "minimum", "fmax", "fmin", "clamp_above", "clamp_below", "clamp_in_place", "max2")
OVER = ("amax", "amin", "max_dim", "min_dim")
KEPT = ("amax_kept", "amin_kept", "plus_max", "plus_min", "plus_amax", "plus_amin")
CLARKE = ("abs", "abs", "softshrink", "maximum_0", "hardtanh")


def _operands(d: Draft) -> tuple[str, str]:
    """Two values that tie: of one layer, of two, or with weights in common."""
    kind, a = d.rng.random(), d.affine("x0", bias=d.rng.random() < 0.3, width=2)
    if kind < 0.35:
        return a, d.add("linear", "x0", args=(2, d.rng.random() < 0.3))
    if kind < 0.55:
        return a, d.add("scale", a, args=(d.rng.choice([-1, 2, -2]),))
    if kind < 0.75:
        return a, d.add("flip", a, args=(1,))
    return a, d.add("add", a, d.add("parameter", "x0", args=(2,)), args=(d.rng.choice([1, -1]),))


def _one(d: Draft, on: str) -> str:
    """A maximum of one value."""
    op = d.rng.choice([*OVER, *KEPT])
    if op in KEPT[2:]:
        return d.add(op, on, args=(d.rng.choice([1, -1, 2]),))
    return d.add(op, on, args=(1,)) if len(d.shape(on)) > 1 else on


def _drafted(rng: random.Random, **options: object) -> Draft:
    return Draft(rng, (rng.choice([1, 2, 3]), 2), weights=ZEROS, **options)


@family("split:between two")
def between(rng: random.Random) -> Plan:
    """One or two maxima of two tensors, added or subtracted."""
    d = _drafted(rng)
    a, b = _operands(d)
    one = d.add(rng.choice(BETWEEN), a, b)
    if rng.random() < 0.7:
        d.combine(one, d.add(rng.choice(BETWEEN), *rng.sample([a, b], 2)))
    return finished(d)


@family("split:over dimensions")
def over(rng: random.Random) -> Plan:
    d = _drafted(rng)
    y = d.affine(width=rng.choice([2, 3]), bias=rng.random() < 0.4)
    if rng.random() < 0.4:
        y = d.act("relu", "abs", "leaky_relu", "hardtanh", on=y)
    a = _one(d, y)
    if rng.random() < 0.6:
        d.combine(a, _one(d, d.add("flip", y, args=(1,)) if rng.random() < 0.5 else y))
    return finished(d)


@family("split:in series")
def in_series(rng: random.Random) -> Plan:
    """Maxima of maxima, with ReLUs and absolute values between them."""
    d = _drafted(rng)
    a, b = _operands(d)
    values = [a, b, d.add(rng.choice(BETWEEN), a, b)]
    for _ in range(rng.randint(1, 3)):
        y = d.add(rng.choice(BETWEEN), values[-1], rng.choice(values[:-1]))
        if rng.random() < 0.4:
            y = d.act("relu", "abs", "leaky_relu", on=y)
        if rng.random() < 0.3:
            y = d.add("add", y, rng.choice([a, b]), args=(rng.choice([1, -1, 2]),))
        values.append(y)
    if rng.random() < 0.4:
        _one(d, values[-1])
    elif rng.random() < 0.6:
        d.combine(values[-1], rng.choice(values[:-1]))
    return finished(d)


@family("split:four maxima")
def four(rng: random.Random) -> Plan:
    """max(k |t|, |u|) - |u| with each maximum written in its own way, of layers rather than of parameters."""
    d = _drafted(rng)
    t, u = (d.add("linear", "x0", args=(rng.choice([1, 2]), False)) for _ in range(2))
    k = rng.choice([1, 2, 2, 3])

    def size(v: str) -> str:
        if rng.random() < 0.2:
            return d.add("abs", v)
        pair = [v, d.add("scale", v, args=(-1,))]
        return d.add(rng.choice(BETWEEN[:1] + BETWEEN[-1:] + ("clamp_above",)), *rng.sample(pair, 2))

    outer = d.add(rng.choice(["max2", "maximum", "fmax"]), d.add("scale", size(t), args=(k,)), size(u))
    d.add("add", outer, size(u), args=(-1,))
    return finished(d)


def _behind_clarke(rng: random.Random, behind: tuple[str, ...]) -> Plan:
    """|y| mixed with y, then more kinks or maxima on it."""
    d = _drafted(rng)
    y = d.affine(bias=rng.random() < 0.3, width=2)
    a = d.act(*CLARKE, on=y)
    mixed = d.add("skew", a, args=(rng.choice([1, -1]), 1)) if rng.random() < 0.5 else d.add("linear", a, args=(2, False))
    z = d.add("add", mixed, y, args=(rng.choice([1, 2, -1, -2]),)) if rng.random() < 0.7 else mixed
    op = rng.choice(behind)
    last = d.add(op, z, rng.choice([a, y])) if op in BETWEEN else d.add(op, z) if op not in OVER else d.add(op, z, args=(1,))
    if rng.random() < 0.6 and d.shape(last) == d.shape(a):
        d.add("add", last, a, args=(rng.choice([-1, -2, 1]),))
    return finished(d)


family("split:abs, then ReLUs")(partial(_behind_clarke, behind=("relu", "leaky_relu", "abs", "hardtanh", "h")))
family("split:abs, then maxima")(partial(_behind_clarke, behind=(*BETWEEN, *OVER)))


def _under(rng: random.Random, loss: str) -> Plan:
    """A layer used once or twice, perhaps a maximum, under a kinked criterion."""
    d = _drafted(rng, loss=loss)
    args = (2, rng.random() < 0.4)
    first = d.add("linear", args=args)
    kind = rng.random()
    if kind < 0.6:
        d.act("relu", "abs", "leaky_relu")
        d.add("linear", args=args, of=first if kind < 0.4 else "")
    elif kind < 0.8:
        d.add(rng.choice(BETWEEN), first, d.add("flip", first, args=(1,)))
    return finished(d)


for _loss in ("l1", "l1_mean", "softshrink", "hinge", "margin", "triplet", "triplet_l1", "quantile", "worst"):
    assert _loss in LOSSES
    FAMILIES[f"split:loss {_loss}"] = Family(f"split:loss {_loss}", partial(_under, loss=_loss))
