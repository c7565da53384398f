"""How far rounding may have moved gradients that autograd computed.

The error of a sum follows the size and the number of its terms, not what is left of them when they cancel: behind the mean of
data far from 0 a gradient can be off by any share of its length. So it is measured. Backward is linear in its seed, but its
rounding is not: from seeds that are multiples of one another come gradients whose multiples would agree in exact arithmetic,
and they differ about as much as each of them is off. Activations are taken as computed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from math import sqrt

import numpy as np
from torch import Tensor

from fxcheck.runtime.operands import Member, Operand, groups_of, pulled_back

_FACTORS = (179 / 256, 167 / 128, 243 / 128)
"""No powers of two, which would change no digit; each is a number of every floating dtype."""
_SAFETY = 8.0
KNOWN = 1e-3
"""A gradient or row whose relative error is larger shows nothing in a sum that has to vanish."""
_SEED = 20241128


def moved_by_rounding(
    sums: Sequence[Mapping[Member, float]], operands: Sequence[Operand], parameters: Sequence[Tensor]
) -> float:
    """How far the gradient of any one of several sums of entries may be from the exact one, if it is one backward pass.

    Args:
        sums: for each the weights of its members, each an operand and a flat index into it.
        operands: tensors whose graphs live.
        parameters: gradients are by these; distances are in the Euclidean norm over all of them.

    Returns:
        An estimate from above: of all sums together, with random signs.
    """
    random = np.random.default_rng(_SEED)
    total: dict[Member, float] = {}
    for weights in sums:
        sign = 2.0 * random.integers(2) - 1
        for member, weight in weights.items():
            total[member] = total.get(member, 0.0) + sign * weight
    groups, held = groups_of(total, operands)
    if not groups:
        return 0.0
    found = [pulled_back(groups, [factor * w for w in held], parameters) for factor in _FACTORS]
    pairs = combinations(zip(_FACTORS, found, strict=True), 2)
    return _SAFETY * max(_distance(left, a, right, b) for (left, a), (right, b) in pairs)


def _distance(left: float, a: Sequence[Tensor | None], right: float, b: Sequence[Tensor | None]) -> float:
    """Between a / left and b / right."""
    pairs = ((x, y) for x, y in zip(a, b, strict=True) if x is not None and y is not None)
    return sqrt(sum(float((x.double() / left - y.double() / right).square().sum()) for x, y in pairs))
