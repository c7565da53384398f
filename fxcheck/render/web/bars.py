"""Small bar charts over the steps of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup

WIDTH, HEIGHT, LEFT, FOOT = 320, 64, 44, 14


def bars(counts: Sequence[int], steps: int, width: int, kind: str, label: str) -> Markup:
    """Counts by bin.

    Args:
        counts: one number for each bin; bins after the last one hold none.
        steps: of the whole run.
        width: steps of one bin.
        kind: class of the bars.
        label: what a screen reader says.
    """
    return stacked({kind: counts}, steps, width, label, size=(WIDTH, HEIGHT))


def stacked(
    series: Mapping[str, Sequence[int]], steps: int, width: int, label: str, *, size: tuple[int, int] = (1000, 90)
) -> Markup:
    """Several counts by bin, on top of each other; the classes of the bars are the names."""
    bins = -(-steps // width)
    whole, foot = size[0] - LEFT, size[1] - FOOT
    sums = [sum(counts[i] for counts in series.values() if i < len(counts)) for i in range(bins)]
    most, pitch = max(sums, default=0) or 1, whole / max(bins, 1)
    drawn: list[Markup] = []
    base = [0.0] * bins
    for kind, counts in series.items():
        for i, count in enumerate(counts[:bins]):
            if count:
                height = count / most * (foot - 6)
                drawn.append(_bar(kind, i, count, width, LEFT + i * pitch, foot - base[i] - height, pitch, height))
                base[i] += height
    words = [
        _TEXT.format("end", LEFT - 6, 12, most),
        _TEXT.format("start", LEFT, size[1] - 2, "step 1"),
        _TEXT.format("end", size[0], size[1] - 2, steps or ""),
    ]
    axis = Markup('<line class="axis" x1="{}" y1="{}" x2="{}" y2="{}"/>').format(LEFT, foot + 0.5, size[0], foot + 0.5)
    return _CHART.format(*size, label, Markup("").join([axis, *drawn, *words]))


def _bar(kind: str, at: int, count: int, width: int, x: float, y: float, pitch: float, height: float) -> Markup:
    first, last = at * width + 1, (at + 1) * width
    where = f"step {first}" if first == last else f"steps {first} to {last}"
    shown = max(height, 1.0)
    gap = min(1.0, pitch / 4)
    return _BAR.format(kind, x, y - shown + height, pitch - gap, shown, f"{where}: {count} {kind}")


_CHART = Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>')
_BAR = Markup('<rect class="bar {}" x="{:.2f}" y="{:.2f}" width="{:.2f}" height="{:.2f}"><title>{}</title></rect>')
_TEXT = Markup('<text text-anchor="{}" x="{}" y="{}">{}</text>')
