"""Measure what autograd returns at a kink of a scalar function, and its one-sided slopes there (theory 4.1).

The slopes come from the derivative beside the point in float64, at shrinking distances, and are checked against
differences of the forward. AD's value comes from the dtype in question, at the point rounded to it, and the same
dtype is checked beside the point. Everything that does not fit is reported as not stable, never smoothed over.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.autograd import forward_ad

from fxcheck.errors import ProxyError
from fxcheck.records.proxy import Proxy

Mode = Literal["backward", "forward"]
ScalarFunction = Callable[[Tensor], Tensor]

ROUNDING = {torch.float64: 1e-6, torch.float32: 1e-5, torch.float16: 2.0**-9, torch.bfloat16: 2.0**-6}
"""Relative error allowed in one derivative computed in a dtype. float64 is not at machine precision, because
the kernel of hardsigmoid uses a float32 1/6 there."""

_EQUAL_ENTRIES = 67
"""Entries of the tensor on the kink: a vectorised kernel also runs its scalar tail on a few of them."""
_LADDER = tuple(4.0**-j for j in range(8))
"""Distances from the point, as fractions of the widest."""
_CHECKED = range(1, 6)
"""Steps of the ladder at which the derivative is compared with differences of the forward."""
_SETTLED = 1.5e-7
_LEAST_DISTANCE = 2.0**-900
"""Of a point beside a kink: nearer ones and their differences are subnormal numbers."""
_EQUAL_SLOPES = 5e-7
_EXTRAPOLATED = 1e-3
_DIFFERENCED = 1e-2


def measure(
    function: ScalarFunction,
    points: Sequence[float],
    dtype: torch.dtype,
    device: str = "cpu",
    mode: Mode = "backward",
) -> tuple[Proxy, ...]:
    """Measure the proxy derivative of an elementwise function at every candidate point.

    Args:
        function: maps a tensor of any shape to one of the same shape, entry by entry; it must accept float64 too.
        points: where it may not be differentiable; points where it is are reported all the same.
        dtype: of the tensor whose entries sit on the kinks.
        device: where to run.
        mode: reverse mode (``backward``) or forward mode.

    Returns:
        One Proxy per point that ``dtype`` can hold, in the order given; infinite points are left out.

    Raises:
        ProxyError: the function cannot be run or differentiated in this dtype and mode.

    Source: theory 4.1. Kinks are placed at the point rounded to the dtype. A bound that the kernel compares in
    higher precision is never met exactly; reading its neighbour as a touch adds a row and drops none.
    """
    if dtype not in ROUNDING:
        raise ProxyError(f"proxies cannot be measured in {_name(dtype)}", hint="float32, float64, bfloat16, float16")
    if any(math.isnan(p) for p in points):
        raise ProxyError("a kink at nan cannot be measured")
    plans = _plans(points, dtype)
    if not plans:
        return ()
    run = _Runner(function, device, mode)
    beside = [x for plan in plans for x in plan.beside]
    exact = run(list(itertools.chain.from_iterable(p.samples for p in plans)) + beside, torch.float64)
    low = run(beside, dtype) if beside else _Sampled([], [])
    proxies, start, near = [], 0, sum(len(p.samples) for p in plans)
    low_start = 0
    for plan in plans:
        stop, count = start + len(plan.samples), len(plan.beside)
        ladder = _Sampled(exact.values[start:stop], exact.slopes[start:stop])
        pairs = list(zip(low.slopes[low_start:][:count], exact.slopes[near + low_start :][:count], strict=True))
        at = run([plan.kink] * _EQUAL_ENTRIES, dtype).slopes
        proxies.append(_judge(plan, ladder, pairs, at, dtype))
        start, low_start = stop, low_start + count
    return tuple(proxies)


# Where to sample -------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Plan:
    """Where one point is sampled."""

    point: float
    kink: float
    """The point rounded to the dtype."""
    distances: tuple[float, ...]
    beside: tuple[float, ...]
    """Values of the dtype beside the kink: its neighbours, then some further away."""
    neighbours: int
    """How many of them are neighbours."""

    @property
    def samples(self) -> list[float]:
        """The point, then for each side and distance three values for a central difference."""
        out = [self.point]
        for sign, d in itertools.product((-1.0, 1.0), self.distances):
            x = self.point + sign * d
            out += [x - d / 4, x, x + d / 4]
        return out


def _plans(points: Sequence[float], dtype: torch.dtype) -> list[_Plan]:
    return [
        _plan(p, kink, points, dtype)
        for p, kink in zip(points, _rounded(points, dtype), strict=True)
        if math.isfinite(p) and math.isfinite(kink)
    ]


def _plan(point: float, kink: float, points: Sequence[float], dtype: torch.dtype) -> _Plan:
    size = abs(point)
    widest = max(min(size, 1.0) / 16, size * 2.0**-14) if point else 1 / 16
    gap = min((abs(p - point) for p in points if p != point), default=math.inf)
    distances = tuple(min(widest, gap / 4) * fraction for fraction in _LADDER)
    spacing = _spacing(kink, dtype)
    near = [kink + n * spacing for n in (-2, -1, 1, 2)]
    far = [point + sign * d for sign in (-1, 1) for d in distances[:3]]
    neighbours = [x for x in _rounded(near, dtype) if math.isfinite(x) and x != kink]
    further = [x for x in _rounded(far, dtype) if math.isfinite(x) and abs(x - kink) > 2 * spacing]
    return _Plan(point, kink, distances, (*neighbours, *further), len(neighbours))


def _rounded(values: Sequence[float], dtype: torch.dtype) -> list[float]:
    return torch.tensor(values, dtype=torch.float64, device="cpu").to(dtype).double().tolist()


def _spacing(x: float, dtype: torch.dtype) -> float:
    """The distance to the next larger magnitude in the dtype; beside 0 a small number whose square is normal."""
    info = torch.finfo(dtype)
    if x == 0:
        return 2.0**-12 if dtype == torch.float16 else 2.0**-40
    return max(info.eps * 2.0 ** (math.frexp(x)[1] - 1), info.smallest_normal * info.eps)


# Running the function --------------------------------------------------------------------------


@dataclass(frozen=True)
class _Sampled:
    values: list[float]
    slopes: list[float]


class _Runner:
    """Values and AD derivatives of a function at given entries."""

    def __init__(self, function: ScalarFunction, device: str, mode: Mode) -> None:
        self.function = function
        self.device = device
        self.mode = mode

    def __call__(self, entries: list[float], dtype: torch.dtype) -> _Sampled:
        with torch.inference_mode(False), torch.enable_grad():
            x = torch.tensor(entries, dtype=dtype, device=self.device)
            try:
                y, slope = self._backward(x) if self.mode == "backward" else self._forward(x)
            except (RuntimeError, TypeError, ValueError) as error:
                reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
                raise ProxyError(f"{self.mode} mode cannot be measured in {_name(dtype)}: {reason}") from error
        if y.shape != x.shape:
            raise ProxyError(f"not an elementwise function: {tuple(x.shape)} became {tuple(y.shape)}")
        return _Sampled(y.detach().double().tolist(), slope.detach().double().tolist())

    def _backward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.function(x.requires_grad_())
        if not y.requires_grad:
            return y, torch.zeros_like(x)
        (slope,) = torch.autograd.grad(y, x, torch.ones_like(y), allow_unused=True)
        return y, torch.zeros_like(x) if slope is None else slope

    def _forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        with forward_ad.dual_level():
            dual = forward_ad.unpack_dual(self.function(forward_ad.make_dual(x, torch.ones_like(x))))
            return dual.primal, torch.zeros_like(x) if dual.tangent is None else dual.tangent


# Judging ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Side:
    slope: float
    note: str = ""
    scale: float = 0.0
    """The largest slope seen on this side: what tolerances are relative to."""
    jumps: bool = False


def _judge(
    plan: _Plan, ladder: _Sampled, pairs: list[tuple[float, float]], at: list[float], dtype: torch.dtype
) -> Proxy:
    half = 3 * len(_LADDER)
    centre = ladder.values[0]
    left, right = (
        _side(plan.distances, ladder.values[i : i + half], ladder.slopes[i + 1 : i + half : 3], centre)
        for i in (1, 1 + half)
    )
    scale = max(left.scale, right.scale)
    low, high = _tidy(left.slope, scale), _tidy(right.slope, scale)
    if abs(low - high) <= _EQUAL_SLOPES * scale:
        low = high = min(low, high, key=abs)
    off = [s for s, (a, b) in enumerate(pairs) if abs(a - b) > 4 * ROUNDING[dtype] * scale]
    # Rounding inside a chain may put neighbours of the kink on it: 3 - ulp, + 3, is 6.
    spread = bool(off) and all(s < plan.neighbours and pairs[s][0] == at[0] for s in off)
    note = left.note or right.note or _at_note(at)
    if off and not spread and not note:
        note = f"AD beside the kink differs between {_name(dtype)} and float64"
    continuous = not (left.jumps or right.jumps)
    if note:
        return Proxy(plan.kink, low, at[0], high, None, False, continuous, note)
    ad, weight, note = _match(low, at[0], high, ROUNDING[dtype] * scale, dtype)
    remarks = [note] if note else []
    if plan.kink != plan.point:
        remarks.append(f"{plan.point!r} rounded to {_name(dtype)}")
    if spread:
        remarks.append("its neighbours round onto the kink")
    return Proxy(plan.kink, low, ad, high, weight, not note, continuous, "; ".join(remarks))


def _side(distances: Sequence[float], values: list[float], slopes: list[float], centre: float) -> _Side:
    """The one-sided slope at the point; values come in threes around each distance."""
    if min(distances) < _LEAST_DISTANCE:
        return _Side(math.nan, "another kink is too close for slopes between them to be measured")
    if not all(map(math.isfinite, (*values, *slopes, centre))):
        return _Side(math.nan, "the function or its slope is not finite beside the kink")
    scale = max(map(abs, slopes))
    last, before = _limit(slopes[-3:], scale), _limit(slopes[-4:-1], scale)
    if last is None or before is None or abs(last - before) > _EXTRAPOLATED * scale:
        return _Side(math.nan, "a one-sided slope does not settle", scale)
    differences = [(values[3 * i + 2] - values[3 * i]) / (distances[i] / 2) for i in _CHECKED]
    # On tiny slopes the difference of two large values is rounding error, hence the second term.
    noise = [8 * 2.0**-52 * max(map(abs, values)) / distances[i] for i in _CHECKED]
    wrong = any(
        abs(d - slopes[i]) > _DIFFERENCED * max(scale, abs(d)) + n
        for i, d, n in zip(_CHECKED, differences, noise, strict=True)
    )
    note = "AD beside the kink is not the derivative of the forward" if wrong else ""
    jump = abs(values[-2] - centre)
    return _Side(last, note, scale, jump > 2 * scale * distances[-1] + 1e-9 * abs(centre))


def _limit(slopes: Sequence[float], scale: float) -> float | None:
    """The limit of three slopes at distances d, d/4, d/16 (Aitken); None when they do not approach one."""
    a, b, c = slopes
    step, before = c - b, b - a
    if abs(step) <= _SETTLED * scale:
        return c
    if abs(step) > 0.75 * abs(before):
        return None
    ratio = step / before
    return c + step * ratio / (1 - ratio)


def _tidy(slope: float, scale: float) -> float:
    return 0.0 if abs(slope) <= 1e-9 * scale else float(f"{slope:.8g}")


def _at_note(at: list[float]) -> str:
    if any(math.isnan(a) for a in at):
        return "AD at the kink is nan"
    if any(math.isinf(a) for a in at):
        return "AD at the kink is infinite"
    return "" if len(set(at)) == 1 else "equal entries of one tensor get different derivatives at the kink"


def _match(
    left: float, ad: float, right: float, tolerance: float, dtype: torch.dtype
) -> tuple[float, float | None, str]:
    """AD's value snapped to the slopes, its lambda, and a note when the dtype is too coarse to tell."""
    if left == right:
        return (left if abs(ad - left) <= tolerance else ad), None, ""
    weight, slack = (ad - right) / (left - right), tolerance / abs(left - right)
    fits = [w for w in (0.0, 0.5, 1.0) if abs(weight - w) <= slack]
    if len(fits) > 1:
        candidates = _rounded([w * left + (1 - w) * right for w in fits], dtype)
        fits = [w for w, c in zip(fits, candidates, strict=True) if c == ad]
        if len(fits) != 1:
            return ad, None, "the slopes are too close to tell apart in this dtype"
    if fits:
        exact = fits[0] * left + (1 - fits[0]) * right
        return exact, fits[0], ""
    return ad, weight if 0 < weight < 1 else None, ""


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
