"""Verdicts of every model of torchvision: ``python tools/torchvision_verdicts.py [NAMES...] [--json]``."""

from __future__ import annotations

import argparse
import functools
import sys
from typing import Any

import torch
from torchvision.models import get_model, list_models
from verdict_table import Example, run

_VIDEO = ("r3d", "mc3", "r2plus1d", "s3d", "mvit", "swin3d")
_DETECTION = ("rcnn", "retinanet", "fcos", "ssd")
_SIZES = {"inception_v3": 299, "quantized_inception_v3": 299, "r3d_18": 112, "mc3_18": 112, "r2plus1d_18": 112}


def is_classifier(name: str) -> bool:
    """Whether the name is an image classifier (not quantised)."""
    other = (*_VIDEO, *_DETECTION, "raft", "deeplab", "fcn_", "lraspp", "quantized")
    return not any(part in name for part in other)


def inputs_for(name: str, batch: int = 2) -> tuple[Any, ...]:
    """Example inputs in train mode, on the current default device."""
    size = _SIZES.get(name, 224)
    if name.startswith(_VIDEO):
        return (torch.zeros(batch, 3, 16, size, size),)
    if name.startswith("raft"):
        return torch.zeros(batch, 3, 128, 128), torch.zeros(batch, 3, 128, 128)
    if any(part in name for part in _DETECTION):
        return [torch.zeros(3, size, size) for _ in range(batch)], [_annotation(size) for _ in range(batch)]
    return (torch.zeros(batch, 3, size, size),)


def _annotation(size: int) -> dict[str, torch.Tensor]:
    return {
        "boxes": torch.tensor([[10.0, 10.0, 100.0, 100.0]]),
        "labels": torch.ones(1, dtype=torch.int64),
        "masks": torch.ones(1, size, size, dtype=torch.uint8),
        "keypoints": torch.ones(1, 17, 3),
    }


def build(name: str) -> Example:
    """The model with random weights and its example inputs."""
    backbone = {"weights_backbone": None} if any(p in name for p in (*_DETECTION, "deeplab", "fcn_", "lraspp")) else {}
    extra = {"init_weights": False} if name.removeprefix("quantized_") in ("googlenet", "inception_v3") else {}
    return Example(get_model(name, weights=None, **backbone, **extra), inputs_for(name))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="default: all")
    parser.add_argument("--classifiers", action="store_true", help="image classifiers only")
    parser.add_argument("--mode", default="train")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    names = options.names or [n for n in list_models() if not options.classifiers or is_classifier(n)]
    return run(((n, functools.partial(build, n)) for n in names), as_json=options.json, mode=options.mode)


if __name__ == "__main__":
    sys.exit(main())
