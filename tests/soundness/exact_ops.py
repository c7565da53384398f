"""ATen calls on exact tensors: each entry is a rational value with its gradient, in the piece that a branch chose."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from tests.soundness.exact_cone import HEAD
from tests.soundness.program import Call, Declined

Sign = Callable[[np.ndarray, float | None], int]


@dataclass(frozen=True, eq=False)
class Jet:
    """A tensor of columns: ``data[0]`` the values, then fingerprints, then gradients; Python numbers."""

    data: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape[1:]

    @property
    def flat(self) -> np.ndarray:
        return self.data.reshape(len(self.data), -1)

    @property
    def count(self) -> int:
        return self.flat.shape[1]


class Unknown:
    """An output that no interpreter follows, such as the indices of a max."""


@dataclass
class Context:
    """What an operation needs besides its arguments."""

    call: Call
    channels: int
    sign: Sign
    cache: dict[Any, Any] | None

    def seen(self, position: int) -> np.ndarray | None:
        """The computed values of an argument, unless they were overwritten."""
        a = self.call.args[position]
        return None if self.call.mutates or not isinstance(a, Tensor) else a.detach().double().numpy().reshape(-1)

    def jet(self, a: Any) -> Jet:
        """An argument as a jet."""
        if isinstance(a, Jet):
            return a
        values = np.asarray(torch.as_tensor(a).detach().double().numpy())
        data = np.zeros((self.channels, *values.shape), dtype=object)
        data[:HEAD] = exact(values)
        return Jet(data)

    def remembered(self, key: str, make: Callable[[], Any]) -> Any:
        """A table of the call that is the same in all branches, where it is."""
        if self.cache is None:
            return make()
        return self.cache[key] if key in self.cache else self.cache.setdefault(key, make())


def exact(values: np.ndarray, snap: bool = False) -> np.ndarray:
    """Floats as integers or fractions; with ``snap``, the nearest simple fraction (averages divide by 3)."""
    out = np.empty(values.shape, dtype=object)
    for at, x in np.ndenumerate(values):
        out[at] = _rational(float(x), snap)
    return out


def _rational(x: float, snap: bool = False) -> int | Fraction:
    if x.is_integer():
        return int(x)
    if not np.isfinite(x):
        raise Declined("a value that is not finite")
    near = Fraction(x).limit_denominator(4096)
    return near if snap and abs(near - Fraction(x)) < 1e-13 * abs(x) else Fraction(x)


# Linear ---------------------------------------------------------------------------------------


def _runner(function: Callable[..., Any], args: Any) -> tuple[list[Jet], Callable[[Sequence[Tensor]], list[Tensor]]]:
    """The jets among the arguments, and the call as a function of float64 tensors in their places."""
    leaves, spec = tree_flatten(args)
    jets = [a for a in leaves if isinstance(a, Jet)]
    writes = function._schema.is_mutable if hasattr(function, "_schema") else False

    def run(values: Sequence[Tensor]) -> list[Tensor]:
        rest = iter(values)
        held = [next(rest) if isinstance(a, Jet) else a for a in leaves]
        if writes:  # it is run many times
            held = [a.clone() if isinstance(a, Tensor) else a for a in held]
        filled, named = tree_unflatten(held, spec)
        with torch.no_grad():
            out = function(*filled, **named)
        return [out] if isinstance(out, Tensor) else list(out)

    return jets, run


def affine(ctx: Context, *args: Any, **kwargs: Any) -> Any:
    """Any call that is affine in its jets: one evaluation for each entry gives its matrix."""
    jets, run = _runner(ctx.call.function, (args, kwargs))
    blank = [torch.zeros(j.shape, dtype=torch.float64) for j in jets]
    columns = np.concatenate([j.flat for j in jets], axis=1)

    def table() -> tuple[list[Tensor], list[list[tuple[np.ndarray, np.ndarray]]]]:
        return _basis(run, blank, ctx.call.name in _AVERAGES)

    base, matrices = ctx.remembered("affine", table)
    outputs = []
    for start, matrix in zip(base, matrices, strict=True):
        out = ctx.jet(start).flat.copy()
        for column, (where, factors) in zip(columns.T, matrix, strict=True):
            if len(where):
                out[:, where] += column[:, None] * factors
        outputs.append(Jet(out.reshape(ctx.channels, *start.shape)))
    return outputs[0] if isinstance(ctx.call.result, Tensor) else outputs


def _basis(run: Callable[..., list[Tensor]], blank: list[Tensor], snap: bool) -> Any:
    base = [b.clone() for b in run(blank)]
    matrices: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in base]
    for tensor in blank:
        flat = tensor.view(-1)
        for k in range(len(flat)):
            flat[k] = 1.0
            for matrix, end, start in zip(matrices, run(blank), base, strict=True):
                change = (end - start).double().numpy().reshape(-1)
                where = np.nonzero(change)[0]
                matrix.append((where, exact(change[where], snap)))
            flat[k] = 0.0
    return base, matrices


def times(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The product of columns, with broadcasting beyond the channels."""
    return np.concatenate([a[:HEAD] * b[:HEAD], a[:1] * b[HEAD:] + b[:1] * a[HEAD:]])


def _aligned(jet: Jet, rank: int) -> np.ndarray:
    return jet.data.reshape(len(jet.data), *(1,) * (rank - len(jet.shape)), *jet.shape)


def multiply(ctx: Context, a: Any, b: Any) -> Any:
    """Elementwise product."""
    if not (isinstance(a, Jet) and isinstance(b, Jet)):
        return affine(ctx, a, b)
    rank = max(len(a.shape), len(b.shape))
    return Jet(times(_aligned(a, rank), _aligned(b, rank)))


def add_product(ctx: Context, start: Any, a: Any, b: Any, value: Any = 1) -> Any:
    """``addcmul``: start + value a b."""
    return _sum(ctx, start, multiply(ctx, _scaled(ctx, a, value), ctx.jet(b)))


def between(ctx: Context, start: Any, end: Any, weight: Any) -> Any:
    """``lerp``: start + weight (end - start)."""
    return _sum(ctx, start, multiply(ctx, ctx.jet(weight), _sum(ctx, end, _scaled(ctx, start, -1))))


def _scaled(ctx: Context, a: Any, factor: Any) -> Jet:
    return Jet(ctx.jet(a).data * exact(np.array(float(factor))).item())


def _sum(ctx: Context, a: Any, b: Any) -> Jet:
    rank = max(len(ctx.jet(a).shape), len(ctx.jet(b).shape))
    return Jet(_aligned(ctx.jet(a), rank) + _aligned(ctx.jet(b), rank))


def bilinear(ctx: Context, function: Callable[[Tensor, Tensor], Tensor], a: Jet, b: Jet) -> Jet:
    """A product in which each output meets an entry of ``b`` with at most one entry of ``a``."""

    def table() -> tuple[tuple[int, ...], list[tuple[np.ndarray, np.ndarray]]]:
        labels = torch.arange(1.0, a.count + 1, dtype=torch.float64).reshape(a.shape)
        rows, unit = [], torch.zeros(b.shape, dtype=torch.float64)
        for k in range(b.count):
            unit.view(-1)[k] = 1.0
            met = function(labels, unit)
            unit.view(-1)[k] = 0.0
            flat = met.numpy().reshape(-1).round().astype(int)
            where = np.nonzero(flat)[0]
            rows.append((where, flat[where] - 1))
        return tuple(met.shape), rows

    shape, rows = ctx.remembered("bilinear", table)
    out = np.zeros((ctx.channels, int(np.prod(shape))), dtype=object)
    for k, (where, partner) in enumerate(rows):
        out[:, where] += times(a.flat[:, partner], b.flat[:, k : k + 1])
    return Jet(out.reshape(ctx.channels, *shape))


def product(first: int, second: int, bias: int | None = None) -> Callable[..., Any]:
    """A call that multiplies two of its arguments and adds a third (``addmm``, ``convolution``)."""

    def apply(ctx: Context, *args: Any, alpha: Any = 1, **kwargs: Any) -> Any:
        a, b = args[first], args[second]
        if alpha != 1:
            a = _scaled(ctx, a, alpha)
            args = tuple(_with(args, {first: a}))
        if not (isinstance(a, Jet) and isinstance(b, Jet)):
            return affine(ctx, *args, **kwargs)

        def only(x: Tensor, y: Tensor) -> Tensor:
            with torch.no_grad():
                return ctx.call.function(*_with(args, {first: x, second: y, bias: none}), **kwargs)

        added = args[bias] if bias is not None else None
        none = None if added is None else torch.zeros(ctx.jet(added).shape, dtype=torch.float64)
        out = bilinear(ctx, only, a, b)
        if added is None:
            return out
        blank = {k: torch.zeros(args[k].shape, dtype=torch.float64) for k in (first, second)}
        rest = _with(args, blank)
        extra = affine(ctx, *rest, **kwargs) if isinstance(added, Jet) else ctx.jet(ctx.call.function(*rest, **kwargs))
        return Jet(out.data + extra.data)

    return apply


def _with(args: Sequence[Any], replaced: dict[int | None, Any]) -> list[Any]:
    return [replaced.get(i, a) for i, a in enumerate(args)]


_AVERAGES = {"mean", "avg_pool1d", "avg_pool2d", "avg_pool3d", "_adaptive_avg_pool2d", "div", "adaptive_avg_pool1d",
             "upsample_linear1d", "upsample_bilinear2d", "adaptive_avg_pool2d"}  # fmt: skip


# Analytic, in floats ----------------------------------------------------------------------------


def smooth(ctx: Context, *args: Any, **kwargs: Any) -> Any:
    """An analytic call: values and gradients become floats, which decide nothing close to a kink."""
    jets, run = _runner(ctx.call.function, (args, kwargs))
    points = tuple(torch.from_numpy(np.asarray(j.data[0], dtype=float)) for j in jets)
    outputs = [o.double() for o in run(points)]
    data = [np.full((ctx.channels, *o.shape), float("nan"), dtype=object) for o in outputs]
    for d, o in zip(data, outputs, strict=True):
        d[0] = o.numpy().astype(object)
    for r in range(HEAD, ctx.channels):
        tangents = tuple(torch.from_numpy(np.asarray(j.data[r], dtype=float)) for j in jets)
        _, slopes = torch.func.jvp(lambda *x: tuple(_tuple(_plain(ctx, args, kwargs, x))), points, tangents)
        for d, s in zip(data, slopes, strict=True):
            d[r] = s.double().numpy().astype(object)
    if not all(np.isfinite(d[[0, *range(HEAD, ctx.channels)]].astype(float)).all() for d in data):
        raise Declined("an infinite slope")
    return Jet(data[0]) if isinstance(ctx.call.result, Tensor) else [Jet(d) for d in data]


def _plain(ctx: Context, args: Any, kwargs: Any, values: Sequence[Tensor]) -> Any:
    rest = iter(values)
    filled, named = tree_map(lambda a: next(rest) if isinstance(a, Jet) else a, (args, kwargs))
    return ctx.call.function(*filled, **named)


def _tuple(out: Any) -> tuple[Tensor, ...]:
    return (out,) if isinstance(out, Tensor) else tuple(out)
