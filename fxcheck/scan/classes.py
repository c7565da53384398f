"""Position classes: keyed hashes that say which positions depend on the inputs in the same way.

A class map is an int64 tensor (2, N, *S): two independently keyed 64-bit hashes per sample and position, common to all
channels. Where both agree, the positions have equal receptive fields, so any convolution, bias or pointwise operator
shared by all positions gives them equal values for every parameter. Padding is a token of its own.
The keys are random per process: a collision would be unsound, and must not be something that inputs can provoke.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from fxcheck.scan.windows import Windows

_WORD = 1 << 64
_KEYS = (secrets.randbits(64), secrets.randbits(64))
_PADDING, _INPUT, _TAP, _BRANCH, _SALT = range(5)  # what a key is for
_ROUNDS = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1))  # splitmix64's finaliser: shift, factor
_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_LOWEST, _HIGHEST = torch.iinfo(torch.int64).min, torch.iinfo(torch.int64).max


def of_input(x: Tensor) -> Tensor:
    """The classes of an input: equal where all channels have equal bits (0.0 and -0.0 differ, which is only stricter).

    Args:
        x: the input (N, C, *S), any real dtype of at most eight bytes.

    Returns:
        Classes, int64 (2, N, *S).
    """
    x = x.detach()
    bits = x.to(torch.uint8) if x.dtype is torch.bool else x.view(_INTEGERS[x.element_size()])
    classes = torch.zeros(2, x.shape[0], *x.shape[2:], dtype=torch.int64, device=x.device)
    token = torch.empty_like(classes[0])
    for channel in range(x.shape[1]):
        for which in range(2):
            torch.add(bits[:, channel], _signed(_key(which, _INPUT, channel)), out=token)
            classes[which] += _mix(token)
    return _mix(classes)


def through_windows(classes: Tensor, windows: Windows, salt: int) -> Tensor:
    """The classes after a convolution or a pooling: equal where the cells are, in tap order.

    Args:
        classes: int64 (2, N, *S_in).
        windows: the cells that each output reads.
        salt: tells this layer from the others.

    Returns:
        Classes, int64 (2, N, *S_out).
    """
    padding = [_key(which, _PADDING) for which in range(2)]
    for dimension, table in enumerate(windows.tables):
        keys = [[_key(which, _TAP, dimension, tap) for tap in range(table.shape[1])] for which in range(2)]
        classes = _mix(_weighted(classes, windows, dimension, keys, padding))
        # A row of cells wholly outside hashes like a row of padding cells, so that the dimensions can go one by one.
        padding = [_mixed_word(padding[which] * sum(keys[which])) for which in range(2)]
    return salted(classes, salt)


def combined(maps: Sequence[Tensor], salt: int) -> Tensor:
    """The classes after an operator that joins branches position by position, such as add or cat.

    Args:
        maps: the branches' classes, each int64 (2, N, *S), in the operator's order.
        salt: tells this operator from the others.

    Returns:
        Classes, int64 (2, N, *S).
    """
    total = torch.zeros_like(maps[0])
    for branch, classes in enumerate(maps):
        for which in range(2):
            total[which].add_(classes[which], alpha=_signed(_key(which, _BRANCH, branch)))
    return salted(total, salt)


def salted(classes: Tensor, salt: int) -> Tensor:
    """The classes after a pointwise operator: the same partition, told from those of other operators by ``salt``.

    Args:
        classes: int64 (2, N, *S).
        salt: tells this operator from the others.

    Returns:
        Classes, int64 (2, N, *S).
    """
    keys = torch.tensor([_signed(_key(which, _SALT, salt)) for which in range(2)], device=classes.device)
    return _mix(classes + keys.view(2, *[1] * (classes.ndim - 1)))


def mixed(classes: Tensor, windows: Windows) -> Tensor:
    """The windows whose real cells do not all have one class; only ties in those are not trivial.

    Args:
        classes: int64 (2, N, *S_in), the classes of what the max reads.
        windows: the cells that each output reads.

    Returns:
        bool (N, *S_out).
    """
    lowest = highest = classes
    for dimension in range(len(windows.tables)):
        lowest = _extreme(lowest, windows, dimension, largest=False)
        highest = _extreme(highest, windows, dimension, largest=True)
    return (lowest < highest).any(0)


def _weighted(x: Tensor, windows: Windows, dimension: int, keys: list[list[int]], padding: list[int]) -> Tensor:
    """Along one dimension the sum of the cells times their tap's key. Cells are mixed already, so a sum is enough."""
    size_out = windows.size_out[dimension]
    shape = (*x.shape[: dimension + 2], size_out, *x.shape[dimension + 3 :])
    total = torch.zeros(shape, dtype=torch.int64, device=x.device)
    for which in range(2):
        sums = total[which].movedim(dimension + 1, -1)
        for tap, (cells, into, outside) in enumerate(_columns(x[which], windows, dimension)):
            key = keys[which][tap]
            # Not in place: a tensor of outputs would be changed in a copy.
            sums[..., into] = torch.add(sums[..., into], cells, alpha=_signed(key))
            for part in outside:
                sums[..., part] += _signed(padding[which] * key)
    return total


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


def _mix(words: Tensor) -> Tensor:
    """Splitmix64's finaliser, in place: a bijection of 64-bit words that leaves no linear structure."""
    for shift, factor in _ROUNDS:
        # The shift is arithmetic; the mask makes it logical.
        words ^= (words >> shift).bitwise_and_((1 << 64 - shift) - 1)
        if factor != 1:
            words *= _signed(factor)
    return words


def _mixed_word(word: int) -> int:
    """The same finaliser of one word, unsigned."""
    for shift, factor in _ROUNDS:
        word %= _WORD
        word = (word ^ (word >> shift)) * factor % _WORD
    return word


@lru_cache(maxsize=4096)
def _key(which: int, *purpose: int) -> int:
    """The unsigned 64-bit key of one hash for one purpose; odd keys for taps and branches, which multiply."""
    word = _KEYS[which]
    for number in purpose:
        word = _mixed_word(_mixed_word(word + number) + _KEYS[which])
    return word | 1 if purpose[0] in (_TAP, _BRANCH) else word


def _signed(word: int) -> int:
    """The 64-bit word as PyTorch's int64 holds it."""
    return (word + (_WORD >> 1)) % _WORD - (_WORD >> 1)
