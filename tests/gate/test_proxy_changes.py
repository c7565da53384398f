"""Two reports about one capture, under proxies of two versions of torch."""

from __future__ import annotations

import pytest

from fxcheck.gate.proxy_changes import changes_between
from fxcheck.records.gate import LayerChange
from tests.gate.made import diagnostic, layer, report


def test_no_change_is_no_layer() -> None:
    change = changes_between("m", report(layer("a")), report(layer("a")))
    assert (change.model, change.layers, change.note) == ("m", (), "")


@pytest.mark.parametrize("nothing", [float("nan"), 1.0 + 1e-9])
def test_what_rounding_does_is_no_change(nothing: float) -> None:
    other = 1.0 if nothing == nothing else nothing
    assert changes_between("m", report(layer("a", ad=nothing)), report(layer("a", ad=other))).layers == ()


def test_a_changed_gradient_is_named_with_both_values() -> None:
    change = changes_between("m", report(layer("a", ad=1.0)), report(layer("a")))
    assert change.layers == (LayerChange("a", "relu", "net.py:1", ("gradient at 0: 1 -> 0",), "runtime", "runtime"),)


def test_a_changed_tie_and_the_verdicts_that_change_with_it() -> None:
    before, after = layer("a", "runtime", tie="picks one"), layer("a", "uncovered", tie="splits")
    change = changes_between("m", report(before, layer("b")), report(after, layer("b", "uncovered")))
    assert (change.before, change.after) == ("runtime", "uncovered")
    assert [(c.layer, c.what, c.before, c.after) for c in change.layers] == [
        ("a", ("at a tie: picks one -> splits",), "runtime", "uncovered"), ("b", (), "runtime", "uncovered")
    ]  # fmt: skip


def test_a_layer_that_only_one_of_them_has_is_named() -> None:
    change = changes_between("m", report(layer("a")), report(layer("a"), layer("b")))
    assert [(c.layer, c.before, c.after) for c in change.layers] == [("b", "absent", "runtime")]


def test_what_was_not_saved_is_said() -> None:
    change = changes_between("m", report(diagnostics=(diagnostic("FX204"),)), report())
    assert change.note == "what FX204 says"
