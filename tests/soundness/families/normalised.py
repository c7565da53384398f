"""Normalisations: batch (both modes, scale 0 and negative), layer, group, instance, and frozen affine."""

from __future__ import annotations

import random

from tests.soundness.families.draft import Draft
from tests.soundness.families.plan import Plan
from tests.soundness.families.registry import family

SIGNAL, IMAGE, FLAT = (3, 1, 4), (2, 1, 3, 3), (4, 2)


def _tail(d: Draft) -> Plan:
    """An activation, perhaps a pool, perhaps the difference of two places."""
    rng = d.rng
    if rng.random() < 0.7:
        d.act("relu", "relu", "leaky_relu", "hardtanh", "relu6")
    if len(d.shape()) > 2 and rng.random() < 0.7:
        d.max_pool()
    return d.plan()


def _batch_norm(rng: random.Random, evaluated: bool) -> Plan:
    d = Draft(rng, rng.choice([SIGNAL, SIGNAL, IMAGE, FLAT]), weights=rng.choice([(-1, 0, 1), (0, 1), (-1, 0, 0, 2)]))
    if rng.random() < 0.8:
        d.affine()
    d.add("batch_norm", args=(rng.random() < 0.8, evaluated))
    return _tail(d)


@family("norm:batch, train")
def batch_train(rng: random.Random) -> Plan:
    return _batch_norm(rng, False)


@family("norm:batch, eval")
def batch_eval(rng: random.Random) -> Plan:
    return _batch_norm(rng, True)


@family("norm:frozen affine")
def frozen_affine(rng: random.Random) -> Plan:
    d = Draft(rng, rng.choice([SIGNAL, FLAT]))
    d.affine()
    d.add("frozen_affine", args=(rng.choice([-1, 0, 2]), rng.choice([-1, 0, 1])))
    return _tail(d)


@family("norm:scale of 0 or below")
def gamma(rng: random.Random) -> Plan:
    """A batch-norm scale of 0 ties its whole channel; a negative one turns winners into losers."""
    d = Draft(rng, SIGNAL, weights=(-1, 0, 0))
    if rng.random() < 0.6:
        d.affine()
    d.add("batch_norm", args=(True, rng.random() < 0.3))
    if rng.random() < 0.4:
        d.act("relu")
    d.max_pool()
    if d.shape()[-1] > 1 and rng.random() < 0.6:
        y = d.last
        d.combine(d.add("part", y, args=(2, 0, 1)), d.add("part", y, args=(2, 1, 2)))
    return d.plan()


@family("norm:layer")
def layer(rng: random.Random) -> Plan:
    d = Draft(rng, rng.choice([(3, 3), (2, 1, 3)]))
    d.affine(width=2)
    d.add("layer_norm", args=(rng.random() < 0.7,))
    return _tail(d)


@family("norm:group")
def group(rng: random.Random) -> Plan:
    d = Draft(rng, (2, 2, 3))
    d.affine(width=2)
    d.add("group_norm", args=(rng.choice([1, 2]),))
    return _tail(d)


@family("norm:instance")
def instance(rng: random.Random) -> Plan:
    d = Draft(rng, rng.choice([(2, 2, 4), (2, 1, 3, 3)]))
    d.affine()
    d.add("instance_norm", args=(rng.random() < 0.7,))
    return _tail(d)


@family("norm:softmax and tanh")
def smooth_middle(rng: random.Random) -> Plan:
    """A bias that a softmax or a product of unknown sign takes away."""
    d = Draft(rng, (3, 2))
    d.affine(bias=True, width=2)
    d.add("softmax", args=(1,)) if rng.random() < 0.5 else d.add("tanh")
    d.add("times", args=("entry",))
    d.add("shift", args=(rng.choice([-1, 0]),))
    d.act("relu", "hardtanh")
    return d.plan()
