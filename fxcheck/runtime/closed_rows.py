"""Rows in closed form: a convolution or linear layer, perhaps normalised and clipped (theory 4.9).

The derivative of an entry of channel c by the layer's weight is the input patch under it, on channel c alone, so a
row is a patch or a difference of two patches. Batch statistics, gamma and beta cancel in a difference of entries that
are equal before the normalisation.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from torch import Tensor

from fxcheck.records.checks import Affine
from fxcheck.runtime.observed import Observation
from fxcheck.runtime.windows_of import convolution_windows

_READABLE = (torch.float32, torch.float64, torch.float16)
"""Dtypes that numpy has too."""


@dataclass(frozen=True, eq=False)
class Patches:
    """Input patches of one affine source at some entries of its result."""

    source: Affine
    operand: Tensor
    result: Tensor

    def rows_and_channels(self, entries: np.ndarray, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        """(position, channel of the source) of flat entries of the observed tensor of that shape.

        A position is a flat index into (B, *S) of a convolution's result, or into the leading dimensions of a linear
        layer's.
        """
        if self.is_linear:
            return np.divmod(entries, shape[-1])
        plane = prod(shape[2:])
        sample, within = np.divmod(entries, shape[1] * plane)
        channel, cell = np.divmod(within, plane)
        return sample * plane + cell, channel - self.source.start

    def has_all_channels(self, shape: tuple[int, ...]) -> bool:
        """Whether each entry of the observed tensor of that shape comes from it."""
        return (self.source.start, self.source.stop) == (0, shape[-1 if self.is_linear else 1])

    @property
    def is_linear(self) -> bool:
        return not self.source.kernel

    def at(self, positions: np.ndarray) -> np.ndarray | None:
        """The patches (P, inputs, taps) at positions, as float64; None where their layout is not known.

        The operand is first rounded to the result's dtype, as autocast does.
        """
        operand = self.operand.to(self.result.dtype) if self.operand.dtype != self.result.dtype else self.operand
        if self.is_linear:
            return entries_at(operand.reshape(-1, operand.shape[-1]), positions)[:, :, None]
        return self._convolved(operand, positions)

    def _convolved(self, operand: Tensor, positions: np.ndarray) -> np.ndarray | None:
        found = self.cells(positions)
        if found is None:
            return None
        sample, cells = found
        entries = entries_at(operand.flatten(2).transpose(1, 2), sample[:, None], cells)  # padding reads the last cell
        entries[cells < 0] = 0.0
        return entries.transpose(0, 2, 1)

    def cells(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """Where the operand is read under positions of the result, which is a convolution's.

        Returns:
            Samples (P,), and flat spatial cells (P, taps) with -1 for padding; None where the layout is not known.
        """
        size_in, size_out = tuple(self.operand.shape[2:]), tuple(self.result.shape[2:])
        windows = convolution_windows(self.source.arguments, self.source.kernel, size_in, size_out)
        if windows is None:
            return None
        sample, output = np.divmod(positions, prod(size_out))
        return sample, windows.places[output]

    def of_channel(self, patches: np.ndarray, channel: int) -> np.ndarray:
        """The part of patches (P, inputs, taps) that one channel's weight multiplies, flattened as the weight is."""
        groups = int(self.source.arguments.get("groups") or 1)
        if groups > 1:
            inputs = patches.shape[1] // groups
            group = channel // ((self.source.stop - self.source.start) // groups)
            patches = patches[:, group * inputs : (group + 1) * inputs]
        return patches.reshape(len(patches), -1)


def entries_at(tensor: Tensor, *places: np.ndarray) -> np.ndarray:
    """A copy of ``tensor[places]`` as float64; for a few entries numpy takes less time than torch.

    Args:
        tensor: on any device, without gradient.
        places: int64, one a dimension from the first on, broadcast to one shape.
    """
    if tensor.device.type == "cpu" and tensor.dtype in _READABLE:
        return np.asarray(tensor.resolve_neg().numpy()[places], np.float64)
    return tensor[tuple(map(torch.from_numpy, places))].double().cpu().numpy()


def patches_of(at: Observation, channel_of_entry: int) -> Patches | None:
    """The source of the channel that an entry of the observed tensor lies in, if its tensors are at hand."""
    if len(at.sources) != len(at.check.sources):
        return None
    for source, (operand, result) in zip(at.check.sources, at.sources, strict=True):
        if source.start <= channel_of_entry < source.stop:
            return Patches(source, operand, result)
    return None
