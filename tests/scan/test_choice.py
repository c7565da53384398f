"""Which path scans, and that importing the scans compiles nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
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


def test_where_numba_is_told_to_compile_nothing_plain_torch_scans() -> None:
    code = "import torch, fxcheck.scan as s; y = torch.zeros(2); print(s.glance(y, (0,)), s.touched(y, (0,)).indices.tolist())"
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1", "FXCHECK_SCAN": "auto"}
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert said.stdout.strip() == "None [0, 1]"


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


_EVERY_LOOP = """
import torch
import torch.nn.functional as F
from fxcheck import scan
from fxcheck.scan import shifts
scan.use("compiled")
for size, kernel, layout in ((16, 2, torch.contiguous_format), (16, 3, torch.contiguous_format), (3, 3, torch.contiguous_format),
                             (16, 2, torch.channels_last)):
    x = torch.ones(2, 16, size, size).contiguous(memory_format=layout)
    out, picks = F.max_pool2d(x, kernel, return_indices=True)
    windows = scan.sliding(scan.WindowSpec((kernel,) * 2, (kernel,) * 2, (0, 0), (1, 1)), x.shape[2:], out.shape[2:])
    found = scan.ties(x, out, windows)
    scan.rivals(x, out, picks, windows, found.listed)
steps = ((0, 1), (1, 0))
equal = shifts.of_input(x, steps)
shifts.labels(shifts.through_windows(equal, windows, steps), scan.sliding(windows.spec, out.shape[2:], (4, 4)))
scan.mixed(scan.of_input(x), windows)
scan.shared(x, x.amax((2, 3)), (2, 3))
scan.equal(x, x, x)
for y in (x, torch.ones(1 << 21), x.double()):
    scan.touched(y, (0.0,))
    scan.touched(y, (1.0, 0.0))
"""


@pytest.mark.skipif(not choice.available(), reason="numba is not installed")
def test_what_one_process_compiled_the_next_one_finds(tmp_path: Path) -> None:
    """A cache that is never hit costs seconds in each process, and grows with each."""

    def kept_after_a_run() -> list[str]:
        subprocess.run([sys.executable, "-c", _EVERY_LOOP], check=True, env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)})
        return sorted(p.name for p in tmp_path.rglob("*.nbc"))

    first = kept_after_a_run()
    assert len({name.split(".")[0] for name in first}) == 6  # modules with loops
    assert all(name.endswith(".1.nbc") for name in first)  # code of one kind of arguments to an index
    assert kept_after_a_run() == first


@pytest.mark.skipif(not choice.available(), reason="numba is not installed")
def test_code_of_other_sources_or_kinds_of_arguments_is_under_another_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """numba writes an index before the code: in between, another process runs what was under that number."""
    from fxcheck.scan import jit

    def loop(number: int) -> int:
        return number

    names = {jit._apart(loop).__qualname__, jit._apart(loop, (int,)).__qualname__, jit._apart(loop, (float,)).__qualname__}
    arrays = [np.zeros(4, np.float32), np.zeros(4), np.zeros((2, 2)), np.zeros((4, 4))[:, ::2]]
    names |= {jit._apart(loop, jit._kind(a)).__qualname__ for a in arrays}
    monkeypatch.setattr(jit, "_sources", lambda: b"another version")
    names |= {jit._apart(loop).__qualname__, jit._apart(loop, (int,)).__qualname__}
    assert len(names) == 3 + len(arrays) + 2


_ONE_OF_SEVERAL = """
import sys
import torch
import torch.nn.functional as F
from fxcheck import scan
from fxcheck.scan import shifts

def seen(size, dtype):
    generator = torch.Generator().manual_seed(size)
    x = torch.randint(0, 3, (2, 6, size, size), generator=generator).to(dtype)
    out = F.max_pool2d(x, 2)
    windows = scan.sliding(scan.WindowSpec((2, 2), (2, 2), (0, 0), (1, 1)), x.shape[2:], out.shape[2:])
    found, hits = scan.ties(x, out, windows), scan.touched(x, (0.0, 2.0))
    equal = shifts.of_input(x[:, :1], ((0, 1), (1, 0)))
    return found.tied, found.listed.tolist(), hits.indices.tolist(), hits.which.tolist(), equal.flatten().tolist()

cases = [(8, torch.float32), (16, torch.float64), (32, torch.float32), (4, torch.float64)]
for case in cases if sys.argv[1] == "all" else [cases[int(sys.argv[1])]]:
    scan.use("compiled")
    compiled = seen(*case)
    scan.use("torch")
    assert seen(*case) == compiled, case
"""


@pytest.mark.skipif(not choice.available(), reason="numba is not installed")
def test_what_several_processes_compiled_is_told_apart_by_another(tmp_path: Path) -> None:
    """numba numbers functions process by process: two of one name may come out of the cache as one."""
    for which in ("0", "1", "2", "3", "all"):
        environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
        subprocess.run([sys.executable, "-c", _ONE_OF_SEVERAL, which], check=True, env=environment)
