"""What a drawing shows as one tile: a layer, or a run of repeated blocks folded into one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from fxcheck.records.finding import Verdict, weakest
from fxcheck.records.report import LayerReport
from fxcheck.render.collapse import likeness
from fxcheck.render.flat import operation

LONGEST_PERIOD = 12
SMALLEST_FOLD = 3
"""Repetitions that are worth a fold."""


@dataclass(frozen=True)
class Tile:
    """One or more layers in execution order."""

    layers: tuple[LayerReport, ...]
    period: int = 1
    """Layers of one repeated block; for a single layer 1."""

    @property
    def repeats(self) -> int:
        return len(self.layers) // self.period

    @cached_property
    def verdicts(self) -> tuple[Verdict, ...]:
        """Of one repetition; a single one if all are the same."""
        found = tuple(layer.verdict for layer in self.layers[: self.period])
        return found if len(set(found)) > 1 else found[:1]

    @property
    def verdict(self) -> Verdict:
        return weakest(list(self.verdicts))

    @property
    def is_fold(self) -> bool:
        return len(self.layers) > 1

    @property
    def title(self) -> str:
        """Its module path; for a fold the path of what it repeats and the ends of the run."""
        if not self.is_fold:
            return name_of(self.layers[0])
        above, first, last = self._ends
        return f"{above}: {first} – {last}" if above else f"{first} – {last}"

    def label(self, block: str) -> str:
        """What tells it apart inside a block of the model with this path."""
        above, first, _ = self._ends
        if self.is_fold:
            return above.rpartition(".")[2] or first
        return self.title.removeprefix(block).lstrip("./") or self.title

    @property
    def steps(self) -> str:
        """The operations of a layer, pre-activation included; the ends of a fold."""
        if self.is_fold:
            return f"{self._ends[1]} – {self._ends[2]}"
        return " › ".join((*self.layers[0].pre_activation, operation(self.layers[0])))

    @property
    def _ends(self) -> tuple[str, str, str]:
        """The path that a run's members share, the numbered part of the first one, and the number of the last one."""
        (above, first), (_, last) = (_numbered(name_of(layer)) for layer in (self.layers[0], self.layers[-1]))
        return above, first, last.removeprefix(last.rstrip("0123456789")) or last


def single(layers: Sequence[LayerReport]) -> list[Tile]:
    """A tile for each layer."""
    return [Tile((layer,)) for layer in layers]


def fold(layers: Sequence[LayerReport]) -> list[Tile]:
    """Runs of at least three alike blocks as one tile; the verdict and the codes are part of what is alike."""
    tokens = [(_family(name_of(layer)), likeness(layer)) for layer in layers]
    found: list[Tile] = []
    start = 0
    while start < len(layers):
        period, end = _longest_run(tokens, start)
        found.append(Tile(tuple(layers[start:end]), period))
        start = end
    return found


def name_of(layer: LayerReport) -> str:
    """Its module path, or its operation where it has none."""
    return layer.name or operation(layer) or "-"


def _longest_run(tokens: Sequence[object], start: int) -> tuple[int, int]:
    """The period and the end of the repetition from ``start`` that covers most; a single layer if there is none."""
    best = (1, start + 1)
    for period in range(1, min(LONGEST_PERIOD, len(tokens) - start) + 1):
        block, end = tokens[start : start + period], start + period
        while tokens[end : end + period] == block:
            end += period
        if end - start >= SMALLEST_FOLD * period and end > best[1]:
            best = (period, end)
    return best


def _family(name: str) -> tuple[str, str, str]:
    """The name without the number that tells repeated blocks apart."""
    above, numbered = _numbered(name)
    return above, numbered.rstrip("0123456789"), name[len(above) + len(numbered) + 1 :] if above else name[len(numbered) :]


def _numbered(name: str) -> tuple[str, str]:
    """The innermost part of a path that ends in a number and is not the leaf (else the leaf), and the path above it."""
    parts = re.split(r"[./]", name)
    at = next((i for i in [*range(len(parts) - 2, -1, -1), len(parts) - 1] if parts[i][-1:].isdigit()), len(parts) - 1)
    return ".".join(parts[:at]), parts[at]
