"""What attributes of modules hold besides tensors and modules: lists, dicts and objects, in which a forward may read a value."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from types import MethodType
from typing import Any

import numpy as np
from torch import nn

_DEPTH = 4
_MANY = 1000
"""Larger ones, as a vocabulary, are not looked into."""
OF_TORCH = frozenset(vars(nn.Module()))
"""Names of attributes that every module has."""
_NOT_OF_USERS = {*sys.stdlib_module_names, "torch", "numpy", "lightning", "pytorch_lightning"} - {"types"}
"""Packages whose objects hold no settings of a forward; a ``SimpleNamespace`` is of ``types``."""


def held_by(named: Iterable[tuple[str, nn.Module]]) -> list[tuple[str, Any]]:
    """Whatever has a reader and is reached from attributes of modules, each once, with its name.

    Args:
        named: modules with their paths.
    """
    modules = list(named)
    seen = {id(m) for _, m in modules}
    return [found for path, m in modules for name, value in vars(m).items() if name not in OF_TORCH
            for found in _walk(f"{path}.{name}".lstrip("."), value, _DEPTH, seen)]  # fmt: skip


def places(named: Iterable[tuple[str, nn.Module]]) -> list[Any]:
    """The attributes of modules and of objects that they hold, and the lists and dicts: wherever a value may be put."""
    modules = list(named)
    held = (vars(v) if is_object(v) else v for _, v in held_by(modules))
    return [*(vars(m) for _, m in modules), *(v for v in held if isinstance(v, (dict, list)))]


def entries(place: Any) -> Iterable[tuple[Any, Any]]:
    """Names, keys or positions of a place, and what is there."""
    return place.items() if isinstance(place, dict) else enumerate(place)


def _walk(path: str, value: Any, depth: int, seen: set[int]) -> Iterator[tuple[str, Any]]:
    if not depth or id(value) in seen:
        return
    reader = reader_of(value)
    inner = reader(value) if reader else _through(value)
    if len(inner) > _MANY:
        return
    if reader:
        seen.add(id(value))
        yield path, value
    for item in inner:
        yield from _walk(path, item, depth - 1, seen)


def _through(value: Any) -> tuple[Any, ...]:
    """What is reached by way of a value that does not change itself."""
    if isinstance(value, tuple):
        return value
    if isinstance(value, MethodType):
        return (value.__self__,)
    return (value.func, *value.args, *value.keywords.values()) if isinstance(value, partial) else ()


def reader_of(value: Any) -> Callable[[Any], tuple[Any, ...]] | None:
    """Gives all that a list, dict, small array or object holds; None for any other value."""
    if isinstance(value, (list, set, deque)):
        return tuple
    if isinstance(value, dict):
        return _keys_and_values
    if isinstance(value, np.ndarray):
        return _bytes if value.size <= _MANY else None
    return _attributes if is_object(value) else None


def is_object(value: Any) -> bool:
    """Of a class of the user's own, with attributes."""
    kind = type(value)
    if isinstance(value, (nn.Module, type)) or kind.__module__.partition(".")[0] in _NOT_OF_USERS:
        return False
    return isinstance(getattr(value, "__dict__", None), dict)


def _keys_and_values(held: dict[Any, Any]) -> tuple[Any, ...]:
    return (*held, *held.values())


def _attributes(held: Any) -> tuple[Any, ...]:
    return _keys_and_values(vars(held))


def _bytes(held: np.ndarray[Any, Any]) -> tuple[bytes]:
    return (repr((held.shape, held.dtype)).encode() + held.tobytes(),)
