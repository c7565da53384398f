"""What happened when in a run of checked steps, in a bounded number of bins."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

BINS = 240
"""Even, so that bins merge in pairs."""


@dataclass
class Series:
    """Counts of one layer, by bin."""

    touched: list[int] = field(default_factory=list)
    nontrivial: list[int] = field(default_factory=list)


@dataclass
class History:
    """Counts by step; once all bins are full, each pair is merged and a bin holds twice as many steps."""

    width: int = 1
    """Steps of one bin."""
    steps: int = 0
    uncertified: list[int] = field(default_factory=list)
    layers: dict[str, Series] = field(default_factory=dict)
    """Those that ever counted something; bins after a list's last one hold none."""

    def add(self, certified: bool, layers: Iterable[tuple[str, int, int]]) -> None:
        """Count one step.

        Args:
            certified: the step's verdict.
            layers: name, touches and non-trivial tied entries; those with none may be left out.
        """
        if self.steps == self.width * BINS:
            self._halve()
        at = self.steps // self.width
        self.steps += 1
        _count(self.uncertified, at, not certified)
        for name, touched, nontrivial in layers:
            series = self.layers.setdefault(name, Series())
            _count(series.touched, at, touched)
            _count(series.nontrivial, at, nontrivial)

    def steps_in(self, at: int) -> int:
        """Steps counted in one bin."""
        return min(self.width, self.steps - at * self.width)

    def to_dict(self) -> dict[str, Any]:
        layers = {name: dict(series.__dict__) for name, series in self.layers.items()}
        return {"width": self.width, "uncertified": self.uncertified, "layers": layers}

    def _halve(self) -> None:
        self.width *= 2
        self.uncertified = _paired(self.uncertified)
        for series in self.layers.values():
            series.touched, series.nontrivial = _paired(series.touched), _paired(series.nontrivial)


def _count(counts: list[int], at: int, value: int) -> None:
    counts.extend([0] * (at + 1 - len(counts)))
    counts[at] += value


def _paired(counts: list[int]) -> list[int]:
    return [sum(counts[i : i + 2]) for i in range(0, len(counts), 2)]
