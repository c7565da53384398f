"""What a capture baked in, compared at each forward: a difference means capturing again, or an error."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_flatten

from fxcheck.errors import InputError, StepError


@dataclass(frozen=True)
class Weights:
    """Which parameters there are, and which of them are trained."""

    parameters: tuple[tuple[str, int, bool, torch.dtype, torch.device], ...]

    @classmethod
    def of(cls, roots: Iterable[nn.Module]) -> Weights:
        named = ((n, p) for r in roots for n, p in r.named_parameters(remove_duplicate=False))
        return cls(tuple((n, id(p), p.requires_grad, p.dtype, p.device) for n, p in named))

    def refuse(self, now: Weights) -> None:
        """Say what changed.

        Raises:
            StepError: always; called when the two differ.
        """
        before, after = {p[0]: p for p in self.parameters}, {p[0]: p for p in now.parameters}
        name = next((n for n in {**before, **after} if before.get(n) != after.get(n)), "?")
        old, new = before.get(name), after.get(name)
        if old is None or new is None:
            what = f"parameter {name} was {'added' if old is None else 'removed'}"
        elif old[2] != new[2]:
            what = f"requires_grad of {name} changed to {new[2]}"
        elif old[3:] != new[3:]:
            what = f"{name} moved from {old[3]} on {old[4]} to {new[3]} on {new[4]}"
        else:
            what = f"parameter {name} was replaced by another object"
        raise StepError(
            f"{what} after the model was instrumented, so its checks no longer describe it",
            hint="instrument the model again (checked.to(...) moves it together with its checks)",
        )


@dataclass(frozen=True)
class Modules:
    """Training flags, hooks and buffers: a capture holds for one state of them."""

    state: tuple[Any, ...]

    @classmethod
    def of(cls, roots: Iterable[nn.Module]) -> Modules:
        state: list[Any] = []
        for root in roots:
            for m in root.modules():
                state.append((m.training, len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks)))
                state.extend(id(b) for b in m._buffers.values())
        return cls(tuple(state))


@dataclass(frozen=True)
class Inputs:
    """Structure, dtypes, devices and sizes of one call's arguments."""

    spec: TreeSpec
    leaves: tuple[Any, ...]

    @classmethod
    def of(cls, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Inputs, list[Any]]:
        flat, spec = tree_flatten((args, dict(kwargs)))
        return cls(spec, tuple(_describe(v) for v in flat)), flat

    def fits(self, other: Inputs, dynamic: tuple[bool, ...]) -> bool:
        """Whether a capture for these inputs serves others: equal but for batch sizes left dynamic."""
        if self.spec != other.spec or len(self.leaves) != len(other.leaves):
            return False
        return all(_fits(a, b, d) for a, b, d in zip(self.leaves, other.leaves, dynamic, strict=True))

    def refuse_other_kind(self, other: Inputs) -> None:
        """Refuse inputs of another dtype or device than the model was instrumented with.

        Raises:
            InputError: dtype or device of a tensor differs; shapes and structures may differ.
        """
        for i, (a, b) in enumerate(zip(self.leaves, other.leaves, strict=False)):
            if isinstance(a, _Tensor) and isinstance(b, _Tensor) and (a.dtype, a.device) != (b.dtype, b.device):
                raise InputError(
                    f"input {i} is {b.dtype} on {b.device}; the model was instrumented with {a.dtype} on {a.device}",
                    hint="convert the input, or move the checked model with checked.to(...)",
                )


@dataclass(frozen=True)
class _Tensor:
    shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device


def _describe(value: Any) -> Any:
    if isinstance(value, Tensor):
        return _Tensor(tuple(value.shape), value.dtype, value.device)
    return value if isinstance(value, (int, float, bool, str, type(None))) else id(value)


def _fits(mine: Any, other: Any, dynamic: bool) -> bool:
    if not isinstance(mine, _Tensor) or not isinstance(other, _Tensor):
        return type(mine) is type(other) and mine == other
    if (mine.dtype, mine.device) != (other.dtype, other.device) or len(mine.shape) != len(other.shape):
        return False
    if not dynamic or not mine.shape:
        return mine.shape == other.shape
    return mine.shape[1:] == other.shape[1:] and other.shape[0] > 1
