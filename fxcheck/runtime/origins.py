"""Whether two results of a convolution have equal AD gradients, by where the entries that they read come from."""

from __future__ import annotations

from dataclasses import dataclass

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

    def have_equal_gradients(self, source: Patches, one: Tensor, other: Tensor, patches: np.ndarray) -> bool:
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
        labels = [self._labels(source, position) for position in (one, other)]
        left, right = labels
        if left is None or right is None:
            return False
        equal = (left == right).all(0)
        if source.source.zero_is_frozen:
            zero = torch.from_numpy(~patches.any(0)).T.to(equal.device)
            equal = equal | zero
        return bool(equal.all())

    def _labels(self, source: Patches, position: Tensor) -> Tensor | None:
        """What each read entry depends on: int64 (2, taps, inputs or 1), -1 for padding."""
        found = source.cells(position)
        if found is None:
            return None
        sample, cells, real = (v[0] for v in found)
        pool = self.classes.picks_behind(source.source.operand)
        known = self.classes.of(source.source.operand if pool is None else pool.operand)
        if known is None:
            return None
        places = cells[:, None] if pool is None else pool.chosen[sample].flatten(1)[:, cells].T
        if known.flatten(2).shape[2] <= int(places.max()):
            return None
        labels = known.flatten(2)[:, sample][:, places]
        return labels.masked_fill(~real[None, :, None], -1)
