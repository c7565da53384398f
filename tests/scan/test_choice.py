"""Which path scans, and that importing the scans compiles nothing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch

from fxcheck import scan
from fxcheck.errors import UsageError
from fxcheck.scan import choice


@pytest.fixture(autouse=True)
def _forget(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(choice, "_chosen", None)
    choice.is_compiled.cache_clear()
    yield
    choice.is_compiled.cache_clear()


def test_the_user_can_force_plain_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    scan.use("torch")
    assert not choice.compiles(torch.zeros(1))
    monkeypatch.setattr(choice, "_chosen", None)
    monkeypatch.setenv("FXCHECK_SCAN", "torch")
    assert not choice.compiles(torch.zeros(1))


def test_numba_scans_cpu_tensors_where_it_is_installed() -> None:
    assert choice.compiles(torch.zeros(1)) == choice.available()
    assert not choice.compiles(torch.zeros(1, device="meta"))


def test_without_numba_plain_torch_scans_and_insisting_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "available", lambda: False)
    assert not choice.compiles(torch.zeros(1))
    with pytest.raises(UsageError, match="numba is not installed"):
        scan.use("compiled")


def test_an_unknown_path_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FXCHECK_SCAN", "fast")
    with pytest.raises(UsageError, match="'fast'"):
        scan.touched(torch.zeros(1), (0.0,))


def test_importing_the_scans_does_not_import_numba() -> None:
    code = "import sys, fxcheck.scan; print('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


@pytest.mark.skipif(not choice.available(), reason="numba is not installed")
def test_a_cache_that_cannot_be_written_costs_only_time(monkeypatch: pytest.MonkeyPatch) -> None:
    from fxcheck.scan import jit

    def refuse(**options: bool) -> object:
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return lambda function: function

    monkeypatch.setattr(jit, "njit", refuse)
    assert jit.Kernel(lambda number: number + 1)(2) == 3
