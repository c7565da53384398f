"""Whether the modules and parameters of a model are as they were: a second look, which makes no records.

What it costs is cache misses: a training step leaves nothing of some thousand small objects in the cache. So it reads no
more of them than it has to, in loops that C runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum
from functools import partial
from itertools import chain, compress
from operator import attrgetter, call, is_, itemgetter, methodcaller
from types import BuiltinFunctionType, FunctionType, MethodType
from weakref import ProxyTypes

import numpy as np
import torch
from torch import nn

from fxcheck.capture.held import HOOKS, HOOKS_OF_ALL, OF_TORCH
from fxcheck.runtime.holdings import Holdings

_PARTS = itemgetter(*HOOKS, "_buffers", "_parameters", "_modules")
_PLAIN = (bool, int, float, str, bytes, type(None), FunctionType, BuiltinFunctionType, MethodType, partial, Enum, type,
          slice, range, frozenset, complex, torch.dtype, torch.device, torch.layout, torch.memory_format, np.generic)  # fmt: skip
_VALUES = methodcaller("values")
_OF_GRADIENT = ("_backward_hooks", "_post_accumulate_grad_hooks")
_HOOKS_OF_GRADIENT = attrgetter(*_OF_GRADIENT)
_KIND = attrgetter("requires_grad", "dtype", "is_cpu", *_OF_GRADIENT)
_DEVICE = attrgetter("device")
_REQUIRES_GRADIENT = attrgetter("requires_grad")
_DEVICES = ("cpu", "cuda")


def hooks_of_all_modules() -> list[object]:
    """The hooks that every module has."""
    return [*chain.from_iterable(map(_VALUES, HOOKS_OF_ALL))]


def autocast_dtypes() -> tuple[tuple[str, torch.dtype], ...]:
    """Devices with autocast on, and its dtype."""
    if not torch._C._is_any_autocast_enabled():
        return ()
    return tuple((d, torch.get_autocast_dtype(d)) for d in _DEVICES if torch.is_autocast_enabled(d))


def modes_of_torch() -> tuple[tuple[tuple[str, torch.dtype], ...], torch.dtype, bool]:
    """What a forward may ask torch for: autocast, the default dtype, whether algorithms are deterministic."""
    return autocast_dtypes(), torch.get_default_dtype(), torch._C._get_deterministic_algorithms()


def hooks_of(parameter: torch.Tensor) -> tuple[object, ...]:
    """The hooks on a parameter's gradient."""
    return tuple(chain.from_iterable(held.values() for held in _HOOKS_OF_GRADIENT(parameter) if held))


def are_trained(tensors: Iterable[torch.Tensor]) -> list[bool]:
    """Whether each requires a gradient."""
    return [*map(_REQUIRES_GRADIENT, tensors)]


def _watched(module: nn.Module) -> dict[str, object]:
    """All but tensors, and but for what every module has: flags only of that."""
    return {n: v for n, v in vars(module).items() if type(v) not in ProxyTypes and not isinstance(v, torch.Tensor)
            and (n not in OF_TORCH or isinstance(v, _PLAIN))}  # fmt: skip


def _as_now(kind: tuple[object, ...]) -> tuple[object, ...]:
    """With copies of the hooks, which come and go."""
    return tuple(dict(held) if isinstance(held, dict) else held for held in kind)


class _Same:
    """Equal for one object only, which stays alive."""

    def __init__(self, value: object) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)


class Glance:
    """What every module holds, and of what kind its parameters and buffers are.

    Args:
        modules: all modules of a model.
        parameters: all their parameters.
    """

    def __init__(self, modules: Sequence[nn.Module], parameters: Sequence[nn.Parameter]) -> None:
        self.modules = modules
        self.parameters = parameters
        self.spaces = [*map(vars, modules)]
        self.watched = [*map(_watched, modules)]
        self.holdings = Holdings(modules)
        self.kinds_of_modules = [*map(type, modules)]
        try:
            parts = self._parts()
            self.readers = [itemgetter("training", *names) for names in self.watched]  # one more, so that each reads a tuple
            self.attributes = self._attributes()
        except KeyError:  # a class of its own kind, as one whose flag is a property: nothing is known of it
            parts, self.spaces, self.readers, self.attributes = [], [], [], []
        self.sizes = [*map(len, self.spaces)]
        self.lengths = [*map(len, parts)]
        self.contents = [*chain.from_iterable(map(_VALUES, parts))]
        self.kinds = [_as_now(_KIND(p)) for p in parameters]
        self.buffers = [b for m in modules for b in m._buffers.values() if b is not None]
        self.trained_buffers = are_trained(self.buffers)
        self.elsewhere = [p for p in parameters if not p.is_cpu]
        self.devices = [*map(_DEVICE, self.elsewhere)]
        self.shared = hooks_of_all_modules()
        self.modes = modes_of_torch()
        self.autocast = self.modes[0]
        """As ``autocast_dtypes``."""
        self.objects = [*modules, *self.spaces, *parts, *parameters]

    def plain_attributes(self) -> tuple[tuple[object, ...], tuple[torch.Tensor, ...]]:
        """Flags, numbers, words and functions that a forward may read or be, the training flags among them, what of that the
        lists, dicts and objects hold that attributes and code lead to, and which other objects are there.

        Returns:
            What can be compared with another glance's; and the tensors among it in their order, of which only those count that a
            program has taken for constants.
        """
        numbers = {id(v): i for i, v in enumerate(self.holdings.owners)}
        tensors: list[torch.Tensor] = []

        def mark(value: object) -> object:
            if type(value) in ProxyTypes:
                return _Same(value)
            if isinstance(value, torch.Tensor):
                tensors.append(value)
                return torch.Tensor
            if isinstance(value, tuple):
                return (type(value), *map(mark, value))
            if type(value) is float and value != value:
                return "not a number"
            return (type(value), value if isinstance(value, _PLAIN) else numbers.get(id(value), _Same(value)))

        own = [tuple((name, mark(value)) for name, value in held.items()) for held in self.watched]
        inner = self.holdings.marked(mark)
        return (*own, *inner), tuple(tensors)

    def shows_no_change(self) -> bool:
        """Whether attributes, hooks, buffers, parameters and submodules are the same objects, parameters of the same kind, and
        torch in the same modes.

        Returns:
            False too where that cannot be told.
        """
        if not self.spaces:
            return False
        tuple(self.objects)  # touches each of them once: in so short a loop the processor waits for many at a time
        try:
            parts = self._parts()
            return (
                self.shows_same_attributes()
                and [*map(len, parts)] == self.lengths
                and all(map(is_, chain.from_iterable(map(_VALUES, compress(parts, self.lengths))), self.contents))
                and all(map(is_, map(vars, self.modules), self.spaces))
                and all(map(is_, map(type, self.modules), self.kinds_of_modules))
                and [*map(_KIND, self.parameters)] == self.kinds
                and are_trained(self.buffers) == self.trained_buffers
                and [*map(_DEVICE, self.elsewhere)] == self.devices  # an object is made for each
                and hooks_of_all_modules() == self.shared
                and modes_of_torch() == self.modes
            )
        except KeyError:
            return False

    def shows_same_attributes(self) -> bool:
        """Whether plain attributes are, which a forward of the model may have changed itself."""
        try:
            return (
                [*map(len, self.spaces)] == self.sizes
                and all(map(is_, self._attributes(), self.attributes))
                and self.holdings.are_the_same()
            )
        except KeyError:  # one is gone, and another is there
            return False

    def what_differs(self, now: Glance) -> list[str]:
        """Names of attributes, and of what code mentions, that are other objects in a later glance."""
        own = (name for then, held in zip(self.watched, now.watched, strict=False) for name, value in held.items()
               if name in then and then[name] is not value)  # fmt: skip
        return [*dict.fromkeys(chain(own, self.holdings.what_differs(now.holdings)))]

    def _parts(self) -> list[dict[str, object]]:
        """Hooks, buffers, parameters and submodules, module by module."""
        return [*chain.from_iterable(map(_PARTS, self.spaces))]

    def _attributes(self) -> list[object]:
        return [*chain.from_iterable(map(call, self.readers, self.spaces))]
