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
import torch
from torch import Tensor

from fxcheck.runtime.operands import Member, Operand, groups_of, pulled_back

FACTORS = (179 / 256, 167 / 128, 243 / 128)
"""Of the seeds: no powers of two, which would change no digit; each is a number of every floating dtype."""
_SAFETY = 8.0
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
        An estimate from above: of all sums together, with random signs and, so that equal sums do not cancel and hide what each
        of them loses, random factors of 1 or more.
    """
    total: dict[Member, float] = {}
    for weights, factor in zip(sums, random_factors(len(sums)), strict=True):
        for member, weight in weights.items():
            total[member] = total.get(member, 0.0) + factor * weight
    groups, held = groups_of(total, operands)
    if not groups:
        return 0.0
    return disagreement([pulled_back(groups, [factor * w for w in held], parameters) for factor in FACTORS])


def random_factors(count: int) -> list[float]:
    """Between 1 and 2, of 15 bits, with random signs; a single one is 1."""
    if count == 1:
        return [1.0]
    random = np.random.default_rng(_SEED)
    factors: list[float] = (random.integers(1 << 14, 2 << 14, count) / (1 << 14) * random.choice((-1.0, 1.0), count)).tolist()
    return factors


def disagreement(found: Sequence[Sequence[Tensor | None]]) -> float:
    """How far apart, with a safety factor, multiples of one gradient are when what they were multiplied by is divided out.

    Args:
        found: for the first two of ``FACTORS`` or all the gradient from seeds multiplied by it, one tensor a parameter; None
            for zero.
    """
    pairs = combinations(zip(FACTORS, found, strict=False), 2)
    return _SAFETY * max(_distance(left, a, right, b) for (left, a), (right, b) in pairs)


def _distance(left: float, a: Sequence[Tensor | None], right: float, b: Sequence[Tensor | None]) -> float:
    """Between a / left and b / right."""
    pairs = ((x, y) for x, y in zip(a, b, strict=True) if x is not None and y is not None)
    return sqrt(sum(float((_wide(x) / left - _wide(y) / right).square().sum()) for x, y in pairs))


def _wide(x: Tensor) -> Tensor:
    return torch.view_as_real(x.resolve_conj()).double() if x.is_complex() else x.double()
