"""Pieces of a scan in PyTorch's OpenMP team."""

from __future__ import annotations

import multiprocessing
import sys
import threading

import pytest
import torch

from fxcheck.scan import choice, threads


@pytest.fixture(autouse=True)
def _three_threads() -> object:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_pieces_cover_everything_in_order() -> None:
    assert [i for piece in threads.pieces(lambda a, b: list(range(a, b)), 100, 7) for i in piece] == list(range(100))
    assert threads.pieces(lambda a, b: (a, b), 0, 5) == [(0, 0)]
    assert threads.pieces(lambda a, b: (a, b), 9, 10) == [(0, 9)]


@pytest.mark.skipif(sys.platform != "linux", reason="PyTorch's OpenMP library is looked for under Linux names")
def test_pieces_run_in_several_threads() -> None:
    at_once = threading.Barrier(3, timeout=20)

    def scan(first: int, last: int) -> int:
        at_once.wait()
        return threading.get_ident()

    assert len(set(threads.pieces(scan, 3, 1))) == 3


def test_an_exception_in_a_piece_reaches_the_caller() -> None:
    def scan(first: int, last: int) -> int:
        if first:
            raise ValueError("in a piece")
        return first

    with pytest.raises(ValueError, match="in a piece"):
        threads.pieces(scan, 3, 1)


@pytest.mark.skipif(not choice.available(), reason="numba is not installed")
@pytest.mark.parametrize("own", [0, 1, 2, 3, 7])
def test_a_thread_begins_with_the_piece_of_its_own_number_and_goes_on_with_those_that_nobody_took(own: int) -> None:
    import ctypes

    import numpy as np
    from numba import types

    from fxcheck.scan.jit import as_c
    from fxcheck.scan.team import items, next_piece, own_words

    def loop(block):  # type: ignore[no-untyped-def]
        words = own_words(block, 10)
        piece, first, last = next_piece(block)
        words[0] = 0
        while piece >= 0:
            words[1 + words[0]] = 100 * piece + 10 * first + last
            words[0] += 1
            piece, first, last = next_piece(block)
        words[9] = items(block)

    number = ctypes.CFUNCTYPE(ctypes.c_int)(lambda: own)
    block = np.array((0b0100, 4, 9, ctypes.cast(number, ctypes.c_void_p).value, *[-1] * 10), np.int64)
    as_c(loop, types.void(types.voidptr))(block.ctypes.data)
    wanted = [p for p in ((own + i) % 4 for i in range(4)) if p != 2]  # the third was taken
    assert block[4:].tolist() == [3, *(100 * p + 10 * (9 * p // 4) + 9 * (p + 1) // 4 for p in wanted), *[-1] * 5, 9]


@pytest.mark.skipif(not choice.available(), reason="numba is not installed")
def test_more_threads_than_bits_leave_nothing_out() -> None:
    from fxcheck.scan import touch_loops

    torch.set_num_threads(200)
    y, kinks = torch.ones(1000, dtype=torch.float32), torch.zeros(1)
    for place in (0, 500, 999):
        y[:] = 1
        y[place] = 0
        assert touch_loops.pieces_clear[4](1000, 1, y.data_ptr(), kinks.data_ptr(), 1, 0)[-1]
    y[:] = 1
    assert not touch_loops.pieces_clear[4](1000, 1, y.data_ptr(), kinks.data_ptr(), 1, 0)[-1]


def test_without_a_team_pieces_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_team", lambda: None)
    assert threads.pieces(lambda a, b: (a, b), 9, 1) == [(0, 9)]


def _in_a_fork(result: object) -> None:
    result.put(threads.pieces(lambda a, b: (a, b), 9, 1))  # type: ignore[attr-defined]


@pytest.mark.skipif(not hasattr(threads.os, "fork"), reason="no fork")
def test_a_forked_child_scans_alone() -> None:
    threads.pieces(lambda a, b: b - a, 9, 1)
    context = multiprocessing.get_context("fork")
    result = context.Queue()
    child = context.Process(target=_in_a_fork, args=(result,))
    child.start()
    assert result.get(timeout=20) == [(0, 9)]
    child.join(timeout=20)
