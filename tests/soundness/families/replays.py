"""Steps that are looked at again as a whole: flat ties, pools in series, random numbers, views, scales, several forwards."""

from __future__ import annotations

import random
from dataclasses import replace

from tests.soundness.families.draft import Draft
from tests.soundness.families.plan import Plan
from tests.soundness.families.registry import family
from tests.soundness.families.sharing import ZEROS, finished

CLIPS = ("relu", "relu", "hardtanh", "hardtanh2", "relu6", "clamp_min")


def _shared(d: Draft, on: str, of: str) -> str:
    """A layer again."""
    step = next(s for s in d.steps if s.name == of)
    return d.add(step.op, on, args=step.args, of=of)


@family("replay:touches under flat ties")
def flat_ties(rng: random.Random) -> Plan:
    """Clips under a max that is tied on their flat part, touched entries among them; the clip is used elsewhere too."""
    clip = rng.choice(CLIPS)
    d = Draft(rng, rng.choice([(2, 1, 4), (2, 2, 3)]), weights=ZEROS, data={"relu6": (0, 3, 6)}.get(clip, (-1, 0, 1)))
    first = d.add("conv", args=(rng.choice([1, 2]), 1, 1, 0, rng.random() < 0.3))
    a = d.add(clip)
    pooled = d.max_pool(a) if rng.random() < 0.6 else d.add(rng.choice(["max_dim", "amax", "amin", "min_dim"]), a, args=(2,))
    kind = rng.random()
    if kind < 0.4:
        d.combine(pooled, d.add("max_dim", d.add("scale", a, args=(-1,)), args=(2,)))
    elif kind < 0.6 and len(d.shape(pooled)) == len(d.shape(a)):
        d.combine(pooled, d.add("part", a, args=(2, 0, d.shape(pooled)[2])))
    elif d.shape(pooled)[1] == d.shape("x0")[1]:
        _shared(d, pooled, first)
        d.act("relu", "abs")
    return finished(d)


@family("replay:pools in series")
def pools(rng: random.Random) -> Plan:
    """Overlapping pools, split maxima and clips in series over one convolution used twice."""
    d = Draft(rng, rng.choice([(2, 1, 5), (1, 1, 6)]), weights=ZEROS)
    first = d.add("conv", args=(1, 1, 1, 0, rng.random() < 0.3))
    if rng.random() < 0.5:
        d.act(*CLIPS, "abs", "leaky_relu")
    for _ in range(rng.randint(1, 2)):
        d.add("max_pool", args=(rng.choice([2, 3]), 1))
        if rng.random() < 0.4:
            d.act("relu", "abs", "leaky_relu")
        if rng.random() < 0.4:
            _shared(d, d.last, first)
    y = d.last
    if rng.random() < 0.6:
        d.combine(y, d.add("max_pool", d.add("flip", y, args=(2,)), args=(2, 1, 1)))
    else:
        d.add(rng.choice(["amax", "amin", "max_dim"]), y, args=(2,))
    return finished(d)


@family("replay:micro-batches")
def micro_batches(rng: random.Random) -> Plan:
    """Forwards of one step that pull shared weights to opposite sides; sometimes the last one reaches no loss."""
    d = Draft(rng, rng.choice([(1, 2), (2, 2), (1, 1)]), weights=ZEROS, forwards=rng.choice([2, 2, 3]))
    d.options["unused"] = int(rng.random() < 0.2)
    first = d.add("linear", args=(d.shape()[1], rng.random() < 0.3))
    y = d.act("relu", "leaky_relu", "abs", "h", "hardtanh")
    kind = rng.random()
    if kind < 0.4:
        d.act("relu", "abs", on=_shared(d, y, first))
    elif kind < 0.7:
        d.add(rng.choice(["maximum", "minimum", "fmax", "max2"]), y, d.add("scale", first, args=(rng.choice([1, -1]),)))
    return finished(d)


@family("replay:dropout and batch norm")
def random_numbers(rng: random.Random) -> Plan:
    """A layer twice, with dropout, stochastic depth or a batch normalisation between its uses."""
    d = Draft(rng, rng.choice([(3, 2), (4, 2), (2, 2, 3)]), weights=ZEROS)
    op, args = ("linear", (2, rng.random() < 0.5)) if len(d.shape()) == 2 else ("conv", (2, 1, 1, 0, rng.random() < 0.5))
    first = d.add(op, args=args)
    y = d.act("relu", "abs", "leaky_relu", "hardtanh")
    for between in rng.sample(["dropout", "depth_mask", "batch_norm"], rng.choice([1, 1, 2])):
        d.add(between, args=(rng.random() < 0.7, rng.random() < 0.3) if between == "batch_norm" else ())
    z = d.act("relu", "abs", on=_shared(d, d.last, first))
    if rng.random() < 0.5:
        d.combine(z, y)
    return finished(d)


@family("replay:in place on views")
def views(rng: random.Random) -> Plan:
    """Every second feature is overwritten through a view, where other names see it: nothing can be put in its place."""
    d = Draft(rng, (rng.choice([1, 2, 3]), 2), weights=ZEROS)
    y = d.add("linear", args=(1, rng.random() < 0.3))
    pair = d.add("cat", y, y) if rng.random() < 0.6 else d.add("linear", "x0", args=(2, rng.random() < 0.3))
    ops = ("relu_on_view", "abs_on_view", "abs_on_view", "abs_on_view", "hardtanh_on_view")
    z = d.add(rng.choice(ops), pair)
    turned, k = d.add("flip", z, args=(1,)), rng.choice([1, 2, 2, 3])
    again = d.add("add", *rng.sample([turned, z], 2), args=(rng.choice([k, -k]),))
    last = d.add(rng.choice([*ops, "abs", "relu"]), again)
    if rng.random() < 0.8:
        d.add("add", last, z, args=(rng.choice([-k, -k, k]),))
    return finished(d)


@family("replay:large and tiny scales")
def scales(rng: random.Random) -> Plan:
    """Branches with factors of 1e6 and 1e-6 beside each other, on shared weights."""
    d = Draft(rng, (rng.choice([1, 2, 3]), 2), weights=ZEROS)
    args = (2, rng.random() < 0.3)
    first = d.add("linear", args=args)
    branches = []
    for _ in range(rng.choice([2, 2, 3])):
        own = first if rng.random() < 0.6 else d.add("linear", "x0", args=args)
        y = d.add("scale", own, args=(rng.choice([1, -1, 1e6, -1e6, 1e-6]),))
        if rng.random() < 0.4:
            y = d.add("flip", y, args=(1,))
        a = d.act("relu", "abs", "leaky_relu", "h", on=y)
        if rng.random() < 0.3:
            a = d.add(rng.choice(["maximum", "minimum", "max2"]), a, own)
        if rng.random() < 0.4:
            a = d.add("add", a, d.add("relu", d.add("scale", y, args=(-1,))), args=(rng.choice([-1, 1]),))
        branches.append(d.add("scale", a, args=(rng.choice([1, 1, 1e6, -1e-6, 1e-6]),)))
    y = branches[0]
    for b in branches[1:]:
        y = d.add("add", y, b, args=(rng.choice([1, -1]),))
    plan = d.plan()
    return replace(plan, dtype="float32") if rng.random() < 0.4 else plan


@family("replay:more parameters than coordinates")
def sketched(rng: random.Random) -> Plan:
    """A parameter with thousands of entries of which a few are read, so that gradients are sketched."""
    d = Draft(rng, (rng.choice([1, 2]), rng.choice([1, 2, 3])), weights=ZEROS)
    factor = rng.random() < 0.2
    near = d.add("wide", "x0", args=(0, factor))
    far = d.add("wide", rng.choice(["x0", "x0", near]), args=(1, factor), of=near)
    if rng.random() < 0.3:
        far = d.add("linear", far, args=(d.shape(far)[1], False))
    kind = rng.random()
    if kind < 0.6:
        op = rng.choice(["max2", "max2", "max2", "maximum", "minimum"])
        a = d.add(op, near, far)
        d.combine(a, d.add(op, far, near)) if rng.random() < 0.8 else d.add("relu", a)
    else:
        a, b = d.act("relu", "abs", "h", on=near), d.act("relu", "abs", "h", on=far)
        y = d.add("add", a, b, args=(rng.choice([1, -1]),))
        if rng.random() < 0.5:
            d.act("abs", "relu", on=d.add("add", y, rng.choice([near, far]), args=(rng.choice([1, -1, 2]),)))
    return finished(d)


@family("replay:outputs without a gradient")
def partly_used(rng: random.Random) -> Plan:
    """A second output that no loss uses: one of the terms that the first one is made of, or something else."""
    d = Draft(rng, (rng.choice([1, 2, 3]), 2), weights=ZEROS)
    y, args = "", (rng.choice([1, 2]), rng.random() < 0.2)
    terms, total = [], ""
    for _ in range(rng.choice([2, 3, 3])):
        again = d.add("linear", "x0", args=args, of=y)
        y = y or again
        turned = d.add("scale", again, args=(rng.choice([1, -1, 2, -2]),))
        if rng.random() < 0.3:
            turned = d.add("skew", turned, args=(1, 1))
        terms.append(d.act("relu", "relu", "relu", "abs", "h", on=turned))
        k = rng.choice([1, -1, 2, -2, 3, -3])
        total = d.add("add", total, terms[-1], args=(k,)) if total else terms[-1]
    d.last = total
    if rng.random() < 0.2:
        d.add(rng.choice(["maximum", "max2", "minimum"]), total, d.add("flip", terms[1], args=(1,)))
    d.options["beside"] = rng.choice([*terms, *terms, y])
    return finished(d)


@family("replay:a buffer that counts")
def counting(rng: random.Random) -> Plan:
    """A threshold that grows with each forward, so that running a forward again means something else."""
    d = Draft(rng, (rng.choice([1, 2]), rng.choice([1, 2])), weights=ZEROS)
    y = d.add("linear", args=(2, rng.random() < 0.3))
    rate = rng.choice([-1, -1, 1, 2])
    kinds = rng.choice([("relu", "relu"), ("relu", "abs"), ("abs", "abs"), ("hardtanh", "relu"), ("maximum_0", "relu")])
    clock = d.add("clock", y, args=(rate,))
    a = d.add(kinds[0], clock)
    other = d.add("flip", y, args=(1,)) if rng.random() < 0.3 else d.add("scale", y, args=(-1,))
    b = d.add(kinds[1], d.add("clock", other, args=(rate,)) if rng.random() < 0.8 else other)
    d.add("add", a, b, args=(rng.choice([-1, -1, 1]),))
    return finished(d)


@family("replay:a buffer that is written after the forward")
def written_after(rng: random.Random) -> Plan:
    """A threshold that the step raises once the forward has read it, under a layer used twice with opposite signs."""
    d = Draft(rng, (rng.choice([1, 2]), rng.choice([1, 2])), weights=ZEROS)
    y = d.add("linear", args=(2, rng.random() < 0.3))
    rate = rng.choice([-1, 1, 2])
    kinds = rng.choice([("relu", "relu"), ("relu", "abs"), ("abs", "abs"), ("hinge", "relu"), ("h", "relu")])
    a = d.add(kinds[0], d.add("level", y, args=(rate,)))
    other = d.add("flip", y, args=(1,)) if rng.random() < 0.3 else d.add("scale", y, args=(rng.choice([-1, -1, 2]),))
    d.combine(a, d.add(kinds[1], d.add("level", other, args=(rate,)) if rng.random() < 0.5 else other))
    if rng.random() < 0.3:
        _shared(d, d.last, y)
        d.act("relu", "abs")
    return finished(d)
