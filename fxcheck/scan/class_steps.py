"""The steps of ``classes`` in plain torch; ``compiled_classes`` has the same ones, with the same values."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from fxcheck.scan.windows import Windows
from fxcheck.scan.words import ROUNDS, signed

Keys = list[int]  # unsigned words
_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_LOWEST, _HIGHEST = torch.iinfo(torch.int64).min, torch.iinfo(torch.int64).max


def bits_of(x: Tensor) -> Tensor:
    """The bits of each entry as an integer of the same width."""
    x = x.detach().resolve_conj().resolve_neg()
    return x.view(torch.uint8 if x.dtype is torch.bool else _INTEGERS[x.element_size()])


def hashed(x: Tensor, keys: tuple[Keys, Keys]) -> Tensor:
    """Per position the sum over the channels of x's bits, keyed by channel and mixed; mixed once more.

    Args:
        x: (N, C, *S).
        keys: for each hash one key per channel.

    Returns:
        int64 (2, N, *S).
    """
    bits = bits_of(x)
    classes = torch.zeros(2, x.shape[0], *x.shape[2:], dtype=torch.int64, device=x.device)
    for channel in range(x.shape[1]):
        # As wide as the key before it is added: a narrow key would make channels interchangeable.
        cells = bits[:, channel].to(torch.int64)
        for which in range(2):
            classes[which] += mix(cells + signed(keys[which][channel]))
    return mix(classes)


def weighted(
    x: Tensor, windows: Windows, dimension: int, keys: tuple[Keys, Keys], padding: Keys, salts: Keys
) -> Tensor:
    """Along one dimension the sum of the cells times their tap's key, mixed. Cells are mixed already: a sum is enough.

    Args:
        x: int64 (2, N, *S), with the windows' input size along the dimension.
        windows: the windows.
        dimension: which spatial dimension, from 0.
        keys: for each hash one key per tap.
        padding: for each hash what stands for a cell of padding.
        salts: for each hash what is added to the sum.

    Returns:
        int64 (2, N, *S), with the output size along the dimension.
    """
    size_out = windows.size_out[dimension]
    shape = (*x.shape[: dimension + 2], size_out, *x.shape[dimension + 3 :])
    total = torch.zeros(shape, dtype=torch.int64, device=x.device)
    for which in range(2):
        sums = total[which].movedim(dimension + 1, -1)
        for tap, (cells, into, outside) in enumerate(_columns(x[which], windows, dimension)):
            key = keys[which][tap]
            # Not in place: a tensor of outputs would be changed in a copy.
            sums[..., into] = torch.add(sums[..., into], cells, alpha=signed(key))
            for part in outside:
                sums[..., part] += signed(padding[which] * key)
    return salted(total, salts)


def salted(classes: Tensor, keys: Keys) -> Tensor:
    """The classes (2, N, *S) plus one key for each hash, mixed."""
    added = torch.tensor([signed(key) for key in keys], device=classes.device)
    return mix(classes + added.view(2, *[1] * (classes.ndim - 1)))


def mixed(classes: Tensor, windows: Windows) -> Tensor:
    """As ``classes.mixed``."""
    lowest = highest = classes
    for dimension in range(len(windows.tables)):
        lowest = _extreme(lowest, windows, dimension, largest=False)
        highest = _extreme(highest, windows, dimension, largest=True)
    return (lowest < highest).any(0)


def mix(words: Tensor) -> Tensor:
    """Splitmix64's finaliser, in place."""
    for shift, factor in ROUNDS:
        # The shift is arithmetic; the mask makes it logical.
        words ^= (words >> shift).bitwise_and_((1 << 64 - shift) - 1)
        if factor != 1:
            words *= signed(factor)
    return words


def _extreme(x: Tensor, windows: Windows, dimension: int, largest: bool) -> Tensor:
    """Along one dimension the largest (or smallest) real cell of each window; the worst value where there is none."""
    shape = (*x.shape[: dimension + 2], windows.size_out[dimension], *x.shape[dimension + 3 :])
    best = torch.full(shape, _LOWEST if largest else _HIGHEST, dtype=torch.int64, device=x.device)
    bests = best.movedim(dimension + 2, -1)
    for cells, into, _ in _columns(x.flatten(0, 1), windows, dimension):
        here = bests[..., into]
        other = cells.reshape(here.shape)
        bests[..., into] = torch.maximum(here, other) if largest else torch.minimum(here, other)
    return best


Part = slice | Tensor


def _columns(x: Tensor, windows: Windows, dimension: int) -> Iterator[tuple[Tensor, Part, tuple[Part, ...]]]:
    """Tap by tap along one dimension of ``x`` (N, *S): cells (that dimension last), outputs reading them, the others."""
    x, slices = x.movedim(dimension + 1, -1), windows.slices[dimension]
    if slices is not None:
        for tap in slices:
            outside = (slice(0, tap.into.start), slice(tap.into.stop, None))
            yield x[..., tap.cells], tap.into, outside
        return
    for column in windows.tables[dimension].to(x.device).unbind(1):
        into = (column >= 0).nonzero().squeeze(1)
        yield x[..., column[into]], into, ((column < 0).nonzero().squeeze(1),)
