"""What a capture baked in, compared at each forward: a difference means capturing again, or an error."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from operator import attrgetter
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_flatten

from fxcheck.capture.held import HOOKS, modules_among, reached_from
from fxcheck.errors import InputError, StepError
from fxcheck.runtime.glance import Glance, hooks_of, hooks_of_all_modules, modes_of_torch

_VERSION = attrgetter("_version")
_TENSORS = {Tensor}
_READABLE = (torch.float32, torch.float64, torch.int64)
"""Dtypes that numpy has too; others are read as bytes."""


@dataclass(frozen=True)
class State:
    """The modules and parameters of a model at one moment."""

    modules: tuple[Any, ...]
    """The modes of torch, and the modules themselves, with their training flags, hooks and buffers: a capture holds for one
    value of them."""
    parameters: tuple[Any, ...]
    """Identity, requires_grad, dtype and device of each parameter: what was instrumented."""
    held: tuple[nn.Parameter, ...] = field(compare=False)
    """The parameters themselves."""
    attributes: tuple[Any, ...] = field(compare=False)
    """Plain attributes of each module, and what lists, dicts, objects and code hold there: a capture bakes them in."""
    tensors: tuple[Tensor, ...] = field(compare=False, repr=False)
    """Those among that, in order."""
    glance: Glance = field(compare=False, repr=False)

    @classmethod
    def of(cls, roots: Iterable[nn.Module]) -> State:
        modules: list[Any] = [modes_of_torch(), hooks_of_all_modules()]
        parameters: list[Any] = []
        held: list[nn.Parameter] = []
        found = _modules(roots)
        everything = [*found, *_unregistered(found)]
        for i, m in enumerate(everything):
            modules.append((m, type(m), m.training, *(tuple(m.__dict__.get(kind, {}).values()) for kind in HOOKS)))
            modules.extend([(id(b), b is not None and b.requires_grad) for b in m._buffers.values()])
            own = [p for p in m._parameters.values() if p is not None]
            modules.extend(map(hooks_of, own))
            kinds = [(id(p), p.requires_grad, p.dtype, p.device) for p in own]
            if i < len(found):
                parameters += kinds
                held += own
            else:  # no parameters of the model: others in their place ask for another capture only
                modules += kinds
        glance = Glance(everything, held)
        return cls(tuple(modules), tuple(parameters), tuple(held), *glance.plain_attributes(), glance)

    def now(self, roots: Iterable[nn.Module]) -> State:
        """The state of the same roots at present: this one while nothing has changed, which every forward asks."""
        return self if self.glance.shows_no_change() else State.of(roots)

    def refuse_other_parameters(self, now: State, roots: Iterable[nn.Module]) -> None:
        """Say what changed, if anything did.

        Raises:
            StepError: parameters were added, removed, replaced, moved or (un)frozen.
        """
        if self.parameters == now.parameters:
            return
        names = {id(p): n for r in roots for n, p in r.named_parameters(remove_duplicate=False)}
        known = {p[0]: p for p in self.parameters}
        changed = next((p for p in now.parameters if known.get(p[0]) != p), None)
        before = known.get(changed[0]) if changed is not None else None
        hint = "instrument the model again (checked.to(...) moves it together with its checks)"
        name = names.get(changed[0], "a parameter") if changed is not None else "a parameter"
        if changed is None or before is None:
            what = f"parameters were added, removed or replaced ({name})"
        elif before[1] != changed[1]:
            what = f"requires_grad of {name} changed to {changed[1]}"
            hint = "instrument the model again; or call checked.model, unchecked, as long as that is so"
        else:
            what = f"{name} moved from {before[2]} on {before[3]} to {changed[2]} on {changed[3]}"
        raise StepError(
            f"{what} after the model was instrumented, so its checks no longer describe it",
            hint=hint,
        )


def versions(parameters: Sequence[nn.Parameter]) -> list[int]:
    """How often each was written in place."""
    return [*map(_VERSION, parameters)]


def writes(values: Iterable[Any]) -> tuple[int, ...]:
    """How often each tensor among the values was written in place; inference tensors do not count it, and are not."""
    return tuple(0 if v.is_inference() else v._version for v in values if isinstance(v, Tensor))


def checksum(tensor: Tensor) -> int:
    """Tells tensors of one shape and dtype apart by their bits in order; no protection against an adversary."""
    if not tensor.numel() or tensor.layout is not torch.strided:
        return 0
    dense = tensor.detach()
    if not (dense.is_cpu and dense.is_contiguous()) or dense.is_conj() or dense.is_neg():
        dense = dense.cpu().resolve_conj().resolve_neg().contiguous()
    readable = dense.dtype in _READABLE and dense.dim()
    return zlib.crc32((dense if readable else dense.reshape(-1).view(torch.uint8)).numpy().data)


def _modules(roots: Iterable[nn.Module]) -> list[nn.Module]:
    """Every module once, in a fixed order."""
    found, seen, stack = [], set(), list(roots)
    while stack:
        current = stack.pop()
        if current is not None and id(current) not in seen:
            seen.add(id(current))
            found.append(current)
            stack.extend(current._modules.values())  # type: ignore[arg-type]
    return found


def _unregistered(modules: Sequence[nn.Module]) -> list[nn.Module]:
    """Modules that attributes of others lead to."""
    return modules_among(value for _, value in reached_from(("", m) for m in modules))


class Inputs(NamedTuple):
    """Structure, dtypes, devices and sizes of one call's arguments."""

    spec: TreeSpec
    leaves: tuple[Any, ...]

    @classmethod
    def of(cls, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Inputs, list[Any]]:
        if not kwargs and {*map(type, args)} == _TENSORS:  # as most calls are: a walk through a tree costs more
            flat, spec = list(args), _spec_of_leaves(len(args))
        else:
            flat, spec = tree_flatten((args, dict(kwargs)))
        return cls(spec, tuple(map(_describe, flat))), flat

    def fits(self, other: Inputs, dynamic: tuple[bool, ...]) -> bool:
        """Whether a capture for these inputs serves others: equal but for batch sizes left dynamic."""
        if self.spec != other.spec or len(self.leaves) != len(other.leaves):
            return False
        return all(_fits(a, b, d) for a, b, d in zip(self.leaves, other.leaves, dynamic, strict=True))

    @property
    def kind(self) -> tuple[Any, ...]:
        """All but the sizes of tensors, and whether they require a gradient."""
        return self.spec, tuple((len(v.shape), *v[1:-1]) if isinstance(v, _Tensor) else v for v in self.leaves)

    def refuse_other_kind(self, other: Inputs) -> None:
        """Refuse inputs of another dtype or device than the model was instrumented with.

        Raises:
            InputError: dtype or device of a tensor differs; shapes and structures may differ.
        """
        if self.spec != other.spec:
            return
        for i, (a, b) in enumerate(zip(self.leaves, other.leaves, strict=True)):
            if isinstance(a, _Tensor) and isinstance(b, _Tensor) and (a.dtype, a.device) != (b.dtype, b.device):
                raise InputError(
                    f"input {i} is {b.dtype} on {b.device}; the model was instrumented with {a.dtype} on {a.device}",
                    hint="convert the input, or move the checked model with checked.to(...)",
                )


@lru_cache(maxsize=64)
def _spec_of_leaves(number: int) -> TreeSpec:
    """Of a call with that many arguments, each of them a leaf, and no keywords."""
    return tree_flatten(((0,) * number, {}))[1]


class _Tensor(NamedTuple):
    shape: torch.Size
    dtype: torch.dtype
    device: torch.device
    layout: torch.layout
    requires_grad: bool


_OF_TENSOR = attrgetter(*_Tensor._fields)


def _describe(value: Any) -> Any:
    if isinstance(value, Tensor):
        return tuple.__new__(_Tensor, _OF_TENSOR(value))  # as _make does, without a frame of Python
    return (type(value), repr(value) if isinstance(value, (int, float, bool, str, type(None))) else id(value))


def _fits(mine: Any, other: Any, dynamic: bool) -> bool:
    if not isinstance(mine, _Tensor) or not isinstance(other, _Tensor):
        return bool(mine == other)
    if mine[1:] != other[1:] or len(mine.shape) != len(other.shape):
        return False
    if not dynamic or not mine.shape:
        return mine.shape == other.shape
    return mine.shape[1:] == other.shape[1:] and other.shape[0] > 1
