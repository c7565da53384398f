"""Pieces of a scan in PyTorch's OpenMP team."""

from __future__ import annotations

import multiprocessing
import sys
import threading

import pytest
import torch

from fxcheck.scan import threads


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
