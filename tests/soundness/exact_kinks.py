"""Calls that decide: activations with kinks, comparisons, maxima and order statistics of exact tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import cmp_to_key
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.soundness.exact_cone import HEAD
from tests.soundness.exact_ops import Context, Jet, Unknown, exact, multiply, smooth, times
from tests.soundness.program import Declined

Piece = tuple[Any, ...]
"""Coefficients of a polynomial, lowest first; numbers are exact."""


def _number(x: Any) -> Any:
    return exact(np.array(float(x))).item()


def evaluated(piece: Piece, column: np.ndarray) -> np.ndarray:
    """A polynomial of one column."""
    out = np.zeros_like(column)
    for coefficient in reversed(piece):
        out = times(out, column)
        out[:HEAD] = out[:HEAD] + coefficient
    return out


def piecewise(ctx: Context, x: Any, cuts: Sequence[Any], pieces: Sequence[Piece]) -> Jet:
    """A scalar function of each entry: polynomials between cuts; on a cut the piece on its left."""
    if not isinstance(x, Jet):
        raise Declined("an activation of a constant with a trainable argument")
    seen, out = ctx.seen(0), x.flat.copy()
    for at in range(x.count):
        column = x.flat[:, at]
        region = 0
        for cut in cuts:
            moved = column.copy()
            moved[:HEAD] = moved[:HEAD] - cut
            if ctx.sign(moved, None if seen is None else float(seen[at]) - float(cut)) <= 0:
                break
            region += 1
        out[:, at] = evaluated(pieces[region], column)
    return Jet(out.reshape(x.data.shape))


def _activation(cuts: Callable[..., tuple[Sequence[Any], Sequence[Piece]]]) -> Callable[..., Jet]:
    return lambda ctx, x, *args, **kwargs: piecewise(ctx, x, *cuts(*args, **kwargs))


def _leaky(slope: Any = 0.01) -> tuple[Sequence[Any], Sequence[Piece]]:
    return (0,), ((0, _number(slope)), (0, 1))


def _box(low: Any = None, high: Any = None, *, min: Any = None, max: Any = None) -> Any:
    low, high = (low if min is None else min), (high if max is None else max)
    cuts, pieces = [], [(0, 1)]
    if low is not None:
        cuts, pieces = [_number(low)], [(_number(low),), (0, 1)]
    if high is not None:
        cuts, pieces = [*cuts, _number(high)], [*pieces, (_number(high),)]
    return cuts, pieces


def _shrink(by: Any = 0.5) -> Any:
    k = _number(by)
    return (-k, k), ((k, 1), (0,), (-k, 1))


def _smooth_l1(delta: Any, scale: Any) -> Any:
    d, half = _number(delta), Fraction(1, 2)
    return (-d, d), tuple(tuple(scale * c for c in p) for p in ((-d * d * half, -d), (0, 0, half), (-d * d * half, d)))


_SIXTH, _HALF = Fraction(1, 6), Fraction(1, 2)
ACTIVATIONS: dict[str, Callable[..., Any]] = {
    "relu": lambda: ((0,), ((0,), (0, 1))),
    "leaky_relu": _leaky,
    "hardtanh": lambda low=-1, high=1: _box(low, high),
    "relu6": lambda: _box(0, 6),
    "hardswish": lambda: ((-3, 3), ((0,), (0, _HALF, _SIXTH), (0, 1))),
    "hardsigmoid": lambda: ((-3, 3), ((0,), (_HALF, _SIXTH), (1,))),
    "abs": lambda: ((0,), ((0, -1), (0, 1))),
    "threshold": lambda at, value: ((_number(at),), ((_number(value),), (0, 1))),
    "softshrink": _shrink,
    "hardshrink": lambda by=0.5: ((-_number(by), _number(by)), ((0, 1), (0,), (0, 1))),
    "sign": lambda: ((0,), ((-1,), (1,))),
    "sgn": lambda: ((0,), ((-1,), (1,))),
}


def prelu(ctx: Context, x: Any, slope: Any) -> Jet:
    """Two ReLUs of one tensor, one times a trainable slope."""
    up = piecewise(ctx, ctx.jet(x), (0,), ((0,), (0, 1)))
    down = Jet(ctx.jet(x).data - up.data)
    scaled = ctx.jet(slope)
    return Jet(up.data + multiply(ctx, down, scaled).data)


def power(ctx: Context, x: Any, exponent: Any = 2) -> Any:
    """A small natural power."""
    if not isinstance(exponent, (int, float)) or exponent not in (1, 2, 3, 4):
        return smooth(ctx, x, exponent)
    flat = x.flat
    return Jet(evaluated((0,) * int(exponent) + (1,), flat).reshape(x.data.shape))


def _reduced(values: Jet, reduction: int) -> Jet:
    if reduction == 0:
        return values
    total = values.flat.sum(axis=1)
    return Jet(total * Fraction(1, values.count) if reduction == 1 else total)


def _difference(ctx: Context, a: Any, b: Any) -> Jet:
    a, b = ctx.jet(a), ctx.jet(b)
    rank = max(len(a.shape), len(b.shape))
    shapes = [x.data.reshape(len(x.data), *(1,) * (rank - len(x.shape)), *x.shape) for x in (a, b)]
    return Jet(shapes[0] - shapes[1])


def squared_error(ctx: Context, x: Any, target: Any, reduction: int = 1) -> Jet:
    """Mean squared error."""
    d = _difference(ctx, x, target)
    return _reduced(Jet(times(d.data, d.data)), reduction)


def huber(ctx: Context, x: Any, target: Any, reduction: int = 1, delta: float = 1.0) -> Jet:
    """Huber loss, and smooth L1, which is Huber divided by beta."""
    d, scale = _difference(ctx, x, target), 1
    if ctx.call.name == "smooth_l1_loss":
        scale = 1 / Fraction(_number(delta))
    without = Context(ctx.call, ctx.channels, lambda c, _: ctx.sign(c, None), None)
    return _reduced(piecewise(without, d, *_smooth_l1(delta, scale)), reduction)


# Comparisons and maxima -------------------------------------------------------------------------


_COMPARED: dict[str, Callable[[int], bool]] = {
    "lt": lambda s: s < 0, "le": lambda s: s <= 0, "gt": lambda s: s > 0, "ge": lambda s: s >= 0,
    "eq": lambda s: s == 0, "ne": lambda s: s != 0,
}  # fmt: skip


def compare(ctx: Context, a: Any, b: Any) -> Tensor:
    """A comparison, as a constant of the branch."""
    d = _difference(ctx, a, b)
    seen = _apart(ctx, d)
    holds = _COMPARED[ctx.call.name.removesuffix("_")]
    signs = [ctx.sign(d.flat[:, i], seen[i]) for i in range(d.count)]
    return torch.tensor([holds(s) for s in signs], dtype=torch.bool).reshape(d.shape)


def _apart(ctx: Context, d: Jet) -> Sequence[float | None]:
    """The computed differences of the call's first two arguments."""
    if ctx.call.mutates or not ctx.call.name.startswith(("max", "min", "fm", *_COMPARED)):
        return [None] * d.count
    x, y = (t if isinstance(t, Tensor) else torch.tensor(float(t)) for t in ctx.call.args[:2])
    return np.broadcast_to((x.detach().double() - y.detach().double()).numpy(), d.shape).reshape(-1).tolist()


def _above(ctx: Context, a: np.ndarray, b: np.ndarray) -> int:
    return ctx.sign(a - b, None)


def extremum(up: bool) -> Callable[..., Any]:
    """A call whose outputs are each the largest (smallest) of some entries of its input, found by probing it."""

    def apply(ctx: Context, x: Jet, *args: Any, **kwargs: Any) -> Any:
        def table() -> tuple[tuple[int, ...], list[list[int]]]:
            return _windows(ctx, x, args, kwargs, 1.0 if up else -1.0)

        shape, windows = ctx.remembered("windows", table)
        seen, columns = ctx.seen(0), []
        for window in windows:
            best = window[0]
            for k in window[1:]:
                side = ctx.sign(x.flat[:, k] - x.flat[:, best], None if seen is None else float(seen[k] - seen[best]))
                best = k if (side > 0 if up else side < 0) else best
            columns.append(x.flat[:, best])
        values = Jet(np.stack(columns, axis=1).reshape(ctx.channels, *shape))
        return values if isinstance(ctx.call.result, Tensor) else [values, *(Unknown() for _ in ctx.call.result[1:])]

    return apply


def _windows(ctx: Context, x: Jet, args: Any, kwargs: Any, sign: float) -> tuple[tuple[int, ...], list[list[int]]]:
    probe = torch.full(x.shape, -sign, dtype=torch.float64)
    members: list[list[int]] = []
    for k in range(x.count):
        probe.view(-1)[k] = sign
        with torch.no_grad():
            out = ctx.call.function(probe, *args, **kwargs)
        out = out if isinstance(out, Tensor) else out[0]
        probe.view(-1)[k] = -sign
        members = members or [[] for _ in range(out.numel())]
        for o in np.nonzero(out.numpy().reshape(-1) == sign)[0]:
            members[o].append(k)
    if not all(members):
        raise Declined("a window without entries")
    return tuple(out.shape), members


def of_two(up: bool) -> Callable[..., Jet]:
    """The larger (smaller) of two tensors, entry by entry."""

    def apply(ctx: Context, a: Any, b: Any) -> Jet:
        a, b = ctx.jet(a), ctx.jet(b)
        d = _difference(ctx, a, b)
        seen = _apart(ctx, d)
        x, y = (np.broadcast_to(_spread(t, len(d.shape)), d.data.shape).reshape(len(d.data), -1) for t in (a, b))
        chosen = [x[:, i] if (ctx.sign(d.flat[:, i], seen[i]) > 0) == up else y[:, i] for i in range(d.count)]
        return Jet(np.stack(chosen, axis=1).reshape(d.data.shape))

    return apply


def _spread(jet: Jet, rank: int) -> np.ndarray:
    return jet.data.reshape(len(jet.data), *(1,) * (rank - len(jet.shape)), *jet.shape)


def clamp(ctx: Context, x: Any, low: Any = None, high: Any = None, **kwargs: Any) -> Jet:
    """A clamp by numbers or by tensors."""
    low, high = kwargs.get("min", low), kwargs.get("max", high)
    if not isinstance(low, (Jet, Tensor)) and not isinstance(high, (Jet, Tensor)):
        return piecewise(ctx, x, *_box(low, high))
    x = x if low is None else of_two(True)(ctx, x, low)
    return x if high is None else of_two(False)(ctx, x, high)


def clamp_max(ctx: Context, x: Any, max: Any) -> Jet:
    """A clamp from above."""
    return clamp(ctx, x, None, max)


def ordered(pick: Callable[..., Any], flat: bool = False) -> Callable[..., Any]:
    """An order statistic along a dimension: ``pick`` takes what it wants from the ascending columns."""

    def apply(ctx: Context, x: Jet, *args: Any, **kwargs: Any) -> Any:
        take, dim = pick(*args, **kwargs)
        data = x.flat if flat or not x.shape else np.moveaxis(x.data, dim % len(x.shape) + 1, -1)
        data = data.reshape(len(data), -1, data.shape[-1]) if data.ndim > 2 else data[:, None]
        key = cmp_to_key(lambda a, b: _above(ctx, a, b))
        rows = [take(sorted((data[:, r, i] for i in range(data.shape[2])), key=key)) for r in range(data.shape[1])]
        out = np.stack([np.stack(r, axis=-1) for r in rows], axis=1)
        result = ctx.call.result if isinstance(ctx.call.result, Tensor) else ctx.call.result[0]
        lead = [s for i, s in enumerate(x.shape) if i != dim % len(x.shape)] if x.shape and not flat else []
        out = np.moveaxis(out.reshape(len(out), *lead, out.shape[-1]), -1, (dim % len(x.shape)) + 1 if lead else 1)
        jet = Jet(out.reshape(len(out), *result.shape))
        return jet if isinstance(ctx.call.result, Tensor) else [jet, Unknown()]

    return apply


def running(ctx: Context, x: Jet, dim: int) -> Any:
    """A cumulative maximum."""
    data = np.moveaxis(x.data, dim % len(x.shape) + 1, 1).copy()
    lanes = data.reshape(len(data), data.shape[1], -1)
    for i in range(1, lanes.shape[1]):
        for lane in range(lanes.shape[2]):
            if _above(ctx, lanes[:, i, lane], lanes[:, i - 1, lane]) <= 0:
                lanes[:, i, lane] = lanes[:, i - 1, lane]
    return [Jet(np.moveaxis(lanes.reshape(data.shape), 1, dim % len(x.shape) + 1)), Unknown()]


def normalised(ctx: Context, x: Any, gamma: Any, beta: Any, *rest: Any, **kwargs: Any) -> Any:
    """Batch normalisation: rational where the statistics are constants."""
    trains = ctx.call.name != "_native_batch_norm_legit_no_training" and rest[2]
    if trains and isinstance(x, Jet):
        return smooth(ctx, x, gamma, beta, *rest, **kwargs)
    shape = (1, -1, *(1,) * (len(ctx.jet(x).shape) - 2))
    mean, inverse = (t.double() for t in ctx.call.result[1:3])
    if not trains:
        mean, inverse = rest[0].double(), 1 / torch.sqrt(rest[1].double() + rest[-1])
    out = Jet(times(_difference(ctx, x, mean.reshape(shape)).data, ctx.jet(inverse.reshape(shape)).data))
    if gamma is not None:
        out = Jet(times(out.data, ctx.jet(gamma).data.reshape(ctx.channels, *shape)))
    if beta is not None:
        out = Jet(out.data + ctx.jet(beta).data.reshape(ctx.channels, *shape))
    return [out, Unknown(), Unknown()]
