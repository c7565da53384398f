"""Both paths of the scans, where numba is installed."""

from __future__ import annotations

from types import ModuleType

import pytest

from fxcheck import scan
from fxcheck.scan import (
    choice,
    compiled_classes,
    compiled_shares,
    compiled_shifts,
    compiled_ties,
    compiled_touches,
    numpy_ties,
    reference,
)


@pytest.fixture(params=["torch", "compiled", "compiled, output by output"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The scans by one path, in several threads and blocks even where what they scan is too small to be worth it."""
    name, _, one_by_one = request.param.partition(", ")
    if name == "compiled" and not choice.available():
        pytest.skip("numba is not installed")
    monkeypatch.setattr(choice, "_chosen", name)
    monkeypatch.setattr(compiled_ties, "_SHORT", 1 << 30 if one_by_one else 0)
    compiled_ties._plan.cache_clear()
    monkeypatch.setattr(compiled_ties, "_LEAST", 16)
    monkeypatch.setattr(compiled_ties, "_LEAST_LISTED", 3)
    monkeypatch.setattr(numpy_ties, "_LEAST", 16)
    monkeypatch.setattr(numpy_ties, "_BLOCK", 64)
    monkeypatch.setattr(compiled_touches, "_LEAST", 16)
    monkeypatch.setattr(compiled_touches, "_LEAST_LISTED", 16)
    monkeypatch.setattr(reference, "_PIECE", 64)
    monkeypatch.setattr(compiled_classes, "_LEAST", 16)
    monkeypatch.setattr(compiled_shifts, "_LEAST", 16)
    monkeypatch.setattr(compiled_shares, "_LEAST", 16)
    monkeypatch.setattr(compiled_shares, "_MOST", 5)
    monkeypatch.setattr(compiled_shares, "_FEW", 5)
    monkeypatch.setattr(compiled_shares, "_LONG", 1 << 30 if one_by_one else 2)
    return scan
