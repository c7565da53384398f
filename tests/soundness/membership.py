"""Is a gradient in the convex hull of gradients nearby? A check that says OUTSIDE only when that is clear."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch

SCALES = (1e-4, 1e-5, 1e-6)
TOLERANCE = 2e-2


def distance_to_hull(point: np.ndarray, vertices: np.ndarray, steps: int = 4000) -> float:
    """Euclidean distance of ``point`` (D,) to the hull of ``vertices`` (K, D), by pairwise Frank-Wolfe."""
    shifted = vertices - point
    gram = shifted @ shifted.T
    weights = np.zeros(len(vertices))
    weights[int(np.argmin(np.diag(gram)))] = 1.0
    for _ in range(steps):
        slopes = gram @ weights
        toward = int(np.argmin(slopes))
        away = int(np.argmax(np.where(weights > 0, slopes, -np.inf)))
        gain = slopes[away] - slopes[toward]
        if gain < 1e-12:
            break
        curvature = gram[toward, toward] - 2 * gram[toward, away] + gram[away, away]
        step = min(weights[away], gain / curvature) if curvature > 0 else weights[away]
        weights[toward] += step
        weights[away] -= step
    return float(np.sqrt(max(weights @ gram @ weights, 0.0)))


class Landscape:
    """A scalar function of a list of float64 tensors, with its autograd gradient as one vector.

    Args:
        parameters: the tensors to differentiate by; left as they were after each call.
        value: computes the scalar; must be deterministic.
    """

    def __init__(self, parameters: list[torch.nn.Parameter], value: Callable[[], torch.Tensor]) -> None:
        self.parameters, self.value = parameters, value
        self.center = [p.detach().clone() for p in parameters]

    def gradient(self, offset: list[torch.Tensor] | None = None) -> np.ndarray:
        """What ``backward`` returns at the center plus ``offset``."""
        with torch.no_grad():
            for i, (p, c) in enumerate(zip(self.parameters, self.center, strict=True)):
                p.copy_(c if offset is None else c + offset[i])
        slopes = torch.autograd.grad(self.value(), self.parameters, allow_unused=True)
        with torch.no_grad():
            for p, c in zip(self.parameters, self.center, strict=True):
                p.copy_(c)
        parts = [torch.zeros_like(p) if g is None else g for g, p in zip(slopes, self.parameters, strict=True)]
        return torch.cat([g.reshape(-1) for g in parts]).numpy()

    def at(self, offset: list[torch.Tensor]) -> float:
        """The value at the center plus ``offset``."""
        with torch.no_grad():
            for p, c, o in zip(self.parameters, self.center, offset, strict=True):
                p.copy_(c + o)
        value = float(self.value())
        with torch.no_grad():
            for p, c in zip(self.parameters, self.center, strict=True):
                p.copy_(c)
        return value

    def offsets(self, generator: torch.Generator) -> Iterator[list[torch.Tensor]]:
        """Random offsets, alternating between isotropic ones and ones with a size and sign per tensor.

        The second kind follows the theorems' own sequences: all biases one way, layers at very different sizes.
        """
        while True:
            for scale in SCALES:
                yield [scale * self._noise(p, generator) for p in self.parameters]
                yield [scale * self._push(p, generator) for p in self.parameters]

    def _noise(self, p: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return torch.randn(p.shape, generator=generator, dtype=p.dtype)

    def _push(self, p: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        size = 10.0 ** (-3 * torch.rand((), generator=generator).item())
        sign = 1.0 if torch.rand((), generator=generator).item() < 0.5 else -1.0
        return size * (sign + 0.2 * self._noise(p, generator))


def outside_by(landscape: Landscape, seed: int = 0, most: int = 480) -> float:
    """How far AD's gradient stays from the hull of nearby gradients, relative to their size; 0 when inside."""
    found = landscape.gradient()
    assert np.isfinite(found).all(), "a gradient that is not finite is an error, not a verdict"
    size = max(1.0, float(np.abs(found).max()))
    nearby: list[np.ndarray] = []
    generator = torch.Generator().manual_seed(seed)
    for count, offset in enumerate(landscape.offsets(generator), 1):
        nearby.append(landscape.gradient(offset))
        size = max(size, float(np.abs(nearby[-1]).max()))
        if np.abs(nearby[-1] - found).max() <= TOLERANCE * size:
            return 0.0
        if count in (48, 160, most):
            distance = distance_to_hull(found, np.stack(nearby)) / size
            if distance <= TOLERANCE:
                return 0.0
            if count == most:
                return distance
    raise AssertionError("unreachable")


def disagreement(landscape: Landscape, seed: int = 0, step: float = 1e-6) -> float:
    """Relative difference of backward from central differences, along one direction at a generic point."""
    generator = torch.Generator().manual_seed(seed)
    there = [0.3 * landscape._noise(p, generator) for p in landscape.parameters]
    along = [landscape._noise(p, generator) for p in landscape.parameters]
    slope = float(landscape.gradient(there) @ torch.cat([a.reshape(-1) for a in along]).numpy())
    ahead = landscape.at([t + step * a for t, a in zip(there, along, strict=True)])
    behind = landscape.at([t - step * a for t, a in zip(there, along, strict=True)])
    measured = (ahead - behind) / (2 * step)
    if not np.isfinite([slope, measured]).all():
        return 0.0
    return abs(slope - measured) / max(1.0, abs(slope), abs(measured), 1e-6 * abs(ahead) / step)
