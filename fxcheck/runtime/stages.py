"""Wall times of a step's check by stage, as ``StepResult.seconds`` names them."""

from __future__ import annotations

import time


def book(seconds: dict[str, float], stage: str, since: float) -> None:
    """Add the time since a moment of ``time.perf_counter`` to a stage."""
    seconds[stage] = seconds.get(stage, 0.0) + time.perf_counter() - since
