"""The pages in a real browser: no console errors, filters, selection, zoom, and two colour schemes."""

from __future__ import annotations

from pathlib import Path

import pytest

from fxcheck.records.finding import Verdict
from fxcheck.records.step import LayerStep, StepResult, Summary
from fxcheck.render import html, run_html
from tests.html.page import screenshot, visit
from tests.render import made

CHANGED = "dispatchEvent(new Event('input', {bubbles: true}));"

pytestmark = pytest.mark.browser


def _few() -> str:
    layers = (made.layer(0), made.layer(1, Verdict.RUNTIME, activation="relu6", proxies=made.RELU6), made.flawed(2))
    return html.render([made.report(*layers)])


def _many() -> str:
    names = [f"features.block{b}.dense{i}.relu{k}" for b in range(4) for i in range(25) for k in (1, 2)]
    layers = [made.layer(i, name=n, pre_activation=("conv2d",) * (1 + i % 2), inputs=tuple(range(max(0, i - 5), i)))
              for i, n in enumerate(names)]  # fmt: skip
    return html.render([made.report(*layers[:-1], made.flawed(199))])


def _run() -> str:
    layer = LayerStep("pool", 0, 64, 64, 1, 16, 2, 3, 3, "certified", "T8")
    summary = Summary()
    for _ in range(9):
        summary.add(StepResult("certified", layers=(layer,)))
    return run_html.render(summary)


@pytest.mark.parametrize("page", [_few, _many, _run, lambda: html.render_gate(made.every_standing())])
def test_a_page_opens_without_a_word_on_the_console(chromium: str, tmp_path: Path, page) -> None:  # type: ignore[no-untyped-def]
    assert visit(chromium, page(), tmp_path).console == ()


def test_a_fault_in_a_page_is_seen(chromium: str, tmp_path: Path) -> None:
    broken = _few().replace("</body>", '<img src="https://example.org/x.png"></body>')
    assert visit(chromium, broken, tmp_path).console != ()


ROWS = "$$('tr[data-layer]').filter((r) => !r.hidden).map((r) => r.dataset.layer)"


@pytest.mark.parametrize(
    "act, kept",
    [
        (f"$('[name=text]').value = 'blocks.1'; $('[name=text]').{CHANGED}", ["1"]),
        ("$('[name=verdict][value=certified]').click();", ["1", "2"]),
        ("$('[data-only=uncovered]').click();", ["2"]),
        ("$('[data-only=uncovered]').click(); $('[data-only=uncovered]').click();", ["0", "1", "2"]),
        (f"$('[name=operation]').value = 'relu6'; $('[name=operation]').{CHANGED}", ["1"]),
        (f"$('[name=code]').value = 'FX101'; $('[name=code]').{CHANGED}", ["2"]),
        ("$('[data-only=uncovered]').click(); $('[type=reset]').click();", ["0", "1", "2"]),
    ],
)  # fmt: skip
def test_filters_keep_what_they_say(chromium: str, tmp_path: Path, act: str, kept: list[str]) -> None:
    assert visit(chromium, _few(), tmp_path, f"{act} return () => {ROWS};").result == kept


def test_a_filter_that_nothing_fits_says_so_and_dims_the_drawing(chromium: str, tmp_path: Path) -> None:
    act = f"$('[name=text]').value = 'zzz'; $('[name=text]').{CHANGED}"
    shown = f"{act} return [$('[data-nothing]').hidden, $('[data-count]').textContent, $$('.node.dim').length];"
    assert visit(chromium, _few(), tmp_path, shown).result == [False, "0 of 3", 3]


def test_a_click_on_a_layer_selects_its_row_and_shows_its_card(chromium: str, tmp_path: Path) -> None:
    act = (
        "$('.node[data-layers=\"1\"]').dispatchEvent(new MouseEvent('click', {bubbles: true}));"
        "return [$('tr.selected').dataset.layer, $('[data-inspector] h4').textContent, $$('[data-inspector] .plot').length];"
    )
    assert visit(chromium, _few(), tmp_path, act).result == ["1", "blocks.1.relu", 2]


def test_arrow_keys_go_from_layer_to_layer(chromium: str, tmp_path: Path) -> None:
    act = (
        "$('.node').focus(); const event = (key) => new KeyboardEvent('keydown', {key, bubbles: true});"
        "const press = (key) => document.activeElement.dispatchEvent(event(key));"
        "press('ArrowRight'); press('ArrowRight'); press('ArrowLeft');"
        "return [document.activeElement.dataset.layers, $('tr.selected').dataset.layer];"
    )
    assert visit(chromium, _few(), tmp_path, act).result == ["1", "1"]


def test_two_hundred_layers_start_folded_and_unfold(chromium: str, tmp_path: Path) -> None:
    seen = "$$('.drawing:not([hidden]) .node').length"
    act = f"const folded = {seen}; $('[data-show$=every]').click(); return [folded, {seen}, $$('.small-scale').length];"
    folded, every, small = visit(chromium, _many(), tmp_path, act).result
    assert folded < 20 and (every, small) == (200, 1)


def test_zoom_and_fit_change_the_view_and_restore_it(chromium: str, tmp_path: Path) -> None:
    act = (
        "const box = () => $('.network').getAttribute('viewBox').split(' ').map(Number), home = box();"
        "$('[data-zoom=in]').click(); const near = box(); $('[data-zoom=fit]').click();"
        "return [near[2] < home[2], box().join() === home.join()];"
    )
    assert visit(chromium, _few(), tmp_path, act).result == [True, True]


def test_selecting_a_far_layer_brings_it_into_view_at_a_legible_size(chromium: str, tmp_path: Path) -> None:
    act = (
        "$('[data-show$=every]').click(); $('[data-select=\"150\"]').click();"
        "const b = $('.drawing:not([hidden]) .node.selected').getBoundingClientRect();"
        "const c = $('.canvas').getBoundingClientRect();"
        "return [b.left >= c.left && b.right <= c.right && b.top >= c.top && b.bottom <= c.bottom, b.width > 100];"
    )
    assert visit(chromium, _many(), tmp_path, act).result == [True, True]


def test_every_control_has_a_name(chromium: str, tmp_path: Path) -> None:
    act = (
        "const named = (e) => e.textContent.trim() || e.getAttribute('aria-label') || (e.labels && e.labels.length);"
        "return $$('button, input, select, [role=button], svg[role]').filter((e) => !named(e)).map((e) => e.outerHTML);"
    )
    assert visit(chromium, _few(), tmp_path, act).result == []


def test_pictures_in_both_schemes_differ(chromium: str, tmp_path: Path) -> None:
    light, dark = (screenshot(chromium, _few(), tmp_path, dark=dark) for dark in (False, True))
    assert light[:4] == dark[:4] == b"\x89PNG" and light != dark and min(len(light), len(dark)) > 30_000
