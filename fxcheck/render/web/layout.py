"""Where the tiles of a network go: left to right in execution order, wrapped into lines like a text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fxcheck.render.web.tiles import Tile, name_of

WIDTH, HEIGHT = 172, 44
GAP_X, GAP_Y = 34, 12
PAD, LABEL, LINE_GAP = 10, 26, 30
"""Inside a frame, for its label, and between lines."""
LARGE, WORTH_A_FRAME = 12, 3
"""Tiles from which on a block may be split, and tiles that its parts must hold on average."""
WANTED_ASPECT = 1.85


@dataclass(frozen=True)
class Spot:
    """A placed tile."""

    tile: Tile
    label: str
    """Its title without the block's name."""
    x: float
    y: float
    line: int
    column: int
    top: float
    """Of its line."""


@dataclass(frozen=True)
class Frame:
    """A block of the model, or the part of it on one line."""

    label: str
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Placed:
    """A drawing's geometry. ``edges`` are pairs of positions in ``spots``."""

    spots: tuple[Spot, ...]
    frames: tuple[Frame, ...]
    edges: tuple[tuple[int, int], ...]
    width: float
    height: float


Column = list[int]
"""Positions of tiles that stand above each other."""


def place(tiles: Sequence[Tile]) -> Placed:
    """Lay out the tiles of one network, in lines of the length that suits a wide window best."""
    if not tiles:
        return Placed((), (), (), WIDTH, HEIGHT)
    edges = _edges(tiles)
    blocks = [(label, _columns(members, edges)) for label, members in _blocks(tiles)]
    total = sum(len(columns) for _, columns in blocks)
    candidates = [_lined(tiles, edges, blocks, length) for length in range(min(4, total), min(total, 40) + 1)]
    return min(candidates, key=lambda p: abs(p.width / p.height - WANTED_ASPECT))


def _edges(tiles: Sequence[Tile]) -> tuple[tuple[int, int], ...]:
    owner = {layer.index: i for i, tile in enumerate(tiles) for layer in tile.layers}
    pairs = ((owner[j], i) for i, t in enumerate(tiles) for layer in t.layers for j in layer.inputs if j in owner)
    return tuple(dict.fromkeys((a, b) for a, b in pairs if a != b))


def _blocks(tiles: Sequence[Tile]) -> list[tuple[str, list[int]]]:
    """Consecutive tiles of one part of the model, labelled by its path; large parts are split once more."""
    paths = [name_of(t.layers[0]).split("/")[0].split(".")[: None if "/" in name_of(t.layers[0]) else -1] for t in tiles]
    return _split(list(range(len(tiles))), paths, 1)


def _split(members: list[int], paths: Sequence[list[str]], depth: int) -> list[tuple[str, list[int]]]:
    runs: list[tuple[str, list[int]]] = []
    for i in members:
        label = ".".join(paths[i][:depth])
        if not runs or runs[-1][0] != label:
            runs.append((label, []))
        runs[-1][1].append(i)
    found = []
    for label, run in runs:
        deeper = _split(run, paths, depth + 1) if any(len(paths[i]) > depth for i in run) else []
        worth = len(run) > LARGE and 1 < len(deeper) <= len(run) / WORTH_A_FRAME
        found += deeper if worth else [(label, run)]
    return found


def _columns(members: Sequence[int], edges: Sequence[tuple[int, int]]) -> list[Column]:
    """Tiles by their depth inside the block, so that parallel branches stand above each other."""
    inside, depth = set(members), dict.fromkeys(members, 0)
    follows = {b: [a for a, b_ in edges if b_ == b and a in inside and a < b] for b in members}
    for i in members:
        depth[i] = max((depth[a] + 1 for a in follows[i]), default=0)
    columns: list[Column] = [[] for _ in range(max(depth.values(), default=-1) + 1)]
    for i in members:
        columns[depth[i]].append(i)
    return columns


def _lined(
    tiles: Sequence[Tile], edges: tuple[tuple[int, int], ...], blocks: Sequence[tuple[str, list[Column]]], length: int
) -> Placed:
    lines = _wrapped(blocks, length)
    spots: dict[int, Spot] = {}
    frames: list[Frame] = []
    y = width = 0.0
    for number, line in enumerate(lines):
        x, column, tallest = 0.0, 0, max(len(c) for _, part in line for c in part)
        height = LABEL + tallest * (HEIGHT + GAP_Y) - GAP_Y + PAD
        for label, part in line:
            frames.append(Frame(label, x, y, 2 * PAD + len(part) * (WIDTH + GAP_X) - GAP_X, height))
            for stack in part:
                _stack(spots, tiles, stack, label, x + PAD, y + LABEL, height - LABEL - PAD, (number, column, y))
                x, column = x + WIDTH + GAP_X, column + 1
            x += 2 * PAD
        width, y = max(width, x - GAP_X), y + height + LINE_GAP
    return Placed(tuple(spots[i] for i in range(len(tiles))), tuple(frames), edges, width, y - LINE_GAP)


def _stack(
    spots: dict[int, Spot], tiles: Sequence[Tile], stack: Column, label: str, x: float, y: float, room: float,
    at: tuple[int, int, float],
) -> None:  # fmt: skip
    """Centre a column's tiles in the height of its line."""
    y += (room - len(stack) * (HEIGHT + GAP_Y) + GAP_Y) / 2
    for i in stack:
        spots[i] = Spot(tiles[i], tiles[i].label(label), x, y, *at)
        y += HEIGHT + GAP_Y


def _wrapped(blocks: Sequence[tuple[str, list[Column]]], length: int) -> list[list[tuple[str, list[Column]]]]:
    """Blocks as words of a text: one that does not fit goes to the next line, a longer one than a line is broken."""
    lines: list[list[tuple[str, list[Column]]]] = [[]]
    room = length
    for label, columns in blocks:
        if len(columns) > room and lines[-1]:
            lines.append([])
            room = length
        while columns:
            if room == 0:
                lines.append([])
                room = length
            part, columns = columns[:room], columns[room:]
            lines[-1].append((label, part))
            room -= len(part)
    return lines
