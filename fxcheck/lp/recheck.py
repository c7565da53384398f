"""Re-check a saved certificate with rational arithmetic alone: no solver, no error bounds, no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fxcheck.lp import exact
from fxcheck.lp.verify import are_multipliers, mixes_to_zero
from fxcheck.records.certificate import Block, Certificate


@dataclass(frozen=True)
class Recheck:
    """What the re-check of a certificate found."""

    confirmed: bool
    checked: int
    """How many blocks were checked."""
    problems: tuple[str, ...]
    """One sentence for each block that does not hold, or that the verdict contradicts."""


def recheck(certificate: Certificate) -> Recheck:
    """Check every block exactly, and that the verdict follows from them.

    ``certified`` needs every block to be a direction or independent columns; without any block it holds, since a
    step without kinks or ties needs none. A mixture is checked with an error bound, since its weights are floats, and comes
    right after the directions of its parts. Multipliers are about the rows as they are in the file. That the rows
    belong to a model, and are all of its rows, cannot be seen from the file.

    Returns:
        Confirmed when there is no problem.

    Source: theory 3: Emptiness (Gordan), T8; T5 for independent columns.
    """
    problems = []
    for index, block in enumerate(certificate.blocks):
        name = f"block {index} ({block.layer!r}, {block.claim})"
        if not _holds(block):
            problems.append(f"{name}: {_FAULTS[block.claim]}")
        elif certificate.verdict == "certified" and block.claim == "multipliers":
            problems.append(f"{name}: the rows have no direction, yet the verdict is certified")
        elif block.weights is not None and not _follows_its_parts(certificate.blocks[:index], len(block.weights)):
            problems.append(f"{name}: it does not follow a direction for each of its {len(block.weights)} parts")
    return Recheck(not problems, len(certificate.blocks), tuple(problems))


def _follows_its_parts(before: Sequence[Block], parts: int) -> bool:
    return len(before) >= parts and all(b.claim == "direction" for b in before[len(before) - parts :])


_FAULTS = {
    "direction": "the direction is not positive on every row",
    "multipliers": "the multipliers are not >= 0 and not all 0 with rows that cancel exactly",
    "mixture": "the weighted parts do not cancel within the errors of the rows",
    "independent columns": "the left inverse does not prove that the columns are independent",
}


def _holds(block: Block) -> bool:
    if block.direction is not None and block.claim == "direction":
        return bool(exact.positive_on(block.rows, block.row_error, block.direction).all())
    if block.multipliers is not None and block.claim == "multipliers":
        return are_multipliers(block.rows, block.multipliers)
    if block.weights is not None and block.coefficients is not None and block.claim == "mixture":
        return mixes_to_zero(block.weights, block.coefficients, block.rows, block.row_error)
    return block.left_inverse is not None and exact.inverts(block.left_inverse, block.rows)
