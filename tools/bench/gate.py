"""What a gate over many models costs: ``python tools/bench/gate.py [NAMES...] [--real] [--json]``.

One process runs the gate over 20 torchvision classifiers, from a configuration. Its time is compared with the sum of
the captures in it (``Report.timings``), its peak memory with that of the largest model when each is gated alone.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TIME_GOAL, MEMORY_GOAL = 1.3, 1.1
MODELS = (
    "alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "efficientnet_v2_s", "googlenet", "inception_v3",
    "mnasnet1_0", "mobilenet_v2", "mobilenet_v3_large", "resnet18", "resnet34", "resnet50", "resnext50_32x4d",
    "shufflenet_v2_x1_0", "squeezenet1_1", "swin_t", "vgg11", "vit_b_16", "wide_resnet50_2",
)  # fmt: skip


def configuration(names: list[str], meta: bool) -> str:
    """A fxcheck.toml that lists torchvision models."""
    lines = ['require = "runtime"', f"meta = {str(meta).lower()}"]
    for name in names:
        size = 299 if name == "inception_v3" else 224
        needs = "{init_weights = false}" if name in ("googlenet", "inception_v3") else "{}"
        lines += ["[[models]]", f'name = "{name}"', f'target = "torchvision.models:{name}"',
                  f'inputs = ["2x3x{size}x{size}"]', f"args = {needs}"]  # fmt: skip
    return "\n".join(lines) + "\n"


def gate_here(file: str) -> dict[str, float]:
    """Run the gate of a configuration in this process: seconds of the run, seconds of its captures, models that failed."""
    import logging
    import warnings

    warnings.filterwarnings("ignore")
    logging.disable(logging.CRITICAL)
    import torchvision  # noqa: F401 - its import is no part of the gate

    import fxcheck.api  # noqa: F401
    from fxcheck.gate.config import find_config
    from fxcheck.gate.run import run

    started = time.perf_counter()
    result, _ = run(find_config(file))
    seconds = time.perf_counter() - started
    reports = [model.report for model in result.models if model.report]
    captures = sum(report.timings["capture"] for report in reports)
    return {"seconds": seconds, "captures": captures, "failed": len(result.models) - len(reports)}


def gate_apart(names: list[str], meta: bool) -> dict[str, float]:
    """The same in a process of its own, with its peak memory in gigabytes."""
    with tempfile.TemporaryDirectory() as folder:
        file, out = Path(folder, "fxcheck.toml"), Path(folder, "out.json")
        file.write_text(configuration(names, meta))
        with open(out, "w") as sink:
            child = subprocess.Popen([sys.executable, __file__, "--here", str(file)], stdout=sink)
            _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            raise SystemExit(f"gating {', '.join(names)} ended with status {child.returncode}")
        return {**json.loads(out.read_text()), "gigabytes": usage.ru_maxrss / 2**20}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(MODELS))
    parser.add_argument("--real", action="store_true", help="allocate weights instead of the meta device")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--here", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        print(json.dumps(gate_here(options.here)))
        return 0
    together = gate_apart(options.names, not options.real)
    alone = {name: gate_apart([name], not options.real)["gigabytes"] for name in options.names}
    largest = max(alone, key=alone.__getitem__)
    ratio, memory = together["seconds"] / together["captures"], together["gigabytes"] / alone[largest]
    found = {**together, "ratio": ratio, "alone": alone, "memory_ratio": memory}
    if options.json:
        print(json.dumps(found))
    else:
        print(f"{len(options.names)} models: {together['seconds']:.1f} s, captures {together['captures']:.1f} s, "
              f"ratio {ratio:.3f} (goal {TIME_GOAL}); failed {together['failed']:g}")  # fmt: skip
        print(f"peak {together['gigabytes']:.2f} GB, largest alone {largest} {alone[largest]:.2f} GB, "
              f"ratio {memory:.3f} (goal {MEMORY_GOAL})")  # fmt: skip
    return int(ratio > TIME_GOAL or memory > MEMORY_GOAL or together["failed"] > 0)


if __name__ == "__main__":
    sys.exit(main())
