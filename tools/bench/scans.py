"""What the scans cost: ``python tools/bench/scans.py [--repeats K] [--threads N]``.

In one run, per shape and memory format: milliseconds of a touch scan beside ``y.sum()``, and of a tie scan beside the
stock max_pool2d forward, on both paths, for few ties ("photo") and many ("sat"); then those of class maps.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from fxcheck import scan
from fxcheck.scan import WindowSpec, choice, classes, shifts, sliding
from fxcheck.scan.choice import Path

SHAPES = [((64, 64, 32, 32), 3, 2, 1), ((64, 64, 32, 32), 2, 2, 0), ((16, 64, 112, 112), 3, 2, 1), ((128, 256, 8, 8), 2, 2, 0)]
PATHS: tuple[Path, ...] = ("torch", "compiled")
FORMATS = {"NCHW": torch.contiguous_format, "NHWC": torch.channels_last}
SATURATED = 0.5  # where "sat" is clipped
MIXED = 0.01  # share of window positions that mix classes


def milliseconds(run: Callable[[], Any], repeats: int) -> float:
    """Median wall time of one call, after one to warm up."""
    run()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return 1e3 * statistics.median(times)


def scans(shape: tuple[int, ...], kernel: int, stride: int, padding: int, layout: str, many: bool, repeats: int) -> str:
    """One line of milliseconds for one shape."""
    x = torch.randn(shape).contiguous(memory_format=FORMATS[layout])
    x = x.clamp(max=SATURATED) if many else x
    out = F.max_pool2d(x, kernel, stride, padding)
    spec = WindowSpec((kernel,) * 2, (stride,) * 2, (padding,) * 2, (1, 1))
    windows = sliding(spec, tuple(shape[2:]), tuple(out.shape[2:]))
    mixed = torch.rand(out.shape[0], *out.shape[2:]) < MIXED
    total = milliseconds(x.sum, repeats)
    pool = milliseconds(lambda: F.max_pool2d(x, kernel, stride, padding), repeats)
    cells = [f"{shape!s:20} {kernel}x{kernel}/{stride} {layout} {'sat' if many else 'photo':5}"]
    cells.append(f"sum {total:5.2f}, pool {pool:5.2f}")
    for path in PATHS if choice.available() else PATHS[:1]:
        scan.use(path)
        touch = milliseconds(lambda: scan.touched(x, (0.0,)), repeats)
        tie = milliseconds(lambda: scan.ties(x, out, windows, mixed=mixed), repeats)
        cells.append(f"{path}: touched {touch:5.2f}, ties {tie:5.2f}")
    scan.use("auto")
    return " | ".join(cells)


def class_maps(shape: tuple[int, ...], kernel: int, stride: int, padding: int, repeats: int) -> str:
    """One line of milliseconds: classes and equal neighbours of an input, after one convolution, and in a pool's windows."""
    x = torch.randn(shape)
    size = tuple((side + 2 * padding - kernel) // stride + 1 for side in shape[2:])
    spec = WindowSpec((kernel,) * 2, (stride,) * 2, (padding,) * 2, (1, 1))
    convolution = sliding(spec, tuple(shape[2:]), size)
    pool = sliding(WindowSpec((2, 2), (2, 2), (0, 0), (1, 1)), size, tuple(side // 2 for side in size))
    before = classes.of_input(x)
    after = classes.through_windows(before, convolution, 1)
    steps = shifts.adjacent(WindowSpec((2, 2), (2, 2), (0, 0), (1, 1)))
    inner = shifts.of_operand(convolution, steps) or ()
    equal = shifts.of_input(x, inner, (padding,) * 2)
    along = shifts.through_windows(equal, convolution, steps, is_padded=True)
    parts = {
        "of_input": lambda: classes.of_input(x),
        "through_windows": lambda: classes.through_windows(before, convolution, 1),
        "mixed": lambda: classes.mixed(after, pool),
        "neighbours of_input": lambda: shifts.of_input(x, inner, (padding,) * 2),
        "their through_windows": lambda: shifts.through_windows(equal, convolution, steps, is_padded=True),
        "labels": lambda: shifts.labels(along, pool),
    }
    times = ", ".join(f"{name} {milliseconds(run, repeats):.2f} ms" for name, run in parts.items())
    return f"{shape!s:20} {kernel}x{kernel}/{stride} {times}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    repeats = arguments.repeats
    for shape, *numbers in SHAPES:
        for layout in FORMATS:
            for many in (False, True):
                print(scans(shape, *numbers, layout, many, repeats))
    for width in (256, 64):
        y = torch.randn(128, width)
        print(f"(128, {width}) touched {1e3 * milliseconds(lambda y=y: scan.touched(y, (0.0,)), 100):.0f} us")  # type: ignore[misc]
    print(class_maps((64, 3, 32, 32), 3, 1, 1, repeats))
    print(class_maps((8, 3, 224, 224), 7, 2, 3, repeats))


if __name__ == "__main__":
    main()
