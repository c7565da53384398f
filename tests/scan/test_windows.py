"""The tables say which cells PyTorch's pools read."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from hypothesis import given, settings

from fxcheck.scan import WindowSpec, adaptive_tables, sliding, whole
from tests.scan.oracles import Case, pools


@settings(max_examples=80, deadline=None)
@given(pools())
def test_slices_read_the_same_cells_as_the_tables(case: Case) -> None:
    for table, taps, size in zip(case.windows.tables, case.windows.slices, case.windows.size_in, strict=True):
        if taps is None:
            continue
        rebuilt = torch.full_like(table, -1)
        for column, tap in enumerate(taps):
            rebuilt[tap.into, column] = torch.arange(size)[tap.cells]
        assert torch.equal(rebuilt, table)


def test_cells_beyond_the_end_of_a_ceil_mode_window_are_padding() -> None:
    windows = sliding(WindowSpec((3,), (2,), (0,), (1,)), (6,), (3,))
    assert windows.tables[0].tolist() == [[0, 1, 2], [2, 3, 4], [4, 5, -1]]


def test_adaptive_windows_are_the_cells_that_reach_the_output() -> None:
    for size_in in range(1, 12):
        for size_out in range(1, size_in + 1):
            x = torch.eye(size_in)[:, None]
            reached = F.adaptive_max_pool1d(x, size_out)[:, 0].t() > 0
            (table,) = adaptive_tables((size_in,), (size_out,))
            assert [sorted(set(row) - {-1}) for row in table.tolist()] == [
                row.nonzero().flatten().tolist() for row in reached
            ]


def test_the_same_numbers_give_the_same_windows_object() -> None:
    spec = WindowSpec((2,), (2,), (0,), (1,))
    assert sliding(spec, (8,), (4,)) is sliding(WindowSpec((2,), (2,), (0,), (1,)), (8,), (4,))
    assert whole((3, 4)).taps == 12
