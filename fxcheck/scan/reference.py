"""Touches and ties in plain torch: any device, any float dtype, any strides. The compiled scan must agree with it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from math import isfinite, prod
from types import EllipsisType

import numpy as np
import torch
from torch import Tensor

from fxcheck.scan import numpy_ties
from fxcheck.scan.dense import FLOATS, line, order_of, widened
from fxcheck.scan.windows import Windows

_PIECE = 1 << 19
"""Entries looked at at a time on the CPU: what is made of them is still in the cache when it is read."""
_WORDS = {torch.float32: torch.int32, torch.float64: torch.int64}
_LEAST_BITS = 20
"""Of an entry that have to be looked at: by fewer of them too many entries look like a kink."""
_LEAST_NUMBER = 5e-324
"""That is not 0, unless the processor takes subnormal numbers for it."""


class _Buffers(threading.local):
    """Memory of each thread for what is made of a piece: to ask for it anew would cost more than what is done in it."""

    def __init__(self) -> None:
        self.held: dict[torch.dtype, Tensor] = {}

    def of(self, dtype: torch.dtype, number: int) -> Tensor:
        """So many entries of it, with any values."""
        held = self.held.get(dtype)
        if held is None or len(held) < number:
            held = self.held[dtype] = torch.empty(max(number, _PIECE), dtype=dtype)
        return held if len(held) == number else held[:number]


_BUFFERS = _Buffers()
Region = tuple[EllipsisType | slice, ...]


@dataclass(frozen=True, eq=False)
class Touches:
    """The entries of a pre-activation that sit on a kink.

    Args:
        indices: int64 (T,), flat row-major indices, ascending.
        which: int64 (T,), for each the first kink that it equals, as an index into the kinks asked for.
        finite: no entry of the pre-activation is NaN or infinite.
    """

    indices: Tensor
    which: Tensor
    finite: bool


CLEAR = Touches(torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64), True)
"""Of most tensors."""


@dataclass(frozen=True, eq=False)
class Ties:
    """The tied windows of one max.

    Args:
        outputs: how many windows there are.
        tied: how many of them are tied, at an undischarged value.
        listed: int64 (L,), flat row-major indices into ``out`` of the tied windows that are mixed, ascending.
        truncated: there were more than ``limit`` of those; ``listed`` then holds some ``limit`` of them.
        finite: no maximum is NaN or infinite. A cell of -inf that loses, as behind a mask, is legitimate.
    """

    outputs: int
    tied: int
    listed: Tensor
    truncated: bool
    finite: bool


@dataclass(frozen=True, eq=False)
class Shared:
    """The entries that attain an extremum together with others, so that they share its gradient.

    Args:
        outputs: int64 (P,), flat row-major indices into the result, ascending.
        entries: int64 (P,), flat row-major indices into the operand, ascending at each output.
        truncated: there were more than ``limit`` of those; both then hold some ``limit`` of them.
        finite: no entry of an operand is NaN or infinite.
    """

    outputs: Tensor
    entries: Tensor
    truncated: bool
    finite: bool


def touched(y: Tensor, kinks: Sequence[float]) -> Touches:
    """The entries of a pre-activation that equal a kink.

    Values are compared as computed: each kink is rounded to ``y.dtype``, and -0.0 equals 0.0.

    Args:
        y: the pre-activation, any shape, a floating dtype.
        kinks: the kinks of the activation function.

    Returns:
        The touches; ``which`` names the first of the kinks that rounding makes equal.
    """
    y = y.detach().resolve_neg()
    if _is_clear(y, kinks):
        return CLEAR
    which = torch.empty(0, dtype=torch.int64, device=y.device)
    masks = [y == kink for kink in rounded(kinks, y.dtype)]
    touches = torch.zeros_like(y, dtype=torch.bool) if not masks else masks[0].clone()
    for mask in masks[1:]:
        touches |= mask
    indices = _flat_nonzero(touches)
    if indices.numel():
        places = torch.unravel_index(indices, y.shape) if y.ndim else ()
        at = torch.stack([mask[places].reshape(-1) for mask in masks])
        which = at.to(torch.uint8).argmax(0)
    return Touches(indices, which, is_finite(y))


def _is_clear(y: Tensor, kinks: Sequence[float]) -> bool:
    """Whether a look shows a dense tensor on the CPU to be finite and off all kinks, asked in pieces that stay in the cache."""
    if not (y.is_cpu and y.dtype in FLOATS and y.layout is torch.strided):
        return False
    y, kinks, order = y.detach(), rounded(kinks, y.dtype), order_of(y)
    if order is None or not y.numel():
        return not y.numel()
    entries = line(y, order)
    low = _low_bits(tuple(kinks), y.dtype)
    for piece in (entries,) if len(entries) <= _PIECE else entries.split(_PIECE):
        if not is_finite(piece):
            return False
        if low is not None and _some_bit_is_set(piece, low):
            continue
        # numpy's comparison is several times faster than PyTorch's here, and says the same.
        values = widened(piece).numpy()
        if any(np.equal(values, kink).any() for kink in kinks):
            return False
    return True


def _some_bit_is_set(piece: Tensor, low: Tensor) -> bool:
    """Whether each float has one of the bits of the mask."""
    masked = _BUFFERS.of(low.dtype, len(piece))
    return bool(torch.bitwise_and(piece.view(low.dtype), low, out=masked).amin())


def _low_bits(kinks: tuple[float, ...], dtype: torch.dtype) -> Tensor | None:
    """Low bits of an entry, as a mask, all of which are 0 in every kink: an entry with one of them is on none.

    Kinks are short numbers, as 0, 6 or -0.5; few computed ones end in as many zeros. Returns None where too few bits are left,
    and where the processor is told to take subnormal numbers for 0.
    """
    return None if dtype not in _WORDS or _LEAST_NUMBER == 0 else _common_zeros(kinks, dtype)


@lru_cache(maxsize=256)
def _common_zeros(kinks: tuple[float, ...], dtype: torch.dtype) -> Tensor | None:
    bits = torch.tensor([*kinks, 0.0], dtype=dtype).view(_WORDS[dtype]).tolist()
    width = 8 * dtype.itemsize - 1  # without the sign: 0 and -0 are equal
    lowest = min((b & -b).bit_length() - 1 if b & (2**width - 1) else width for b in bits)
    return torch.tensor(2**lowest - 1, dtype=_WORDS[dtype]) if lowest >= _LEAST_BITS else None


def ties(
    x: Tensor,
    out: Tensor,
    windows: Windows,
    skip: tuple[float, ...] = (),
    mixed: Tensor | None = None,
    limit: int = 200_000,
    floor: float | None = None,
    labels: Tensor | None = None,
) -> Ties:
    """The windows in which at least two real cells equal the maximum. Padding never ties, and NaN equals nothing.

    Args:
        x: the input (N, C, *S_in), a floating dtype.
        out: the maxima (N, C, *S_out) as the forward computed them, same dtype.
        windows: the cells that each output reads.
        skip: windows whose maximum is one of these (rounded to ``x.dtype``) do not count.
        mixed: bool or uint8 (N, *S_out): only windows where it is not zero are listed; all tied ones are counted.
        limit: how many windows to list at most.
        floor: windows whose maximum is at most this (rounded to ``x.dtype``) do not count.
        labels: uint8 (N, *S_out, taps), contiguous: only windows whose maximal cells do not all have one label are listed.

    Returns:
        The ties.
    """
    x, out = x.detach(), out.detach()
    number, listed = _tied(x, out, windows, skip, floor, mixed)
    if labels is not None and listed.numel():
        listed = listed[_have_several_labels(x, out, windows, listed, labels)]
    return Ties(out.numel(), number, listed[:limit], listed.numel() > limit, is_finite(out))


def _tied(
    x: Tensor, out: Tensor, windows: Windows, skip: tuple[float, ...], floor: float | None, mixed: Tensor | None
) -> tuple[int, Tensor]:
    """How many windows are tied and count, and those of them to be listed."""
    order = order_of(x) if x.device.type == "cpu" and x.dtype in FLOATS and x.numel() else None
    plain = tuple(range(x.ndim))
    if order in (plain, (0, *plain[2:], 1)) and order_of(out) == order and not windows.everything:
        low = None if floor is None else rounded((floor,), out.dtype)[0]
        found = numpy_ties.ties(x, out, order, windows, rounded(skip, out.dtype), low, mixed)
        if found is not None:
            return found[0], torch.from_numpy(found[1])
    tied = (_counts(x, out, windows) >= 2) & counted(out, skip, floor)
    number = int(tied.sum())
    if mixed is not None and number:
        tied &= (mixed != 0).unsqueeze(1)
    return number, _flat_nonzero(tied)


def _have_several_labels(x: Tensor, out: Tensor, windows: Windows, listed: Tensor, labels: Tensor) -> Tensor:
    """Of listed windows, those whose maximal cells do not all have one label: bool (L,)."""
    size_in, size_out = prod(windows.size_in), prod(windows.size_out)
    plane, place = listed.div(size_out, rounding_mode="floor"), listed % size_out
    cells = torch.from_numpy(windows.places).to(x.device)[place]
    read = x.reshape(-1)[plane[:, None] * size_in + cells.clamp(min=0)]
    maximal = (cells >= 0) & (read == out.reshape(-1)[listed][:, None])
    sample = plane.div(x.shape[1], rounding_mode="floor")
    label = labels.reshape(-1, windows.taps)[sample * size_out + place].int()
    return torch.where(maximal, label, 1 << 8).amin(1) < torch.where(maximal, label, -1).amax(1)


def rivals(
    x: Tensor, out: Tensor, picks: Tensor, windows: Windows, listed: Tensor, labels: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """The cells that attain the maximum of some windows, beside the one that AD picked.

    Args:
        x: the input (N, C, *S_in).
        out: the maxima (N, C, *S_out).
        picks: for each output the cell that AD picked, an index into the flattened ``S_in``.
        windows: the cells that each output reads.
        listed: int64 (L,), flat row-major indices into ``out``.
        labels: uint8 (N, *S_out, taps); taps with the label of AD's pick are left out.

    Returns:
        Three int64 (R,): AD's pick and its rival, flat row-major indices into ``x``, and the window, one into ``out``.
    """
    size = prod(windows.size_in)
    places = torch.from_numpy(windows.places).to(x.device)
    plane, output = listed.div(len(places), rounding_mode="floor"), listed % len(places)
    cells, picked = places[output], _entries(picks, listed)
    values = _entries(x.detach(), cells.clamp(min=0) + plane[:, None] * size)
    rival = (cells >= 0) & (cells != picked[:, None]) & (values == _entries(out.detach(), listed)[:, None])
    if labels is not None:
        sample = plane.div(x.shape[1], rounding_mode="floor")
        known, pick = labels.reshape(-1, windows.taps)[sample * len(places) + output], cells == picked[:, None]
        rival &= known != known.gather(1, pick.int().argmax(1, keepdim=True))
    row, column = rival.nonzero(as_tuple=True)
    return plane[row] * size + picked[row], plane[row] * size + cells[row, column], listed[row]


def shared(
    x: Tensor, out: Tensor, dims: Sequence[int], skip: tuple[float, ...] = (), limit: int = 200_000,
    floor: float | None = None,
) -> Shared:  # fmt: skip
    """The entries that attain the extremum of a reduction, at the outputs where several do.

    Args:
        x: the operand, any shape, a floating dtype.
        out: the extrema over ``dims`` as the forward computed them, those dimensions kept or not.
        dims: the reduced dimensions, none of them negative.
        skip: outputs at one of these values (rounded to ``x.dtype``) do not count.
        limit: how many entries to list at most.
        floor: outputs at this value (rounded to ``x.dtype``) or below do not count.

    Returns:
        The entries, by output.
    """
    x, out = x.detach(), out.detach()
    kept = [d for d in range(x.ndim) if d not in dims]
    equal = x == out.reshape([1 if d in dims else s for d, s in enumerate(x.shape)])
    counts = equal.sum(tuple(dims), dtype=torch.int32) if x.ndim else equal.int()
    tied = _flat_nonzero((counts.reshape(out.shape) >= 2) & counted(out, skip, floor))
    if not tied.numel():
        return Shared(tied, tied, False, is_finite(x))
    at, column = equal.permute(*kept, *dims).reshape(out.numel(), -1)[tied].nonzero(as_tuple=True)
    outputs = tied[at]
    entries = _row_major_of(outputs, kept, x.shape) + _row_major_of(column, dims, x.shape)
    return Shared(outputs[:limit], entries[:limit], len(outputs) > limit, is_finite(x))


def equal(
    a: Tensor, b: Tensor, out: Tensor, skip: tuple[float, ...] = (), limit: int = 200_000, floor: float | None = None
) -> Shared:
    """The entries in which two operands are equal.

    Args:
        a: an operand, broadcast to the shape of ``out``.
        b: the other one, broadcast too.
        out: the extrema of both, entry by entry.
        skip: outputs at one of these values (rounded to the dtype) do not count.
        limit: how many entries to list at most.
        floor: outputs at this value (rounded to the dtype) or below do not count.

    Returns:
        The entries, which are the outputs, as both operands are broadcast to them.
    """
    a, b, out = a.detach(), b.detach(), out.detach()
    indices = _flat_nonzero((a == b) & counted(out, skip, floor))
    return Shared(indices[:limit], indices[:limit], len(indices) > limit, is_finite(a) and is_finite(b))


def counted(out: Tensor, skip: Sequence[float], floor: float | None) -> Tensor:
    """The extrema whose ties count: at none of ``skip`` and above ``floor``, both rounded to the dtype."""
    keep = torch.ones_like(out, dtype=torch.bool)
    for value in rounded(skip, out.dtype):
        keep &= out != value
    for value in rounded(() if floor is None else (floor,), out.dtype):
        keep &= out > value
    return keep


def _row_major_of(indices: Tensor, dims: Sequence[int], shape: Sequence[int]) -> Tensor:
    """What flat indices into the dimensions ``dims`` add to the row-major index into all of ``shape``."""
    places = torch.unravel_index(indices, [shape[d] for d in dims]) if dims else ()
    total = torch.zeros_like(indices)
    for place, d in zip(places, dims, strict=True):
        total += place * prod(shape[d + 1 :])
    return total


def _entries(x: Tensor, indices: Tensor) -> Tensor:
    """Entries at flat row-major indices."""
    return x.view(-1)[indices] if x.is_contiguous() else x[torch.unravel_index(indices, x.shape)]


def rounded(values: Sequence[float], dtype: torch.dtype) -> list[float]:
    """The values after rounding to the dtype."""
    return [*_rounded(tuple(values), dtype)]


@lru_cache(maxsize=1024)
def _rounded(values: tuple[float, ...], dtype: torch.dtype) -> tuple[float, ...]:
    return tuple(torch.tensor(values, dtype=dtype).tolist())


def is_finite(x: Tensor) -> bool:
    """Whether no entry of ``x`` is NaN or infinite: one sum, and a closer look only when that is not finite."""
    if x.is_sparse:
        return is_finite(x._values())
    if x.is_complex():
        return is_finite(x.real) and is_finite(x.imag)
    total = x.sum(dtype=torch.float64 if x.dtype == torch.float64 else torch.float32)
    return isfinite(total) or bool(x.isfinite().all())


def _counts(x: Tensor, out: Tensor, windows: Windows) -> Tensor:
    """How many real cells equal the maximum, in the shape and memory format of ``out``."""
    if windows.everything:
        return (x == out).sum(tuple(range(2, x.ndim)), keepdim=True)
    # One byte per window is the fastest to accumulate; it must not wrap round.
    counts = torch.zeros_like(out, dtype=torch.uint8 if windows.taps < 256 else torch.int32)
    if None in windows.slices:
        return _counts_irregular(x, out, windows, counts)
    for cells, region in _regions(x, windows):
        counts[region] += cells == out[region]
    return counts


def _regions(x: Tensor, windows: Windows) -> Iterator[tuple[Tensor, Region]]:
    """For regular windows, tap by tap: the cells of ``x`` (..., *S_in) read, and the region of outputs reading them."""
    for taps in product(*(along or () for along in windows.slices)):
        region: Region = (Ellipsis, *(tap.into for tap in taps))
        place: Region = (Ellipsis, *(tap.cells for tap in taps))
        yield x[place], region


def _counts_irregular(x: Tensor, out: Tensor, windows: Windows, counts: Tensor) -> Tensor:
    for columns in product(*(table.to(x.device).unbind(1) for table in windows.tables)):
        cells, real = x, torch.ones((), dtype=torch.bool, device=x.device)
        for dimension, column in enumerate(columns, start=2):
            cells = cells.index_select(dimension, column.clamp(min=0))
            real = real.unsqueeze(-1) & (column >= 0)
        counts += (cells == out) & real
    return counts


def _flat_nonzero(mask: Tensor) -> Tensor:
    """The flat row-major indices of the true entries, ascending, whatever the memory format."""
    if not mask.any():
        return torch.empty(0, dtype=torch.int64, device=mask.device)
    if not mask.ndim:
        return torch.zeros(1, dtype=torch.int64, device=mask.device)
    strides = [prod(mask.shape[axis + 1 :]) for axis in range(mask.ndim)]
    return (mask.nonzero() * torch.tensor(strides, device=mask.device)).sum(1)
