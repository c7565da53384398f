"""Entries whose total gradient is exactly zero, found together: a dead pixel of an L1 loss needs no row of its own.

Where the derivative of an entry along a random direction is exactly 0, and a random combination of all such entries has the
gradient 0 too, each of them has.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fxcheck.runtime.operands import Entries, derivatives_along, pulled_back

_SEED = 20241206
ENLARGED = 32768.0
"""Under a seed so much larger a gradient is still zero where it is more than too small a number for its dtype: in float16 one of
1e-8 is 0, but not where the loss was scaled. The largest power of two that float16 holds with the weights."""


def are_zero(groups: Sequence[Entries], parameters: Sequence[Tensor]) -> list[Tensor]:
    """Which entries have a gradient by the parameters that is exactly zero.

    Args:
        groups: entries of several tensors of one forward, whose graph lives; none of them empty.
        parameters: by these.

    Returns:
        bool (E,) for each group, on the CPU; False also where it is not known.
    """
    generator = torch.Generator().manual_seed(_SEED)
    direction = [torch.randn(p.shape, generator=generator).to(p.device) for p in parameters]
    try:
        candidates = [t == 0 for t in derivatives_along(groups, parameters, direction)]
    except RuntimeError:  # some operation cannot be differentiated twice
        candidates = [torch.ones(len(g.entries), dtype=torch.bool) for g in groups]
    def random_sum(size: float) -> Sequence[Tensor | None]:
        weights = [size * (0.5 + torch.rand(len(c), generator=generator)) * c for c in candidates]
        return pulled_back(groups, weights, parameters)

    return candidates if vanish(random_sum) else [torch.zeros_like(c) for c in candidates]


def vanish(random_sum: Callable[[float], Sequence[Tensor | None]]) -> bool:
    """Whether gradients are exactly zero, each of them, as random sums of all of them are.

    Args:
        random_sum: a sum with weights of about the size that it is given, drawn anew, one tensor a parameter; None for zero.
    """
    return not any(bool(g.any()) for size in (1.0, ENLARGED) for g in random_sum(size) if g is not None)
