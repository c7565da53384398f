"""Long random programs over everything: signals, images, flat features, and zeros out of ReLUs under maxima."""

from __future__ import annotations

import random
from functools import partial

from tests.soundness.families.draft import Draft
from tests.soundness.families.plan import Plan
from tests.soundness.families.registry import family

SHAPES = {"signal": (3, 2, 6), "deep": (3, 2, 6), "image": (2, 1, 4, 4), "flat": (3, 2)}
ACTS = ("relu",) * 5 + ("hardtanh2", "hardtanh", "leaky_relu", "clamp_max", "mask", "h")


def random_stack(rng: random.Random, kind: str) -> Plan:
    """Three to eight random steps on random earlier values."""
    d = Draft(rng, SHAPES[kind])
    wanted = rng.randint(3, 8)
    for _ in range(40):
        if len(d.steps) >= wanted:
            break
        _deep(d) if kind == "deep" and len(d.steps) < 5 else _anything(d, d.any())
    return d.plan()


def _deep(d: Draft) -> None:
    count, rng = len(d.steps), d.rng
    if count in (0, 2):
        _affine(d, d.last)
    elif count in (1, 3) and rng.random() < 0.7:
        d.act("relu")
    else:
        d.max_pool() if rng.random() < 0.6 else d.avg_pool()


def _affine(d: Draft, on: str) -> None:
    """A new layer, a batch norm, or an earlier layer again."""
    rng = d.rng
    earlier = [s for s in d.steps if s.op in ("linear", "conv", "batch_norm") and not s.of]
    if earlier and rng.random() < 0.25:
        again = rng.choice(earlier)
        d.try_add(again.op, on, args=again.args, of=again.name)
    elif len(d.shape(on)) > 2 and rng.random() < 0.3:
        d.try_add("batch_norm", on, args=(rng.random() < 0.8, rng.random() < 0.4))
    else:
        d.affine(on)


def _anything(d: Draft, on: str) -> None:
    rng, dims = d.rng, len(d.shape(on))
    kind = rng.random()
    if kind < 0.30:
        _affine(d, on)
    elif kind < 0.48:
        d.act(*ACTS, on=on)
    elif kind < 0.73 and dims > 2:
        d.max_pool(on) if rng.random() < 0.65 else d.avg_pool(on)
    elif kind < 0.76 and dims > 2:
        d.try_add(rng.choice(["max_dim", "max_dim", "min_dim"]), on, args=(rng.randrange(1, dims),))
    elif kind < 0.88:
        d.combine(on, rng.choice(d.names))
    elif kind < 0.91:
        d.try_add("chunk", on, args=(rng.randrange(2), rng.choice([1, dims - 1])))
    elif kind < 0.94:
        d.try_add(rng.choice(["plus", "times"]), on, args=(rng.choice(["one", "channel", "entry"]),))
    elif kind < 0.97:
        d.try_add("flip", on, args=(dims - 1,))
    else:
        d.try_add("slice", on, args=(rng.randrange(2),))


for _kind in ("signal", "image", "deep", "flat"):
    family(f"stack:{_kind}")(partial(random_stack, kind=_kind))
