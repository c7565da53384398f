"""Losses with kinks: through ``instrument(loss=...)``, and written inside the model."""

from __future__ import annotations

import random

from tests.soundness.families.draft import Draft
from tests.soundness.families.losses import LOSSES
from tests.soundness.families.plan import Plan
from tests.soundness.families.registry import FAMILIES, Family, family


def _under(rng: random.Random, loss: str) -> Plan:
    d = Draft(rng, rng.choice([(3, 2), (2, 1, 4)]), loss=loss)
    d.affine()
    if rng.random() < 0.6:
        d.act("relu", "hardtanh", "leaky_relu")
        if len(d.shape()) > 2 and rng.random() < 0.5:
            d.max_pool()
        d.add("flatten")
        d.affine(width=rng.choice([1, 2]))
    return d.plan()


def _register(loss: str) -> None:
    FAMILIES[f"loss:{loss}"] = Family(f"loss:{loss}", lambda rng: _under(rng, loss))


for _loss in LOSSES:
    _register(_loss)


@family("loss:inside the model")
def inside(rng: random.Random) -> Plan:
    d = Draft(rng, (3, 2), (3, 1))
    d.affine("x0", width=1)
    if rng.random() < 0.4:
        d.act("relu")
        d.affine(width=1)
    d.add("add", d.last, "x1", args=(-1,))
    if rng.random() < 0.4:
        d.add("scale", args=(-1,))
        d.add("shift", args=(1,))
    d.act("abs", "relu", "where_leaky", "clamp_min")
    return d.plan()
