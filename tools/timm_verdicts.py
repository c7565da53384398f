"""Analyse timm models: ``python tools/timm_verdicts.py [NAMES...] [--json]``; without names one of each family."""

from __future__ import annotations

import sys
from typing import Any

import torch
from zoo_runs import arguments, run_all


def families() -> list[str]:
    """One model of every module of timm."""
    first = (next(iter(timm.list_models(module=m)), None) for m in timm.list_modules())
    return sorted({name for name in first if name})


def build(name: str) -> tuple[torch.nn.Module, tuple[Any, ...], dict[str, Any]]:
    """The model on the meta device with an input of its configured size."""
    with torch.device("meta"):
        model = timm.create_model(name)
    return model, (torch.zeros((2, *model.default_cfg["input_size"]), device="meta"),), {}


if __name__ == "__main__":
    options = arguments(__doc__ or "").parse_args()
    try:
        import timm
    except ModuleNotFoundError:
        sys.exit("timm is not installed; it is no dependency of fxcheck: pip install timm")
    run_all(options.names or families(), build, options.json)
