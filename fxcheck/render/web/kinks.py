"""Activations near their kinks: the function's slopes on both sides, and the one that AD returns there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from fxcheck.records.proxy import Proxy
from fxcheck.records.report import LayerReport

WIDTH, HEIGHT = 148, 112
CENTRE_X, CENTRE_Y = 74, 56
REACH_X, REACH_Y = 62, 50
STEEPNESS = 0.65
"""How steep slope 1 is drawn."""
JUMP = 14


@dataclass(frozen=True)
class Kinked:
    """One activation as measured, and the layers that use it."""

    name: str
    layers: tuple[LayerReport, ...]
    proxies: tuple[Proxy, ...]


def kinked(layers: Sequence[LayerReport]) -> list[Kinked]:
    """The distinct activations of a model, in execution order."""
    found: dict[tuple[str, str], list[LayerReport]] = {}
    for layer in layers:
        if layer.proxies:
            found.setdefault((layer.activation or layer.maxpool or "-", repr(layer.proxies)), []).append(layer)
    return [Kinked(name, tuple(members), members[0].proxies) for (name, _), members in found.items()]


def says(proxy: Proxy) -> str:
    """Which slope AD takes, in words."""
    if proxy.note and not proxy.stable:
        return proxy.note
    if not proxy.continuous:
        return "the function jumps here"
    if not all(map(math.isfinite, (proxy.left, proxy.ad, proxy.right))):
        return "a slope here is not finite"
    if proxy.is_wrong_derivative:
        return "differentiable here, and AD returns something else"
    if not proxy.is_kink:
        return "differentiable here"
    if proxy.weight == 1.0:
        return "AD takes the left slope"
    if proxy.weight == 0.0:
        return "AD takes the right slope"
    if proxy.weight is None:
        return "AD's value lies between no weights of the two slopes"
    if 0.0 < proxy.weight < 1.0:
        return f"AD mixes the slopes, with weight {proxy.weight:g} on the left one"
    return f"AD lies outside the two slopes (weight {proxy.weight:g} on the left one)"


def number(value: float) -> str:
    """A slope in a few letters."""
    if math.isnan(value):
        return "nan"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    return f"{value:.4g}".replace("-", "−")


def plot(proxy: Proxy) -> Markup:
    """The function near one kink: two rays with its one-sided slopes, and a dashed tangent with AD's slope."""
    jump = 0 if proxy.continuous else JUMP
    lines = [
        _LINE.format("axis", 0, CENTRE_Y, WIDTH, CENTRE_Y),
        _LINE.format("axis", CENTRE_X, 6, CENTRE_X, HEIGHT - 6),
        *_ray("piece", proxy.left, -1, jump),
        *_ray("piece", proxy.right, 1, -jump),
        *_ray("slope", proxy.ad, -1, 0),
        *_ray("slope", proxy.ad, 1, 0),
        _DOT.format(CENTRE_X, CENTRE_Y),
    ]
    spoken = f"at {number(proxy.kink)}: left slope {number(proxy.left)}, AD {number(proxy.ad)}, right {number(proxy.right)}"
    return _PLOT.format(WIDTH, HEIGHT, spoken, Markup("").join(lines))


def _ray(kind: str, slope: float, side: int, drop: float) -> list[Markup]:
    if math.isnan(slope):
        return []
    dx, dy = _reach(slope, REACH_Y - abs(drop))
    x, y = CENTRE_X + side * dx, CENTRE_Y - side * dy
    return [_LINE.format(kind, CENTRE_X, CENTRE_Y + drop, x, y + drop)]


def _reach(slope: float, room: float) -> tuple[float, float]:
    """How far a ray with this slope goes before it leaves the plot."""
    if math.isinf(slope):
        return 0.0, math.copysign(room, slope)
    rise = slope * STEEPNESS
    dx = REACH_X if abs(rise) * REACH_X <= room else room / abs(rise)
    return dx, rise * dx


_LINE = Markup('<line class="{}" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>')
_DOT = Markup('<circle class="kink" cx="{}" cy="{}" r="3.5"/>')
_PLOT = Markup('<svg class="plot" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>')
