"""Equality of neighbours: which positions are the same function of the parameters as the one a fixed shift away.

A map is a bool tensor (M, N, *S), one layer for each of M shifts: true where the position and the one at
``position + shift`` both exist and have equal receptive fields, as ``classes`` means it. It is exact, no hash, and it is
cheap: bytes, and one minimum filter for a convolution or a sliding pool, where a shift of the result is as many strides
of the operand.
"""

from __future__ import annotations

from functools import lru_cache
from math import prod
from types import ModuleType

import torch
from torch import Tensor

from fxcheck.scan import choice, compiled_shifts, shift_steps
from fxcheck.scan.class_steps import bits_of
from fxcheck.scan.windows import Windows, WindowSpec

Shift = tuple[int, ...]
"""One number per spatial dimension, the first that is not zero being positive."""
Shifts = tuple[Shift, ...]

_MOST_STEPS = 12
"""Between adjacent taps of a window that is labelled: one of 3 x 3 cells, or of 2 x 2 x 2."""


def of_input(x: Tensor, shifts: Shifts, margins: tuple[int, ...] | None = None) -> Tensor:
    """Where all channels of an input have the bits of their neighbour.

    Args:
        x: the input (N, C, *S), any real dtype of at most eight bytes.
        shifts: from a position to its neighbour, M of them.
        margins: per spatial dimension how many zeros stand before and behind the input.

    Returns:
        bool (M, N, *(S + 2 * margin)).
    """
    margins = margins or (0,) * (x.dim() - 2)
    size = tuple(side + 2 * m for side, m in zip(x.shape[2:], margins, strict=True))
    offsets = tuple(sum(step * prod(size[d + 1 :]) for d, step in enumerate(shift)) for shift in shifts)
    return _steps(x).of_input(bits_of(x), offsets, _both_exist(size, shifts, x.device), margins)


def of_operand(windows: Windows, shifts: Shifts) -> Shifts | None:
    """The shifts of the operand behind shifts of the result; None for windows that do not slide."""
    if windows.spec is None:
        return None
    stride = windows.spec.stride
    return tuple(tuple(s * step for s, step in zip(stride, shift, strict=True)) for shift in shifts)


def through_windows(equal: Tensor, windows: Windows, shifts: Shifts, is_padded: bool = False) -> Tensor:
    """The map of a convolution's or a sliding pool's result: equal where all cells are, in tap order.

    Args:
        equal: bool (M, N, *S_in), the operand's map for the shifts that ``of_operand`` says.
        windows: the cells that each output reads; sliding.
        shifts: of the result.
        is_padded: whether the padding is in the map already, as positions.

    Returns:
        bool (M, N, *S_out). Padding that is not in the map equals padding, and nothing else.
    """
    inner = of_operand(windows, shifts)
    assert windows.spec is not None and inner is not None
    outside = None if is_padded else _both_outside(windows, inner, equal.device)
    return _steps(equal).through_windows(equal, windows, outside, _both_exist(windows.size_out, shifts, equal.device))


def adjacent(spec: WindowSpec) -> Shifts:
    """For each dimension the shift to the next tap."""
    return tuple(tuple(step * (e == d) for e in range(len(spec.kernel))) for d, step in enumerate(spec.dilation))


def are_small(windows: Windows) -> bool:
    """Whether windows slide and have few enough taps to be labelled."""
    kernel = windows.spec.kernel if windows.spec is not None else ()
    return bool(kernel) and sum((k - 1) * prod(kernel) // k for k in kernel) <= _MOST_STEPS


def labels(along: Tensor, windows: Windows) -> tuple[Tensor, Tensor]:
    """Which taps of each window are connected by steps between equal cells.

    Args:
        along: bool (D, N, *S_in), the operand's map for ``adjacent``.
        windows: the cells that each output reads; they ``are_small``.

    Returns:
        uint8 (N, *S_out, taps), the first tap that a tap is connected with, a tap of padding being alone; and bool
        (N, *S_out), the windows whose real cells are not all equal: only ties in those are not trivial.
    """
    return _steps(along).labels(along, windows)


def _steps(x: Tensor) -> ModuleType:
    return compiled_shifts if choice.compiles(x) and x.dim() <= 5 else shift_steps


@lru_cache(maxsize=1024)
def _both_exist(size: tuple[int, ...], shifts: Shifts, device: torch.device) -> Tensor:
    """bool (M, *size): where a position and its neighbour exist."""
    return torch.stack([_real(size, shift, size) for shift in shifts]).to(device)


@lru_cache(maxsize=1024)
def _both_outside(windows: Windows, shifts: Shifts, device: torch.device) -> Tensor:
    """bool (M, *covered), over what windows cover with padding: where a cell and its neighbour are both padding."""
    spec, covered = windows.spec, shift_steps.covered(windows)
    assert spec is not None
    firsts = tuple(-margin for margin in spec.padding)
    here = _real(windows.size_in, firsts, covered)
    theirs = [tuple(f + step for f, step in zip(firsts, shift, strict=True)) for shift in shifts]
    return torch.stack([~here & ~_real(windows.size_in, first, covered) for first in theirs]).to(device)


def _real(size: tuple[int, ...], firsts: tuple[int, ...], number: tuple[int, ...]) -> Tensor:
    """bool (*number): which positions, the first one at ``firsts``, lie in [0, size)."""
    real = torch.ones((), dtype=torch.bool)
    for side, first, count in zip(size, firsts, number, strict=True):
        cells = torch.arange(count) + first
        real = real.unsqueeze(-1) & (cells >= 0) & (cells < side)
    return real
