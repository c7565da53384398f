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
    sizes, number = [table.shape[1] for table in windows.tables], along.shape[1] * len(windows.places)
    real = torch.from_numpy(windows.places.T >= 0).to(along.device)  # (taps, outputs)
    cells = torch.from_numpy(windows.places.T.clip(0)).to(along.device)
    found = torch.arange(windows.taps, dtype=torch.uint8, device=along.device)[:, None].expand(-1, number).clone()
    mixed = torch.zeros(number, dtype=torch.bool, device=along.device)
    apart = []
    for d, tap, other in _steps_between_taps(sizes):
        both, step = real[tap] & real[other], along[d].flatten(1)[:, cells[tap]]
        mixed |= (both & ~step).flatten()
        # A mask that a minimum takes for more than any label.
        apart.append((found[tap], found[other], (~(both & step)).flatten().to(torch.uint8) * 255))
    before = None
    while before is None or not torch.equal(before, found):
        before = found.clone()
        for here, there, mask in (*apart, *reversed(apart)):
            torch.minimum(here, there | mask, out=here)
            torch.minimum(there, here | mask, out=there)
    size = along.shape[1], *windows.size_out
    return found.t().contiguous().view(*size, windows.taps), mixed.view(size)


def _steps_between_taps(sizes: list[int]) -> list[tuple[int, int, int]]:
    """(dimension, tap, the next one along it) for all taps of a window, flat."""
    taps, found = torch.arange(prod(sizes)).view(sizes), []
    for d, number in enumerate(sizes):
        one, other = (taps.narrow(d, start, number - 1).flatten().tolist() for start in (0, 1))
        found += [(d, a, b) for a, b in zip(one, other, strict=True)]
    return found
