"""Ways of writing a network that no rule was made for: parameters reached by odd routes, samples that meet, mixed layouts."""

from __future__ import annotations

import random

from tests.soundness.families.draft import Draft
from tests.soundness.families.plan import Plan
from tests.soundness.families.registry import family

ZEROS = (-1, 0, 0, 1)
ACTS = ("relu", "relu", "relu", "leaky_relu", "h", "hardtanh", "clamp_max")


def _against(d: Draft, y: str, other: str = "") -> Plan:
    """act(y) - act(the same written otherwise, or its negative)."""
    a = d.act(*ACTS, on=y)
    if d.rng.random() < 0.7:
        d.combine(a, d.act(*ACTS, on=other or d.add("scale", y, args=(d.rng.choice([-1, -1, 2]),))))
    return d.plan()


@family("attack:odd routes of a bias")
def odd_routes(rng: random.Random) -> Plan:
    """Through a mean, a running sum, a roll, an index, its own outer product, a factor of another parameter."""
    d = Draft(rng, (2, 2), weights=ZEROS)
    y = d.add("linear", args=(2, False))
    b = d.add("parameter", "x0", args=(2,))
    routes = (("centred", ()), ("cumsum", (1,)), ("roll", (1,)), ("picked", ()), ("times", ("one",)), ("cubed", ()),
              ("tanh", ()), ("times", ("entry",)))  # fmt: skip
    op, args = rng.choice(routes)
    routed = d.add(op, b, args=args)
    return _against(d, d.add("add", y, routed), d.add("add", y, b, args=(rng.choice([1, -1]),)))


@family("attack:samples that meet")
def samples(rng: random.Random) -> Plan:
    """Mixup and differences across the minibatch, before or behind a layer."""
    d = Draft(rng, rng.choice([(2, 2), (3, 2), (2, 1, 3)]), weights=ZEROS)
    if rng.random() < 0.3:
        d.add("mixed", args=(rng.choice([1, -1]),))
    y = d.affine()
    return _against(d, d.add("mixed", y, args=(rng.choice([1, -1, -2]),)), y)


@family("attack:weights in products")
def products(rng: random.Random) -> Plan:
    """Parameters that multiply themselves or each other, used through transpose and flip."""
    d = Draft(rng, (2, 2), weights=ZEROS)
    y = d.add(rng.choice(["outer", "mirrored"]))
    return _against(d, d.add("plus", y, args=("entry",)) if rng.random() < 0.6 else y)


@family("attack:fused products")
def fused(rng: random.Random) -> Plan:
    """addmm and addcmul with factors of either sign; interpolation by a parameter."""
    d = Draft(rng, (2, 2), weights=ZEROS)
    y = d.add("addmm", args=(rng.choice([1, -1, 2]), rng.choice([1, -1, 2])))
    kind = rng.random()
    if kind < 0.3:
        return _against(d, y, d.add("addmm", args=(rng.choice([1, -1, 2]), rng.choice([1, -1])), of=y))
    z = d.act(*ACTS, on=y) if kind < 0.6 else y
    return _against(d, d.add("lerp", z, "x0"))


@family("attack:shuffled channels")
def shuffled(rng: random.Random) -> Plan:
    """Channels or pixels change places between a convolution and a pool."""
    d = Draft(rng, (2, 1, 2, 2), weights=ZEROS)
    d.add("conv", args=(4, 1, 1, 0, rng.random() < 0.7))
    if rng.random() < 0.4:
        d.act("relu", "leaky_relu")
    y = d.add(*rng.choice([("pixel_shuffle",), ("channel_shuffle",)]))
    pooled = d.max_pool(y) if rng.random() < 0.6 else d.add("max_dim", y, args=(1,))
    if rng.random() < 0.4:
        d.combine(pooled, d.add("max_pool", d.add("flip", y, args=(3,)), args=(2, 1)))
    return d.plan()


@family("attack:in place on views")
def in_place(rng: random.Random) -> Plan:
    """Half of a tensor is changed through a view."""
    d = Draft(rng, (2, 2), weights=ZEROS)
    y = d.add("linear", args=(4, rng.random() < 0.6))
    z = d.add(rng.choice(["relu_on_view", "shifted_view"]), y)
    return _against(d, z, y)


@family("attack:scores by ReLU")
def scores(rng: random.Random) -> Plan:
    """Attention without softmax: products of ReLUs of products of layers."""
    d = Draft(rng, rng.choice([(2, 2, 2), (1, 2, 2)]), weights=ZEROS)
    q, k = d.add("linear", "x0", args=(2, rng.random() < 0.6)), d.add("linear", "x0", args=(2, rng.random() < 0.6))
    s = d.act(*ACTS, on=d.add("matmul", q, d.add("transpose", k)))
    d.add("matmul", s, d.add("linear", "x0", args=(1, False)) if rng.random() < 0.6 else "x0")
    return d.plan()


@family("attack:unfolded patches")
def unfolded(rng: random.Random) -> Plan:
    """A convolution by unfold and matmul, its max over positions."""
    d = Draft(rng, (2, 1, 3, 3), weights=ZEROS)
    d.add("unfold")
    d.add("linear", args=(rng.choice([1, 2]), rng.random() < 0.7))
    if rng.random() < 0.7:
        d.act("relu", "leaky_relu", "h")
    y = d.last
    d.add("max_dim", y, args=(rng.choice([1, 1, 2]),))
    if rng.random() < 0.4:
        d.combine(d.last, d.add("part", y, args=(1, 0, 1)))
    return d.plan()
