"""Drawings: folds, layout and the plots of kinks."""

from __future__ import annotations

import itertools
import math

import pytest

from fxcheck.records.finding import Verdict
from fxcheck.records.proxy import Proxy
from fxcheck.render.web import kinks, layout, network, tiles
from tests.render import made


def _densenet(blocks: tuple[int, ...] = (6, 12, 48)) -> list[tiles.LayerReport]:
    names = [f"features.block{b}.dense{i}.relu{k}" for b, n in enumerate(blocks) for i in range(n) for k in (1, 2)]
    return [made.layer(i, name=name, pre_activation=("cat",) * (i % 2) + ("norm",)) for i, name in enumerate(names)]


def test_repeated_blocks_fold_and_nothing_is_lost() -> None:
    layers = _densenet()
    folded = tiles.fold(layers)
    assert [x for t in folded for x in t.layers] == layers
    assert [(t.repeats, t.period) for t in folded] == [(6, 2), (12, 2), (48, 2)]
    assert folded[2].title == "features.block2: dense0 – 47"


def test_two_alike_layers_do_not_fold() -> None:
    assert all(not t.is_fold for t in tiles.fold([made.layer(0), made.layer(1)]))


def test_a_layer_with_another_verdict_breaks_a_fold() -> None:
    layers = [made.layer(i, Verdict.RUNTIME if i == 4 else Verdict.CERTIFIED) for i in range(9)]
    assert [len(t.layers) for t in tiles.fold(layers)] == [4, 1, 4]


def test_a_fold_of_mixed_blocks_shows_its_weakest_verdict() -> None:
    layers = [made.layer(i, Verdict.RUNTIME if i % 2 else Verdict.CERTIFIED, name=f"b.{i // 2}.relu{i % 2}") for i in range(8)]
    (tile,) = tiles.fold(layers)
    assert tile.verdict is Verdict.RUNTIME and tile.verdicts == (Verdict.CERTIFIED, Verdict.RUNTIME)


@pytest.mark.parametrize("layers", [_densenet(), [made.layer(i, inputs=()) for i in range(50)], [made.layer(0)]])
def test_tiles_lie_inside_the_drawing_and_never_overlap(layers: list[tiles.LayerReport]) -> None:
    placed = layout.place(tiles.single(layers))
    assert len(placed.spots) == len(layers)
    for spot in placed.spots:
        assert 0 <= spot.x <= placed.width - layout.WIDTH and 0 <= spot.y <= placed.height - layout.HEIGHT
    for a, b in itertools.combinations(placed.spots, 2):
        assert abs(a.x - b.x) >= layout.WIDTH or abs(a.y - b.y) >= layout.HEIGHT


def test_edges_follow_the_layers_inputs() -> None:
    layers = [made.layer(0), made.layer(1), made.layer(2, inputs=(0, 1))]
    assert layout.place(tiles.single(layers)).edges == ((0, 1), (0, 2), (1, 2))
    drawn = str(network.draw(tiles.single(layers), "g", "a network"))
    assert drawn.count('class="edge') == 3 and 'data-from="0" data-to="2"' in drawn


def test_an_empty_network_is_drawn() -> None:
    assert "<svg" in network.draw([], "g", "nothing")


@pytest.mark.parametrize(
    "proxy, words",
    [
        (Proxy(0.0, 0.0, 0.0, 1.0, 1.0), "AD takes the left slope"),
        (Proxy(0.0, 0.0, 1.0, 1.0, 0.0), "AD takes the right slope"),
        (Proxy(0.0, -1.0, 0.0, 1.0, 0.5), "AD mixes the slopes, with weight 0.5 on the left one"),
        (Proxy(0.0, 0.0, 2.0, 1.0, -1.0), "AD lies outside the two slopes (weight -1 on the left one)"),
        (Proxy(0.0, 1.0, 0.0, 1.0, None), "differentiable here, and AD returns something else"),
        (Proxy(0.5, 0.0, 0.0, 1.0, 1.0, continuous=False), "the function jumps here"),
        (Proxy(0.0, math.nan, math.nan, math.inf, None), "a slope here is not finite"),
        (Proxy(0.0, 0.0, math.nan, math.inf, None, stable=False, note="a slope is infinite"), "a slope is infinite"),
    ],
)
def test_a_kink_is_said_in_words_and_plotted_inside_its_box(proxy: Proxy, words: str) -> None:
    assert kinks.says(proxy) == words
    drawn = str(kinks.plot(proxy))
    assert "nan" not in drawn.split("aria-label")[1].partition(">")[2]
    assert ('class="slope"' in drawn) is not math.isnan(proxy.ad)


def test_steep_slopes_stay_inside_the_plot() -> None:
    drawn = str(kinks.plot(Proxy(0.0, -1e9, 40.0, math.inf, None)))
    heights = [float(part.partition('"')[0]) for part in drawn.split('y2="')[1:]]
    assert all(0 <= y <= kinks.HEIGHT for y in heights)


def test_layers_with_the_same_kinks_share_a_plot() -> None:
    found = kinks.kinked([made.layer(0), made.layer(1), made.layer(2, proxies=made.RELU6, activation="relu6")])
    assert [(k.name, len(k.layers), len(k.proxies)) for k in found] == [("relu", 2, 1), ("relu6", 1, 2)]
