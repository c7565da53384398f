"""The steps of ``shifts`` in plain torch; ``compiled_shifts`` has the same ones, with the same values."""

from __future__ import annotations

from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

from fxcheck.scan.windows import Windows


def of_input(bits: Tensor, offsets: tuple[int, ...], exist: Tensor, margins: tuple[int, ...]) -> Tensor:
    """Where all channels of an image, zeros around it, equal their neighbour.

    Args:
        bits: (N, C, *S), integers.
        offsets: for each shift, the distance in one channel's memory.
        exist: bool (M, *padded), where a position and its neighbour exist.
        margins: per spatial dimension.

    Returns:
        bool (M, N, *padded).
    """
    bits = F.pad(bits, [m for margin in reversed(margins) for m in (margin, margin)]).contiguous()
    return torch.stack([_of_offset(bits, offset) & real for offset, real in zip(offsets, exist, strict=True)])


def _of_offset(bits: Tensor, offset: int) -> Tensor:
    equal = torch.zeros(bits.shape, dtype=torch.bool, device=bits.device)
    if 0 < offset < bits.numel():
        # Neighbours in one run of memory: far faster than by slices; what wraps round does not exist.
        flat = bits.view(-1)
        torch.eq(flat[offset:], flat[:-offset], out=equal.view(-1)[:-offset])
    every = equal[:, 0]
    for channel in range(1, bits.shape[1]):
        every = every & equal[:, channel]
    return every


def through_windows(equal: Tensor, windows: Windows, outside: Tensor | None, exist: Tensor) -> Tensor:
    """Where all cells of a window equal those of the neighbour.

    Args:
        equal: bool (M, N, *S_in), or (M, N, *covered) with the padding in it.
        windows: sliding windows.
        outside: bool (M, *covered), where a cell and its neighbour are padding; None where that is in ``equal``.
        exist: bool (M, *S_out), where a window and its neighbour exist.

    Returns:
        bool (M, N, *S_out).
    """
    spec = windows.spec
    assert spec is not None
    if outside is not None:
        equal = _padded(equal, windows) | outside[:, None]
    for d, taps in enumerate(spec.kernel):
        before, step = equal.reshape(-1), spec.dilation[d] * prod(equal.shape[d + 3 :])
        equal = equal.clone(memory_format=torch.contiguous_format) if taps > 1 else equal
        for tap in range(1, taps):
            # What wraps round belongs to windows that nobody reads.
            equal.view(-1)[: -tap * step] &= before[tap * step :]
    starts = tuple(slice(0, (n - 1) * s + 1, s) for n, s in zip(windows.size_out, spec.stride, strict=True))
    return equal[(slice(None), slice(None), *starts)] & exist[:, None]


def covered(windows: Windows) -> tuple[int, ...]:
    """How many cells, padding included, the windows cover along each dimension."""
    spec = windows.spec
    assert spec is not None
    numbers = zip(windows.size_out, spec.stride, spec.kernel, spec.dilation, strict=True)
    return tuple((n - 1) * s + (k - 1) * d + 1 for n, s, k, d in numbers)


def _padded(equal: Tensor, windows: Windows) -> Tensor:
    assert windows.spec is not None
    sides = list(zip(covered(windows), windows.spec.padding, windows.size_in, strict=True))
    margins = [m for side, margin, size in reversed(sides) for m in (margin, side - margin - size)]
    return F.pad(equal, margins) if any(margins) else equal  # negative: cells that no window reads


def labels(along: Tensor, windows: Windows) -> tuple[Tensor, Tensor]:
    """As ``shifts.labels``."""
    sizes = [table.shape[1] for table in windows.tables]
    places = torch.from_numpy(windows.places).to(along.device)
    real = (places >= 0).unflatten(-1, sizes)
    steps = along.flatten(2)[:, :, places.clamp(min=0)].unflatten(-1, sizes)  # (D, N, outputs, *taps)
    found = torch.arange(windows.taps, dtype=torch.uint8, device=along.device).view(sizes).expand(steps.shape[1:]).clone()
    mixed = torch.zeros(steps.shape[1:3], dtype=torch.bool, device=along.device)
    before = None
    while before is None or not torch.equal(before, found):
        before = found.clone()
        for d, taps in enumerate(sizes):
            here, there = (found.narrow(2 + d, start, taps - 1) for start in (0, 1))
            both = real.narrow(1 + d, 0, taps - 1) & real.narrow(1 + d, 1, taps - 1)
            step = steps[d].narrow(2 + d, 0, taps - 1)
            mixed |= (both & ~step).flatten(2).any(-1)
            for one, other in ((here, there), (there, here)):  # they overlap: one after the other
                one.copy_(torch.where(both & step, torch.minimum(one, other), one))
    size = along.shape[1], *windows.size_out
    return found.reshape(*size, windows.taps), mixed.reshape(size)
