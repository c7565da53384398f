"""Position classes: keyed hashes that say which positions depend on the inputs in the same way.

A class map is an int64 tensor (2, N, *S): two independently keyed 64-bit hashes per sample and position, common to all
channels. Where both agree, the positions have equal receptive fields, so any convolution, bias or pointwise operator
shared by all positions gives them equal values for every parameter. Padding is a token of its own.
The keys are random per process: a collision would be unsound, and must not be something that inputs can provoke.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType

import torch
from torch import Tensor

from fxcheck.scan import choice, class_steps, compiled_classes
from fxcheck.scan.windows import Windows
from fxcheck.scan.words import BRANCH, INPUT, PADDING, SALT, TAP, key, mixed_word, signed, unsigned


def of_input(x: Tensor) -> Tensor:
    """The classes of an input: equal where all channels have equal bits (0.0 and -0.0 differ, which is only stricter).

    Args:
        x: the input (N, C, *S), any real dtype of at most eight bytes.

    Returns:
        Classes, int64 (2, N, *S).
    """
    first, second = ([key(which, INPUT, channel) for channel in range(x.shape[1])] for which in range(2))
    return _steps(x).hashed(x, (first, second))


def through_windows(classes: Tensor, windows: Windows, salt: int, padding: Tensor | None = None) -> Tensor:
    """The classes after a convolution or a pooling: equal where the cells are, in tap order.

    Args:
        classes: int64 (2, N, *S_in).
        windows: the cells that each output reads.
        salt: tells this layer from the others.
        padding: int64 (2,), the class of a cell of padding; None: one that nothing else has.

    Returns:
        Classes, int64 (2, N, *S_out).
    """
    outside = [key(which, PADDING) for which in range(2)] if padding is None else [unsigned(w) for w in padding.tolist()]
    for dimension, table in enumerate(windows.tables):
        first, second = ([key(which, TAP, dimension, tap) for tap in range(table.shape[1])] for which in range(2))
        last = dimension == len(windows.tables) - 1
        salts = [key(which, SALT, salt) if last else 0 for which in range(2)]
        classes = _steps(classes).weighted(classes, windows, dimension, (first, second), outside, salts)
        # A row of cells wholly outside hashes like a row of padding cells, so that the dimensions can go one by one.
        outside = [mixed_word(outside[0] * sum(first)), mixed_word(outside[1] * sum(second))]
    return classes


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
            total[which].add_(classes[which], alpha=signed(key(which, BRANCH, branch)))
    return salted(total, salt)


def salted(classes: Tensor, salt: int) -> Tensor:
    """The classes after a pointwise operator: the same partition, told from those of other operators by ``salt``.

    Args:
        classes: int64 (2, N, *S).
        salt: tells this operator from the others.

    Returns:
        Classes, int64 (2, N, *S).
    """
    return _steps(classes).salted(classes, [key(which, SALT, salt) for which in range(2)])


def mixed(classes: Tensor, windows: Windows) -> Tensor:
    """The windows whose real cells do not all have one class; only ties in those are not trivial.

    Args:
        classes: int64 (2, N, *S_in), the classes of what the max reads.
        windows: the cells that each output reads.

    Returns:
        bool (N, *S_out).
    """
    return _steps(classes).mixed(classes, windows)


def _steps(x: Tensor) -> ModuleType:
    return compiled_classes if choice.compiles(x) and x.ndim <= 5 else class_steps
