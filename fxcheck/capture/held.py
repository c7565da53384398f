"""What attributes of modules hold besides tensors and modules: lists, dicts and objects, in which a forward may read a value."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections import UserDict, UserList, deque
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from contextlib import suppress
from functools import partial
from types import MemberDescriptorType, MethodType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import nn

_DEPTH = 8
_MANY = 1000
"""Larger ones, as a vocabulary, are not looked into."""
OF_TORCH = frozenset(vars(nn.Module()))
"""Names of attributes that every module has."""
_NOT_OF_USERS = {*sys.stdlib_module_names, "torch", "numpy", "lightning", "pytorch_lightning"}
"""Packages whose objects hold no settings of a forward, but for those made to hold whatever a user puts there."""
_FOR_USERS = (SimpleNamespace, Namespace, UserDict, UserList)
_CONTAINERS = (list, dict, set, deque, np.ndarray)
Reader = Callable[[Any], tuple[Any, ...]]


def reached_from(named: Iterable[tuple[str, nn.Module]]) -> list[tuple[str, Any]]:
    """Whatever is reached from attributes of modules, those that no module has registered too, each once, with its name.

    Args:
        named: modules with their paths.
    """
    modules = list(named)
    level = [(f"{path}.{name}".lstrip("."), value) for path, m in modules for name, value in _of_module(m)]
    found, seen = [], {id(m) for _, m in modules}
    for _ in range(_DEPTH):
        inner: list[tuple[str, Any]] = []
        for path, value in level:
            held = () if id(value) in seen else _inside(value)
            if id(value) not in seen and len(held) <= _MANY:
                seen.add(id(value))
                found.append((path, value))
                inner += ((path, v) for v in held)
        level = inner
    return found


def held_by(named: Iterable[tuple[str, nn.Module]]) -> list[tuple[str, Any]]:
    """Whatever of that has a reader.

    Args:
        named: modules with their paths.
    """
    return [(path, value) for path, value in reached_from(named) if reader_of(value)]


def readers_of(modules: Iterable[nn.Module]) -> list[tuple[Reader, Any]]:
    """The same with its reader, whatever its name is."""
    return [(read, value) for _, value in reached_from(("", m) for m in modules) if (read := reader_of(value))]


def places(named: Iterable[tuple[str, nn.Module]]) -> list[Any]:
    """The attributes of modules and of objects that they hold, and the containers: wherever a value may be put."""
    modules = list(named)
    held = (attributes_of(v) if is_object(v) else v for _, v in held_by(modules))
    return [*(vars(m) for _, m in modules), *(v for v in held if not isinstance(v, np.ndarray))]


def entries(place: Any) -> Iterable[tuple[Any, Any]]:
    """Names, keys or positions of a place, and what is there; what a set holds is its own key."""
    if isinstance(place, set):
        return ((v, v) for v in place)
    return place.items() if isinstance(place, (dict, Attributes)) else enumerate(place)


def entry(place: Any, key: Any) -> Any:
    """What is there now; None for nothing."""
    if isinstance(place, set):
        return key if key in place else None
    if isinstance(place, (dict, Attributes)):
        return place.get(key)
    return place[key] if key < len(place) else None


def storage_of(tensor: torch.Tensor) -> Any:
    """The same for all that share memory: export holds a parameter in a list as a detached one."""
    return tensor.untyped_storage()._cdata if tensor.layout is torch.strided else id(tensor)


def view_of(tensor: torch.Tensor) -> tuple[Any, ...]:
    """The same for all that are one view of one memory."""
    return (tensor.untyped_storage()._cdata, tensor.storage_offset(), tuple(tensor.shape), tensor.stride())


def _of_module(module: nn.Module) -> Iterator[tuple[str, Any]]:
    return ((name, value) for name, value in vars(module).items() if name not in OF_TORCH)


def _inside(value: Any) -> tuple[Any, ...]:
    if isinstance(value, nn.Module) and not isinstance(value, torch.jit.ScriptModule):
        return (*value._modules.values(), *(v for _, v in _of_module(value)))
    reader = reader_of(value)
    return (*(reader(value) if reader else ()), *through(value))


def through(value: Any) -> tuple[Any, ...]:
    """What is reached by way of a value that does not change itself."""
    if isinstance(value, (tuple, frozenset)):
        return tuple(value)
    if isinstance(value, MethodType):
        return (value.__self__,)
    return (value.func, *value.args, *value.keywords.values()) if isinstance(value, partial) else ()


def reader_of(value: Any) -> Reader | None:
    """Gives all that a list, dict, small array or object holds; None for any other value."""
    if isinstance(value, (list, set, deque)):
        return tuple
    if isinstance(value, dict):
        return _keys_and_values
    if isinstance(value, np.ndarray):
        return _bytes if value.size <= _MANY else None
    if not is_object(value):
        return None
    return _in_slots if _slots(type(value)) else _attributes


def is_object(value: Any) -> bool:
    """Of a class of the user's own, with attributes that can be read."""
    kind = type(value)
    if isinstance(value, (nn.Module, type, *_CONTAINERS)):
        return False
    if kind.__module__.partition(".")[0] in _NOT_OF_USERS and kind not in _FOR_USERS:
        return False
    try:
        return bool(_slots(kind)) or isinstance(value.__dict__, dict)
    except Exception:  # it has none, or whatever a property of that name raises
        return False


def attributes_of(value: Any) -> MutableMapping[str, Any]:
    """Where an object keeps its attributes."""
    return Attributes(value) if _slots(type(value)) else vars(value)


class Attributes(MutableMapping[str, Any]):
    """Those of an object with slots, as a dict has those of any other; written past a class that lets nobody write."""

    def __init__(self, held: Any) -> None:
        self._held, self._slots = held, _slots(type(held))

    def __getitem__(self, name: str) -> Any:
        return self.now()[name]

    def __setitem__(self, name: str, value: Any) -> None:
        object.__setattr__(self._held, name, value)

    def __delitem__(self, name: str) -> None:
        object.__delattr__(self._held, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.now())

    def __len__(self) -> int:
        return len(self.now())

    def now(self) -> dict[str, Any]:
        """What a dict would hold."""
        found = dict(getattr(self._held, "__dict__", {}))
        for name in self._slots:
            with suppress(AttributeError):  # nothing has been put there yet
                found[name] = object.__getattribute__(self._held, name)
        return found


def _slots(kind: type) -> tuple[str, ...]:
    """Names of slots as ``setattr`` knows them."""
    named = (item for c in kind.__mro__ if "__slots__" in vars(c) for item in vars(c).items())
    return tuple(name for name, slot in named if isinstance(slot, MemberDescriptorType))


def _keys_and_values(held: Any) -> tuple[Any, ...]:
    return (*held, *held.values())


def _attributes(held: Any) -> tuple[Any, ...]:
    return _keys_and_values(vars(held))


def _in_slots(held: Any) -> tuple[Any, ...]:
    return _keys_and_values(Attributes(held).now())


def _bytes(held: np.ndarray[Any, Any]) -> tuple[bytes]:
    return (repr((held.shape, held.dtype)).encode() + held.tobytes(),)
