"""How far rounding may have moved gradients that autograd computed.

The error of a sum follows the size and the number of its terms, not what is left of them when they cancel: behind the mean of
data far from 0 a gradient can be off by any share of its length. So it is measured. Backward is linear in its seed, but its
rounding is not: from seeds that are multiples of one another come gradients whose multiples would agree in exact arithmetic,
and they differ about as much as each of them is off. Activations are taken as computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from math import sqrt

import torch
from torch import Tensor

from fxcheck.runtime.operands import Entries, pulled_back

_FACTORS = (179 / 256, 167 / 128, 243 / 128)
"""No powers of two, which would change no digit; each is a number of every floating dtype."""
_SAFETY = 8.0
_SEED = 20241128


def moved_by_rounding(groups: Sequence[Entries], parameters: Sequence[Tensor]) -> float:
    """How far the gradient of any one of the entries may be from the exact one, in the Euclidean norm over the parameters.

    Args:
        groups: entries of tensors whose graphs live, each without repetition.
        parameters: gradients are by these.

    Returns:
        An estimate from above: of all entries together, with random signs.
    """
    groups = [g for g in groups if g.operand.edge is not None and len(g.entries)]
    if not groups:
        return 0.0
    generator = torch.Generator().manual_seed(_SEED)
    signs = [2.0 * torch.randint(2, (len(g.entries),), generator=generator).double() - 1 for g in groups]
    found = [pulled_back(groups, [factor * s for s in signs], parameters) for factor in _FACTORS]
    pairs = combinations(zip(_FACTORS, found, strict=True), 2)
    return _SAFETY * max(_distance(left, a, right, b) for (left, a), (right, b) in pairs)


def _distance(left: float, a: Sequence[Tensor | None], right: float, b: Sequence[Tensor | None]) -> float:
    """Between a / left and b / right."""
    pairs = ((x, y) for x, y in zip(a, b, strict=True) if x is not None and y is not None)
    return sqrt(sum(float((x.double() / left - y.double() / right).square().sum()) for x, y in pairs))
