"""Other ranks of a process group: their rows belong to the same step (theory 4.12)."""

from __future__ import annotations

from typing import Any

import torch.distributed as dist

from fxcheck.errors import StepError
from fxcheck.runtime.session import Session

_IS_BUILT = dist.is_available()


def world_size() -> int:
    """Ranks whose gradients a step sums; 1 without a process group."""
    return dist.get_world_size() if _IS_BUILT and dist.is_initialized() else 1


def gather_rows(session: Session) -> None:
    """Exchange the rows of a step, so that every rank decides all of them.

    Raises:
        StepError: the ranks ran different layers.
    """
    size = world_size()
    if size == 1:
        return
    shares: list[Any] = [None] * size
    mine = session.share()
    dist.all_gather_object(shares, mine)
    if any(s["layers"] != mine["layers"] for s in shares):
        raise StepError("the ranks of this step ran different layers", hint="use the same model and flags on all ranks")
    session.pool([s for rank, s in enumerate(shares) if rank != dist.get_rank()])
