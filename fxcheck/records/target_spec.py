"""One TARGET of the command line with the flags that apply to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class TargetSpec:
    """What ``fxcheck analyze`` was asked to analyse; grammar in the command line's help."""

    target: str
    arguments: Mapping[str, object] = field(default_factory=dict)
    """``--arg key=value``, as Python literals."""
    inputs: tuple[str, ...] = ()
    """``--input`` values."""
    mode: str = "train"
    loss: str | None = None
    loss_target: str | None = None
    """``--target``: a shape, or ``none``."""
    batch_size: int | None = None
    proxies: str | None = None
    """Path of saved proxies."""
    numeric: bool = False
    meta: bool = False
    mode_was_given: bool = False
    """``--mode`` stood on the command line; an archive refuses it."""
    allow_pickle: bool = False
    """Unpickle objects that an archive carries, which may run any code."""
