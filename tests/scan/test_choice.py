"""Which path scans, and that importing the scans compiles nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from fxcheck import scan
from fxcheck.errors import UsageError
from fxcheck.scan import compiled, reference


@pytest.fixture(autouse=True)
def _forget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "_chosen", None)


def test_the_user_can_force_plain_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    scan.use("torch")
    assert scan._path(torch.zeros(1)) is reference
    monkeypatch.setattr(scan, "_chosen", None)
    monkeypatch.setenv("FXCHECK_SCAN", "torch")
    assert scan._path(torch.zeros(1)) is reference


def test_numba_scans_cpu_tensors_where_it_is_installed() -> None:
    assert scan._path(torch.zeros(1)) is (compiled if compiled.available() else reference)
    assert scan._path(torch.zeros(1, device="meta")) is reference


def test_without_numba_plain_torch_scans_and_insisting_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "available", lambda: False)
    assert scan._path(torch.zeros(1)) is reference
    with pytest.raises(UsageError, match="numba is not installed"):
        scan.use("compiled")


def test_an_unknown_path_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FXCHECK_SCAN", "fast")
    with pytest.raises(UsageError, match="'fast'"):
        scan.touched(torch.zeros(1), (0.0,))


def test_importing_the_scans_does_not_import_numba() -> None:
    code = "import sys, fxcheck.scan; print('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


@pytest.mark.skipif(not compiled.available(), reason="numba is not installed")
def test_a_cache_that_cannot_be_written_costs_only_time(monkeypatch: pytest.MonkeyPatch) -> None:
    kernels = pytest.importorskip("fxcheck.scan.kernels")

    def refuse(**options: bool) -> object:
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return lambda function: function

    monkeypatch.setattr(kernels, "njit", refuse)
    assert kernels.Kernel(lambda number: number + 1)(2) == 3
