"""What static analysis costs beyond capture: ``python tools/bench/static.py [NAMES...] [--repeats K] [--json]``.

For each torchvision classifier, alternating in one process: seconds of ``torch.export.export`` and seconds of the
analysis beyond capture (``Report.timings``). Then the wall time of ``fxcheck --help`` and the peak memory of
``fxcheck analyze --meta torchvision.models:vit_h_14``.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import statistics
import subprocess
import sys
import time
import warnings
from pathlib import Path

import torch
from torchvision.models import list_models

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from torchvision_verdicts import build, is_classifier
from verdict_table import Example, on_meta_or_real

from fxcheck import analyze

RATIO_GOAL, HELP_GOAL, MEMORY_GOAL = 0.3, 0.3, 1.5
_BIG = "torchvision.models:vit_h_14"


def _export_seconds(example: Example) -> float:
    started = time.perf_counter()
    torch.export.export(example.model.train(), example.args, strict=False)
    return time.perf_counter() - started


def _analysis_seconds(example: Example) -> float:
    """Wall time of ``analyze`` minus its capture: nothing is left out."""
    started = time.perf_counter()
    report = analyze(example.model, example.args)
    return time.perf_counter() - started - report.timings["capture"]


def ratio_of(name: str, repeats: int) -> tuple[float, float]:
    """Median seconds of export, and of the analysis beyond capture, measured by turns."""
    example, _ = on_meta_or_real(lambda: build(name))
    exports, analyses = [], []
    for _ in range(repeats):
        exports.append(_export_seconds(example))
        analyses.append(_analysis_seconds(example))
    return statistics.median(exports), statistics.median(analyses)


def help_seconds(runs: int = 7) -> float:
    """Median wall time of ``fxcheck --help``."""
    times = []
    for _ in range(runs):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "fxcheck", "--help"], check=True, capture_output=True)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def peak_gigabytes(target: str) -> tuple[float, int]:
    """Peak resident memory of ``fxcheck analyze --meta TARGET``, and its exit status."""
    command = [sys.executable, "-m", "fxcheck", "analyze", "--meta", target, "--format", "json"]
    with open(os.devnull, "w") as sink:
        child = subprocess.Popen(command, stdout=sink, stderr=sink)
        _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    return usage.ru_maxrss / 2**20, child.returncode


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="default: all image classifiers of torchvision")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.disable(logging.CRITICAL)
    out = sys.stderr if options.json else sys.stdout
    # First, while this process is small: a child's peak counts what it inherits when it is forked.
    helped = help_seconds()
    memory, status = peak_gigabytes(_BIG)
    ratios: dict[str, float] = {}
    ratio_of("alexnet", 1)
    for name in options.names or [n for n in list_models() if is_classifier(n)]:
        export, rest = ratio_of(name, options.repeats)
        ratios[name] = rest / export
        print(f"{name:28} export {export:6.3f} s  beyond capture {rest:6.3f} s  ratio {rest / export:5.3f}", file=out, flush=True)
    median, worst = statistics.median(ratios.values()), max(ratios, key=ratios.__getitem__)
    print(f"median ratio over {len(ratios)} models {median:.3f} (goal {RATIO_GOAL}), worst {worst} {ratios[worst]:.3f}", file=out)
    print(f"fxcheck --help {helped:.3f} s (goal {HELP_GOAL})", file=out)
    print(f"fxcheck analyze --meta {_BIG}: peak {memory:.2f} GB (goal {MEMORY_GOAL}), exit status {status}", file=out)
    if options.json:
        print(json.dumps({"ratios": ratios, "median": median, "help_seconds": helped, "peak_gigabytes": memory, "exit": status}))
    return int(median > RATIO_GOAL or helped > HELP_GOAL or memory > MEMORY_GOAL or status != 0)


if __name__ == "__main__":
    sys.exit(main())
