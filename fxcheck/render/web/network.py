"""A network as an inline SVG: tiles coloured by verdict, with the edges between them."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from fxcheck.records.finding import Verdict
from fxcheck.render.flat import operation
from fxcheck.render.web.layout import HEIGHT, LINE_GAP, WIDTH, Frame, Placed, Spot, place
from fxcheck.render.web.tiles import Tile

MARGIN = 26
NEAREST = 3
"""Edges into a tile that are always drawn; farther ones appear with the tile that is pointed at."""
GLYPHS = {Verdict.SMOOTH: "✓", Verdict.CERTIFIED: "✓", Verdict.RUNTIME: "◐", Verdict.UNCOVERED: "✕"}
TURN = 14
"""From a tile to where an edge to another line turns."""
LETTERS = 20
"""Of the monospaced label that fit a tile."""


def draw(tiles: Sequence[Tile], key: str, label: str) -> Markup:
    """The drawing of one network.

    Args:
        tiles: in execution order.
        key: unique on the page; tile ``i`` has the id ``key-i``.
        label: what a screen reader says.
    """
    placed = place(tiles)
    box = f"{-MARGIN} {-MARGIN} {placed.width + 2 * MARGIN:g} {placed.height + 2 * MARGIN:g}"
    frames = [_frame(f) for f in placed.frames]
    nodes = [_node(spot, f"{key}-{i}", i == 0) for i, spot in enumerate(placed.spots)]
    parts = (*frames, *_edges(placed), *_ends(placed), *nodes)
    return _DRAWING.format(key, box, label, Markup("\n").join(parts))


def _frame(frame: Frame) -> Markup:
    near, afar = (_short(frame.label, int(frame.width / letter)) for letter in (7, 14))
    return _FRAME.format(
        x=frame.x, y=frame.y, w=frame.width, h=frame.height, tx=frame.x + 10, ty=frame.y + 17, near=near, afar=afar,
        title=frame.label,
    )  # fmt: skip


def _node(spot: Spot, key: str, first: bool) -> Markup:
    tile, shift = spot.tile, spot.tile.is_fold
    behind = [_CARD.format(spot.x + d, spot.y + d, WIDTH, HEIGHT) for d in (6, 3)] if shift else []
    count = _COUNT.format(spot.x + WIDTH - 8, spot.y + 17, len(tile.layers)) if shift else ""
    share = (HEIGHT - 2) / len(tile.verdicts)
    band = [_BAND.format(v, spot.x + 1, spot.y + 1 + i * share, share) for i, v in enumerate(tile.verdicts)]
    spoken = f"{tile.title}, {tile.verdict}" + (f", {len(tile.layers)} layers" if shift else "")
    return _NODE.format(
        key=key, verdict=tile.verdict, layers=" ".join(str(layer.index) for layer in tile.layers), spoken=spoken,
        tab=0 if first else -1, x=spot.x, y=spot.y, behind=Markup("").join(behind), w=WIDTH, h=HEIGHT,
        band=Markup("").join(band), gx=spot.x + 13, gy=spot.y + HEIGHT / 2 + 4.5, glyph=GLYPHS[tile.verdict],
        tx=spot.x + 27, ty=spot.y + 18, name=_short(spot.label, LETTERS - 5 * shift), oy=spot.y + 34,
        steps=_last(tile.steps, LETTERS + 2), title=f"{tile.title}\n{tile.steps}\n{tile.verdict}",
        count=count, mx=spot.x + WIDTH / 2, my=spot.y + HEIGHT / 2 + 9, afar=_afar(tile),
    )  # fmt: skip


def _afar(tile: Tile) -> str:
    """What is still legible from far away."""
    what = f"×{len(tile.layers)}" if tile.is_fold else operation(tile.layers[0])
    return f"{GLYPHS[tile.verdict]} {what if len(what) <= 8 else what[:7] + '…'}"


def _edges(placed: Placed) -> list[Markup]:
    """Farthest first, so that the main path lies on top."""
    into: dict[int, list[int]] = {}
    for a, b in placed.edges:
        into.setdefault(b, []).append(a)
    found = []
    for b, sources in into.items():
        for rank, a in enumerate(sorted(sources, reverse=True)):
            kind = "far" if rank >= NEAREST else "skip" if rank and a != b - 1 else "next"
            found.append(_EDGE.format(kind, a, b, _route(placed.spots[a], placed.spots[b])))
    return found


def _ends(placed: Placed) -> list[Markup]:
    """An open dot before each tile that no tile feeds, a full one after each that feeds none."""
    fed, feeding = {b for _, b in placed.edges}, {a for a, _ in placed.edges}
    middle = HEIGHT / 2
    ins = [_END.format("in", s.x - 22, s.y + middle, s.x) for i, s in enumerate(placed.spots) if i not in fed]
    outs = [
        _END.format("out", s.x + WIDTH + 22, s.y + middle, s.x + WIDTH)
        for i, s in enumerate(placed.spots)
        if i not in feeding
    ]
    return ins + outs


def _route(a: Spot, b: Spot) -> str:
    x1, y1, x2, y2 = a.x + WIDTH, a.y + HEIGHT / 2, b.x, b.y + HEIGHT / 2
    if a.line == b.line and b.column == a.column + 1:
        bend = (x2 - x1) / 2
        return f"M{x1:g} {y1:g}C{x1 + bend:g} {y1:g} {x2 - bend:g} {y2:g} {x2:g} {y2:g}"
    if a.line == b.line and b.column > a.column:
        top = min(a.y, b.y) - 8 - min(2 * (b.column - a.column), 14)
        return f"M{x1 - 14:g} {a.y:g}C{x1 + 6:g} {top:g} {x2 - 6:g} {top:g} {x2 + 14:g} {b.y:g}"
    if abs(x2 - x1 - 2 * TURN) < TURN:
        return f"M{x1:g} {y1:g}C{x1 + 2 * TURN:g} {y1:g} {x2 - 2 * TURN:g} {y2:g} {x2:g} {y2:g}"
    gutter = b.top - LINE_GAP / 2
    back = 1 if x2 < x1 else -1
    return (
        f"M{x1:g} {y1:g}h6q8 0 8 8V{gutter - 8:g}q0 8 {-8 * back} 8H{x2 - TURN + 8 * back:g}"
        f"q{-8 * back} 0 {-8 * back} 8V{y2 - 8:g}q0 8 8 8H{x2:g}"
    )


def _short(text: str, room: int) -> str:
    return text if len(text) <= room else f"…{text[-max(room - 1, 1) :]}"


def _last(steps: str, room: int) -> str:
    """The last operations that fit, whole ones."""
    parts = steps.split(" › ")
    while len(" › ".join(parts)) > room and len(parts) > 1:
        parts = ["…", *parts[2:]] if parts[0] == "…" else ["…", *parts[1:]]
    return _short(" › ".join(parts), room)


_DRAWING = Markup(
    '<svg class="network" id="{0}" viewBox="{1}" data-home="{1}" role="group" aria-label="{2}" '
    'preserveAspectRatio="xMidYMid meet">\n{3}\n</svg>'
)
_FRAME = Markup(
    '<g class="frame"><rect x="{x:g}" y="{y:g}" width="{w:g}" height="{h:g}" rx="10"/>'
    '<text class="near" x="{tx:g}" y="{ty:g}">{near}</text><text class="afar" x="{tx:g}" y="{ty:g}">{afar}</text>'
    "<title>{title}</title></g>"
)
_CARD = Markup('<rect class="card" x="{:g}" y="{:g}" width="{}" height="{}" rx="7"/>')
_BAND = Markup('<rect class="band fill-{}" x="{:g}" y="{:g}" width="23" height="{:g}"/>')
_COUNT = Markup('<text class="count" x="{:g}" y="{:g}">×{}</text>')
_EDGE = Markup('<path class="edge {}" data-from="{}" data-to="{}" d="{}"/>')
_END = Markup('<g class="end {0}"><path d="M{1:g} {2:g}H{3:g}"/><circle cx="{1:g}" cy="{2:g}" r="4"/></g>')
_NODE = Markup(
    '<g class="node {verdict}" id="{key}" data-layers="{layers}" role="button" tabindex="{tab}" aria-label="{spoken}">'
    '<title>{title}</title>{behind}<rect class="base" x="{x:g}" y="{y:g}" width="{w}" height="{h}" rx="7"/>{band}'
    '<text class="glyph" x="{gx:g}" y="{gy:g}">{glyph}</text><text class="name" x="{tx:g}" y="{ty:g}">{name}</text>'
    '<text class="steps" x="{tx:g}" y="{oy:g}">{steps}</text><text class="afar" x="{mx:g}" y="{my:g}">{afar}</text>{count}'
    '<rect class="body" x="{x:g}" y="{y:g}" width="{w}" height="{h}" rx="7"/></g>'
)
