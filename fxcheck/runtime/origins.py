"""Whether two results of a convolution have equal AD gradients, by where the entries that they read come from."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from torch import Tensor

from fxcheck.runtime.closed_rows import Patches
from fxcheck.runtime.position_classes import PositionClasses


@dataclass(frozen=True)
class Origins:
    """Classes of one forward, and the picks of its pools.

    A pool's output has the gradient of the entry that AD picked, so it is told by the class of that entry; a zero out of
    a ReLU has gradient zero. Equal gradients are what T_j asks for (theory 2, Algorithm 1); no float gradient is
    compared.
    """

    classes: PositionClasses

    def have_equal_gradients(self, source: Patches, one: np.ndarray, other: np.ndarray, patches: np.ndarray) -> bool:
        """Compare two positions of a convolution's result whose patches hold equal values.

        Args:
            source: the convolution.
            one: int64 (1,), a flat position of its result.
            other: int64 (1,), another.
            patches: float64 (2, inputs, taps), what is read there.

        Returns:
            True where equality is proved.
        """
        if not source.source.kernel:
            return False
        equal = self._equal(source, one, other)
        if equal is None:
            return False
        if source.source.zero_is_frozen:
            equal = equal | torch.from_numpy(~patches.any(0)).T.to(equal.device)
        return bool(equal.all())

    def _equal(self, source: Patches, one: np.ndarray, other: np.ndarray) -> Tensor | None:
        """Which entries that the two positions read depend on the same: bool (taps, inputs or 1)."""
        found = [source.cells(position) for position in (one, other)]
        if found[0] is None or found[1] is None or found[0][0] != found[1][0]:
            return None
        pool = self.classes.picks_behind(source.source.operand)
        node = source.source.operand if pool is None else pool.operand
        sample, *cells = (torch.from_numpy(v).to(source.operand.device) for v in (found[0][0], found[0][1][0], found[1][1][0]))
        real = [c[:, None] >= 0 for c in cells]
        cells = [c.clamp(min=0) for c in cells]
        here, there = (c[:, None] if pool is None else pool.chosen[int(sample)].flatten(1)[:, c].T for c in cells)
        reads = self.classes.reads(node)
        if reads is None or prod(reads.shape[1:]) <= int(torch.maximum(here, there).max()):
            return None
        equal = torch.where(real[0] & real[1], here == there, real[0] == real[1])
        apart = real[0] & real[1] & ~equal
        pairs = [t.cpu().numpy() for t in (sample.expand(int(apart.sum())), here[apart], there[apart])]
        below = self.classes.are_equal(node, *pairs)
        if below is not None:
            equal[apart] = torch.from_numpy(below).to(equal.device)
        return equal
