"""Measured proxy derivatives: what autograd returns at a kink, and the one-sided slopes beside it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Proxy:
    """AD's value at one point where a scalar function may not be differentiable.

    Values that agree within the measurement's tolerance are stored as equal floats, so ``==`` is meaningful.
    """

    kink: float
    """Rounded to the dtype that was measured: a tensor entry can be compared with it."""
    left: float
    """D- rho(kink)."""
    ad: float
    """What ``backward()`` returns at the kink."""
    right: float
    """D+ rho(kink)."""
    weight: float | None
    """lambda with ad = lambda left + (1 - lambda) right (theory section 2); None if left = right, or if no
    lambda fits."""
    stable: bool = True
    """False when a one-sided slope is infinite or does not settle, when AD beside the kink is not the derivative
    of the forward, or when AD at the kink is not one finite number; ``note`` says which."""
    continuous: bool = True
    """False when the function jumps at the kink."""
    note: str = ""
    """One clause for messages: why it is not stable, or that the kink was rounded."""

    @property
    def is_kink(self) -> bool:
        return self.left != self.right

    @property
    def is_wrong_derivative(self) -> bool:
        """Differentiable here, and AD returns something else."""
        return self.left == self.right and self.ad != self.left

    @property
    def one_sided(self) -> bool:
        return self.weight in (0.0, 1.0)

    def to_dict(self) -> dict[str, Any]:
        """The keys of the contract; a value that is not finite becomes None."""
        values = {"kink": self.kink, "left": self.left, "ad": self.ad, "right": self.right}
        return {n: v if math.isfinite(v) else None for n, v in values.items()} | {"weight": self.weight}
