"""Synthetic data in the layouts that the tools read, and what they wrote."""

from __future__ import annotations

import importlib
import json
import struct
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

TOOLS = Path(__file__).resolve().parents[2] / "tools"
COUNT = 140
"""Images of the synthetic data sets: a minibatch of 128 and one of 12."""


def tool(monkeypatch: pytest.MonkeyPatch, folders: Sequence[str], names: Sequence[str]) -> ModuleType:
    """A tool as its script sees itself, with the modules beside it.

    Args:
        monkeypatch: undoes it all: these names could be anyone's.
        folders: of ``tools``, that are on the script's path.
        names: of its modules, the script first.
    """
    for folder in folders:
        monkeypatch.syspath_prepend(str(TOOLS / folder))
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
    script = importlib.import_module(names[0])
    for name in names:
        monkeypatch.setitem(sys.modules, name, sys.modules[name])
    return script


def _write_idx(path: Path, values: np.ndarray) -> None:
    path.write_bytes(struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape) + values.tobytes())


def make_torchvision_root(folder: Path, name: str) -> Path:
    """Random images of 28x28 in the layout of MNIST and FashionMNIST."""
    raw = folder / name / "raw"
    raw.mkdir(parents=True)
    random = np.random.default_rng(0)
    for half in ("train", "t10k"):
        _write_idx(raw / f"{half}-images-idx3-ubyte", random.integers(0, 256, (COUNT, 28, 28), dtype=np.uint8))
        _write_idx(raw / f"{half}-labels-idx1-ubyte", (np.arange(COUNT) % 10).astype(np.uint8))
    return folder


def make_crops(folder: Path, count: int = 10) -> np.ndarray:
    """Blocky images, so that neighbouring positions tie."""
    blocks = np.random.default_rng(0).integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    images = blocks.repeat(8, 1).repeat(8, 2)
    np.savez(folder / "photo_crops.npz", images=images)
    return images


def read_trainings(page: Path) -> list[dict[str, Any]]:
    return json.loads(page.with_suffix(".json").read_text())["trainings"]


def read_cells(page: Path, start: str) -> list[list[str]]:
    """The table rows that start with a name."""
    rows = [line.strip("| ").split(" | ") for line in page.read_text().splitlines() if line.startswith(f"| {start} |")]
    return [[cell.strip() for cell in row] for row in rows]
