"""Analyse every model of torchvision: ``python tools/torchvision_verdicts.py [NAMES...] [--json]``."""

from __future__ import annotations

from typing import Any

import torch
import torchvision.models as models
from zoo_runs import arguments, run_all

_VIDEO = ("r3d", "mc3", "r2plus1d", "s3d", "mvit", "swin3d")
_DETECTION = ("rcnn", "retinanet", "fcos", "ssd")
_SEGMENTATION = ("deeplab", "fcn", "lraspp")


def build(name: str) -> tuple[torch.nn.Module, tuple[Any, ...], dict[str, Any]]:
    """The model without weights, on the meta device where its constructor allows, and inputs of its usual size."""
    extra = {"weights_backbone": None} if any(k in name for k in (*_DETECTION, *_SEGMENTATION)) else {}
    device = "meta"
    try:
        with torch.device("meta"):
            model = models.get_model(name, weights=None, **extra)
    except NotImplementedError:  # some constructors read what they initialised
        model, device = models.get_model(name, weights=None, **extra), "cpu"
    return model, _inputs(name, device), {}


def _inputs(name: str, device: str) -> tuple[Any, ...]:
    size = 299 if "inception" in name else 224
    if name.startswith("raft"):
        return (torch.zeros(2, 3, 128, 128, device=device),) * 2
    if any(name.startswith(k) for k in _VIDEO):
        return (torch.zeros(2, 3, 16, size, size, device=device),)
    if any(k in name for k in _DETECTION):
        images = [torch.zeros(3, size, size, device=device)] * 2
        target = {"boxes": torch.tensor([[0.0, 0.0, 9.0, 9.0]]), "labels": torch.tensor([1])}
        return images, [target] * 2
    return (torch.zeros(2, 3, size, size, device=device),)


if __name__ == "__main__":
    options = arguments(__doc__ or "").parse_args()
    run_all(options.names or models.list_models(), build, options.json)
