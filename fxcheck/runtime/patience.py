"""How much of a run may go into looking at steps as a whole without settling any.

Weights may keep two rows of one layer opposite for many steps in a row, and each look at such a step can take seconds.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

_SHARE = 0.1
"""Of a run's time, that looks which settle nothing may take once they have taken what one step may."""


@dataclass
class Patience:
    """Bounds the looks of one run that settle nothing; those that settle a step are free."""

    seconds: float
    """What all of them together may take in any case."""
    spent: float = 0.0
    began: float = field(default_factory=time.perf_counter)

    @property
    def is_at_an_end(self) -> bool:
        """Whether looks have settled nothing for so long that the next step has to do without."""
        return self.spent > max(self.seconds, _SHARE * (time.perf_counter() - self.began))

    def learn(self, since: float, settled: bool) -> None:
        """Book a look that began at ``since`` of ``time.perf_counter``."""
        if not settled:
            self.spent += time.perf_counter() - since

    def __str__(self) -> str:
        return (f"looks that settled nothing have taken {self.spent:.1f} s of this run, "
                "which is more than joint_seconds and more than a tenth of it")  # fmt: skip
