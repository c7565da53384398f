"""The zoo: every tiny model, by topic. Expectations come from the theory, never from an implementation."""

from __future__ import annotations

from tests.zoo import biases, breaking, entries, kinks, lemmas, losses, maxima, sharing
from tests.zoo.case import Case

CASES: tuple[Case, ...] = (
    *lemmas.CASES,
    *biases.CASES,
    *entries.CASES,
    *kinks.CASES,
    *maxima.CASES,
    *sharing.CASES,
    *breaking.CASES,
    *losses.CASES,
)
