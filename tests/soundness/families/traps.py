"""Every counterexample of the theory page as a family: the trap with other factors, widths, branches and company."""

from __future__ import annotations

import random
from collections.abc import Callable

from tests.soundness.families.draft import Draft
from tests.soundness.families.plan import Plan
from tests.soundness.families.registry import FAMILIES, Family

Body = Callable[[Draft, str], None]
"""Adds the trap on one or more parameter vectors; the first one is given."""
ZEROS = (-1, 0, 0, 1)


def _k(d: Draft) -> int:
    return d.rng.choice([1, 1, 2, 3])


def _vector(d: Draft, width: int) -> str:
    """A parameter vector, or a linear function of the data by a weight."""
    if d.rng.random() < 0.6:
        return d.add("parameter", "x0", args=(width,))
    return d.add("linear", "x0", args=(width, False))


def _minus(d: Draft, a: str, b: str) -> None:
    d.add("add", a, b, args=(-1,))


def _scaled(d: Draft, v: str, k: int) -> str:
    return v if k == 1 else d.add("scale", v, args=(k,))


def lemma_2(d: Draft, w: str) -> None:
    """a relu(w) - relu(-b w)."""
    _minus(d, d.add("relu", w), d.act("relu", "mask", "clamp_min", on=_scaled(d, w, -_k(d))))


def lemma_3(d: Draft, w: str) -> None:
    """HardSigmoid(3 + w) + HardSigmoid(-3 + w)."""
    at = 1 if (act := d.rng.choice(["hardsigmoid", "hardtanh"])) == "hardtanh" else 3
    d.add("add", d.add(act, d.add("shift", w, args=(at,))), d.add(act, d.add("shift", w, args=(-at,))))


def lemma_7(d: Draft, w: str) -> None:
    """max(u + b, b) - max(-u + b, b)."""
    b = d.add("parameter", "x0", args=(d.shape(w)[1],))
    up, down = d.add("add", b, w), d.add("add", b, w, args=(-1,))
    _minus(d, d.add("max2", up, b), d.add("max2", down, b))


def proxies_0_and_1(d: Draft, w: str) -> None:
    """g(w) - h(k w)."""
    _minus(d, d.add("relu", w), d.add("h", _scaled(d, w, _k(d))))


def h_of_minus_h(d: Draft, w: str) -> None:
    inner = d.add("h", w)
    if d.rng.random() < 0.5:
        inner = d.add("flip", inner, args=(1,))
    d.add("h", _scaled(d, inner, -_k(d)))


def right_but_close(d: Draft, w: str) -> None:
    """relu(w) - relu(2 w): right, and may be certified."""
    _minus(d, d.add("relu", w), d.add("relu", _scaled(d, w, 2)))


def median(d: Draft, w: str) -> None:
    d.add("median", d.add("cat", w, d.add("cat", _scaled(d, w, 2), _scaled(d, w, 4))), args=(1,))


def sort_and_max(d: Draft, w: str) -> None:
    d.add("add", d.add("sort_first", w, args=(1,)), d.add("max_dim", w, args=(1,)))


def bias_differences(d: Draft, b: str) -> None:
    """relu(b_i - b_j)."""
    act = d.rng.choice(["relu", "leaky_relu", "h"])
    d.add(act, d.add("add", b, d.add("flip", b, args=(1,)), args=(-1,)))


def bias_taken_away(d: Draft, w: str) -> None:
    """relu(y - k b) beside relu(y), y = w + b."""
    b = d.add("parameter", "x0", args=(d.shape(w)[1],))
    y = d.add("add", w, b)
    _minus(d, d.add("relu", y), d.add("relu", d.add("add", y, b, args=(-d.rng.choice([1, 2, 3]),))))


def two_halves(d: Draft, w: str) -> None:
    """y = w + b: relu(y) + clamp(y, max=0) = y."""
    y = d.add("plus", w, args=("entry",))
    other = _scaled(d, y, _k(d))
    d.add(
        "add", d.add("relu", y), d.act("clamp_max", "h", "leaky_relu_falling", on=other), args=(d.rng.choice([1, -1]),)
    )


def two_halves_apart(d: Draft, w: str) -> None:
    """The two halves side by side, and the criterion adds them."""
    y = d.add("plus", w, args=("entry",))
    d.add("cat", d.add("relu", y), d.add("clamp_max", y), args=(1,))


def unequal_coefficients(d: Draft, w: str) -> None:
    """max(a_1, a_0) - a_2 / 2 after an average whose border holds padding."""
    rng = d.rng
    y = d.add("channel", w)
    d.add("conv", y, args=(1, 1, 1, 0, True))
    d.add("avg_pool", args=(2, 1, 1))
    a = d.add("relu")
    pool = d.add("max_pool", d.add("flip", a, args=(2,)), args=(2, 1))
    place = rng.randrange(d.shape(a)[2])
    d.add("add", pool, d.add("part", a, args=(2, place, place + 1)), args=(rng.choice([-1, 1]),))


def discharged_and_joint(d: Draft, w: str) -> None:
    """relu(w + b) + clamp(w + relu(1 + b) - 1, max=0)."""
    b = d.add("parameter", "x0", args=(d.shape(w)[1],))
    k = d.rng.choice([1, 2])
    one = d.add("relu", d.add("shift", b, args=(k,)))
    low = d.add("clamp_max", d.add("shift", d.add("add", w, one), args=(-k,)))
    d.add("add", d.add("relu", d.add("add", w, b)), low)


def smooth_criterion(d: Draft, w: str) -> None:
    """(relu(w + b), w + relu(1 + b) - 1) under o0 - relu(-o1)."""
    b = d.add("parameter", "x0", args=(d.shape(w)[1],))
    one = d.add("shift", d.add("relu", d.add("shift", b, args=(1,))), args=(-1,))
    d.add("cat", d.add("relu", d.add("add", w, b)), d.add("add", w, one), args=(1,))


def abs_of_abs(d: Draft, w: str) -> None:
    """|2w + |w|| - 2 |w|."""
    k = d.rng.choice([2, 2, 3])
    a = d.add("abs", w)
    _minus(d, d.add("abs", d.add("add", a, w, args=(k,))), _scaled(d, a, k))


def four_maxes(d: Draft, t: str) -> None:
    """max(2|t|, |u|) - |u| written with four maxes."""
    op = d.rng.choice(["max2", "maximum"])
    u = d.add("parameter", "x0", args=(d.shape(t)[1],))
    a = d.add(op, t, d.add("scale", t, args=(-1,)))
    b = d.add(op, u, d.add("scale", u, args=(-1,)))
    _minus(d, d.add(op, d.add("scale", a, args=(2,)), b), d.add(op, u, d.add("scale", u, args=(-1,))))


def opposite_maxes(d: Draft, w: str) -> None:
    """max(w, -w) - max(-w, w)."""
    op, other = d.rng.choice(["max2", "maximum"]), _scaled(d, w, -_k(d))
    _minus(d, d.add(op, w, other), d.add(op, other, w))


def frozen_biases(d: Draft, w: str) -> None:
    """relu(w + b1) - relu(b2 - w), with some of the biases frozen."""
    b1, b2 = d.add("parameter", "x0", args=(d.shape(w)[1],)), d.add("parameter", "x0", args=(d.shape(w)[1],))
    _minus(d, d.add("relu", d.add("add", w, b1)), d.add("relu", d.add("add", b2, w, args=(-1,))))
    names = [f"{n}.weight" for n in (b1, b2) if d.rng.random() < 0.6]
    d.options[d.rng.choice(["frozen", "left_out"])] = tuple(names)


def touched_twice(d: Draft, w: str) -> None:
    """h(relu(w)) - relu(-w): a zero gradient is not evidence."""
    _minus(d, d.add("h", d.add("relu", w)), d.add("relu", _scaled(d, w, -_k(d))))


def crelu(d: Draft, w: str) -> None:
    y = d.add("plus", w, args=("entry",))
    d.add("relu", d.add("cat", y, d.add("scale", y, args=(-1,)), args=(1,)))


def stochastic_depth(d: Draft, w: str) -> None:
    """mask * (f + b) + skip loses the bias."""
    d.add(
        "add",
        d.add("depth_mask", d.add("plus", w, args=("entry",))),
        d.add("linear", "x0", args=(d.shape(w)[1], False)),
    )
    d.add("relu")


def overlapping(d: Draft, w: str) -> None:
    """max_pool over [1, relu(w), -1] minus relu(-w)."""
    one = d.add("shift", d.add("scale", "x0", args=(0,)), args=(1,))
    row = d.add("cat", d.add("part", one, args=(1, 0, 1)), d.add("relu", w), args=(1,))
    row = d.add("cat", row, d.add("scale", one, args=(-1,)), args=(1,))
    pool = d.add("sum", d.add("max_pool", d.add("channel", row), args=(2, 1)), args=(2,))
    _minus(d, pool, d.add("relu", _scaled(d, w, -1)))


def tangential(d: Draft, w: str) -> None:
    """h(w) - relu(w - v^2): right, and no ray shows it."""
    v = d.add("parameter", "x0", args=(d.shape(w)[1],))
    _minus(d, d.add("h", w), d.add("relu", d.add("add", w, d.add("mul", v, v), args=(-1,))))


def zero_patch(d: Draft, w: str) -> None:
    """A layer whose bias is also that of an earlier one, on a patch of zeros."""
    z = d.add("relu", d.add("plus", w, args=("entry",)))
    owner = next((s.name for s in reversed(d.steps) if s.op == "plus"), "")
    d.add("add", z, d.add("clamp_max", d.add("plus", d.add("linear", z, args=(d.shape(z)[1], False)), of=owner)))


def average_with_a_constant(d: Draft, w: str) -> None:
    """A zero average of a ReLU and a constant is not frozen."""
    z = d.add("channel", d.add("cat", d.add("relu", d.add("plus", w, args=("entry",))), "x0", args=(1,)))
    d.add("avg_pool", z, args=(2, d.rng.choice([1, 2])))
    d.add("relu", d.add("conv", args=(2, 1, 1, 0, False)))


_BODIES: tuple[Body, ...] = (
    lemma_2, lemma_3, lemma_7, proxies_0_and_1, h_of_minus_h, right_but_close, median, sort_and_max, bias_differences,
    bias_taken_away, two_halves, two_halves_apart, unequal_coefficients, discharged_and_joint, smooth_criterion,
    abs_of_abs, four_maxes, opposite_maxes, frozen_biases, touched_twice, crelu, stochastic_depth, overlapping,
    tangential, zero_patch, average_with_a_constant,
)  # fmt: skip
_REFUSED = (median, sort_and_max)


def _register(body: Body) -> None:
    def make(rng: random.Random) -> Plan:
        width = rng.choice([1, 2, 2])
        d = Draft(rng, (rng.choice([1, 2, 3]), rng.choice([1, 2])), weights=ZEROS)
        if body is smooth_criterion:
            d.options["loss"] = "pairs"
        body(d, _vector(d, width))
        _company(d)
        return d.plan()

    name = f"trap:{body.__name__.replace('_', ' ')}"
    FAMILIES[name] = Family(name, make, refused=body in _REFUSED)


def _company(d: Draft) -> None:
    """Sometimes more layers behind the trap."""
    kind = d.rng.random()
    if kind < 0.15:
        d.add("times", args=("entry",))
    elif kind < 0.3:
        d.affine()
    elif kind < 0.4:
        d.affine()
        d.act("relu")


for _body in _BODIES:
    _register(_body)
