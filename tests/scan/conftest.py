"""Both paths of the scans, where numba is installed."""

from __future__ import annotations

from types import ModuleType

import pytest

from fxcheck.scan import compiled, reference


@pytest.fixture(params=["torch", "compiled"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module that scans; the compiled one takes even what is too small to be worth it, in several threads."""
    if request.param == "torch":
        return reference
    if not compiled.available():
        pytest.skip("numba is not installed")
    monkeypatch.setattr(compiled, "_SHORT", 0)
    monkeypatch.setattr(compiled, "_LEAST", 16)
    return compiled
