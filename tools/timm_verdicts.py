"""Verdicts of timm models: ``python tools/timm_verdicts.py [NAMES...] [--families] [--per-family N] [--json]``."""

from __future__ import annotations

import argparse
import functools
import sys
from typing import Any

import torch
from verdict_table import Example, run


def _timm() -> Any:
    try:
        import timm
    except ImportError:
        sys.exit("timm is not installed (it is not a dependency of fxcheck): pip install timm")
    return timm


def families(per_family: int) -> list[str]:
    """The first names of every timm module, and of every name prefix within it."""
    timm = _timm()
    names: list[str] = []
    for module in timm.list_modules():
        prefixes: dict[str, list[str]] = {}
        for name in timm.list_models(module=module):
            prefixes.setdefault(name.split("_")[0], []).append(name)
        names += [name for found in prefixes.values() for name in found[:per_family]]
    return names


def build(name: str) -> Example:
    """The model, without memory where its constructor allows, and one minibatch of two images of its own size."""
    device = "meta"
    try:
        with torch.device(device):
            model = _timm().create_model(name, pretrained=False)
    except (NotImplementedError, RuntimeError):
        device = "cpu"
        model = _timm().create_model(name, pretrained=False)
    channels, height, width = model.default_cfg.get("input_size", (3, 224, 224))
    return Example(model, (torch.zeros(2, channels, height, width, device=device),))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="default: --families")
    parser.add_argument("--families", action="store_true", help="one name per timm module and name prefix")
    parser.add_argument("--modules", action="store_true", help="one name per timm module")
    parser.add_argument("--per-family", type=int, default=1)
    parser.add_argument("--mode", default="train")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    timm = _timm()
    names = options.names
    if options.modules:
        names = [found[0] for m in timm.list_modules() if (found := timm.list_models(module=m))]
    elif not names or options.families:
        names = [*names, *families(options.per_family)]
    return run(((n, functools.partial(build, n)) for n in names), as_json=options.json, mode=options.mode)


if __name__ == "__main__":
    sys.exit(main())
