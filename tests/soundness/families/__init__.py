"""Seeded families of tiny networks that hit kinks and ties exactly; importing the package registers them all."""

from tests.soundness.families import (  # noqa: F401
    activations,
    attacks,
    chains,
    connected,
    criteria,
    entries,
    maxima,
    normalised,
    numbers,
    replays,
    rows,
    sharing,
    splits,
    stacks,
    structures,
    theorems,
    traps,
    windows,
)
from tests.soundness.families.plan import Net, Plan, Point, Step, loss_of, short
from tests.soundness.families.registry import FAMILIES, Family

__all__ = ["FAMILIES", "Family", "Net", "Plan", "Point", "Step", "loss_of", "short"]
