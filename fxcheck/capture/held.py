"""What attributes of modules hold besides tensors and modules: lists, dicts and objects, in which a forward may read a value."""

from __future__ import annotations

import threading
from argparse import Namespace
from collections import ChainMap, OrderedDict, UserDict, UserList, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from contextlib import suppress
from enum import Enum
from functools import partial
from itertools import chain
from types import BuiltinFunctionType, FunctionType, MemberDescriptorType, MethodType, ModuleType, SimpleNamespace
from typing import Any
from weakref import ProxyTypes, ReferenceType

import numpy as np
import torch
from torch import nn

from fxcheck.capture.mentioned import Code, Scope, is_of_user

_DEPTH = 8
_MANY, _MOST = 1000, 10_000
"""Larger ones, as a vocabulary, are not looked into, nor what comes after so many in all."""
OF_TORCH = frozenset(vars(nn.Module()))
"""Names of attributes that every module has."""
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
"""Those of them that hold a module's hooks."""
_FOR_USERS = (SimpleNamespace, Namespace, UserDict, UserList, threading.local)
HOOKS_OF_ALL = [vars(torch.nn.modules.module)[f"_global{kind}"] for kind in HOOKS]
"""Hooks that every module has."""
_NUMBERS_AND_WORDS = (int, float, bool, str, bytes, type(None))
_WRAPPERS = (UserDict, UserList, Enum)
"""Code reads what objects of these hold under other names than they do."""
_CONTAINERS = (list, dict, set, deque, np.ndarray)
Reader = Callable[[Any], tuple[Any, ...]]


def reached_from(named: Iterable[tuple[str, nn.Module]]) -> list[tuple[str, Any]]:
    """Whatever is reached from attributes of modules, those that no module has registered too, and from what their code and that
    of functions there mentions, each once, with its name; then ``Scope``s, in which code finds it.

    Args:
        named: modules with their paths.
    """
    return _Walk(list(named)).all()


class _Walk:
    """Goes from modules to what they hold, and from there to what code finds."""

    def __init__(self, modules: list[tuple[str, nn.Module]]) -> None:
        self.start = [(f"{path}.{name}".lstrip("."), value) for path, m in modules for name, value in _of_module(m)]
        self.start += [(f"a hook of {path}", v) for path, m in modules for kind in HOOKS for v in vars(m).get(kind, {}).values()]
        self.start += [("a hook of all modules", v) for hooks in HOOKS_OF_ALL for v in hooks.values()]
        self.found: list[tuple[str, Any]] = []
        self.entries = 0
        self.seen: dict[int, Any] = {id(m): m for _, m in modules}
        """By identity, which tells them apart while they live."""
        self.by_code: list[tuple[str, Any]] = []
        """What is looked at when attributes have been followed: of an object there, only what code mentions counts."""
        self.follows_code = False
        self.code = Code(chain(*(_homes_of(value) for _, value in chain(modules, self.start))))
        for _, m in modules:
            self.code.meet(m)

    def all(self) -> list[tuple[str, Any]]:
        level = self.start
        while level:
            for _ in range(_DEPTH):
                level = [*chain.from_iterable(self._held_by(path, value) for path, value in level)]
            level, self.by_code = [*self.by_code, *self.code.news()], []
            self.follows_code = True
        return [*self.found, *((scope.where, scope) for scope in self.code.scopes())]

    def _held_by(self, path: str, value: Any) -> Iterable[tuple[str, Any]]:
        kind = type(value)
        if kind in _NUMBERS_AND_WORDS or kind in ProxyTypes or str(kind.__module__).startswith("fxcheck."):
            return ()
        if id(value) in self.seen:
            return ()
        self.code.meet(value)
        if isinstance(value, (MethodType, ReferenceType)):
            behind = (value.__self__, value.__func__) if isinstance(value, MethodType) else (value(),)
            self.by_code += ((path, v) for v in behind)
            return ()
        if self.follows_code and is_object(value) and not (_slots(kind) or isinstance(value, _WRAPPERS)):
            self.seen[id(value)] = value
            counts = kind in _FOR_USERS or self.code.is_at_home(kind.__module__)
            if counts and self.entries + len(vars(value)) <= _MOST:
                self.entries += len(vars(value))
                self.code.meet_attributes(value)
            return ()
        held = _inside_or_none(value)
        self.seen[id(value)] = value
        if held is None or len(held) > _MANY * (2 if isinstance(value, Mapping) else 1) or self.entries + len(held) > _MOST:
            return ()
        self.entries += len(held)
        self.found.append((path, value))
        return ((path, v) for v in held)


def _homes_of(value: Any) -> Iterator[str | None]:
    """Where what a module holds to call it comes from."""
    if isinstance(value, (FunctionType, MethodType)):
        yield value.__module__
    elif isinstance(value, partial):
        yield from _homes_of(value.func)
    elif callable(value) and (isinstance(value, nn.Module) or is_object(value)):
        yield from (base.__module__ for base in type(value).__mro__)


def readers_of(modules: Iterable[nn.Module]) -> list[tuple[Reader, Any]]:
    """Whatever of that has a reader, with it."""
    return [(read, value) for _, value in reached_from(("", m) for m in modules) if (read := reader_of(value))]


def places(named: Iterable[tuple[str, nn.Module]]) -> list[Any]:
    """The attributes of modules and of objects that they hold, the containers, and scopes: wherever a value may be put."""
    modules = list(named)
    reached = reached_from(modules)
    held = (attributes_of(v) if is_object(v) else v for _, v in reached if reader_of(v))
    unregistered = modules_among(v for _, v in reached)
    return [*(vars(m) for m in chain((m for _, m in modules), unregistered)), *(v for v in held if not isinstance(v, np.ndarray))]


def modules_among(values: Iterable[Any]) -> list[nn.Module]:
    """Those that can be looked into: TorchScript's cannot."""
    return [v for v in values if isinstance(v, nn.Module) and not isinstance(v, torch.jit.ScriptModule)]


def entries(place: Any) -> Iterable[tuple[Any, Any]]:
    """Names, keys or positions of a place, and what is there; what a set holds is its own key."""
    if isinstance(place, set):
        return ((v, v) for v in place)
    return items_of(place) if isinstance(place, NAMED_PLACES) else enumerate(base_of(place).__iter__(place))


def base_of(container: Any) -> Any:
    """The class whose methods read and write a list, set, deque or dict past a class that somebody has made of it.

    Item access of such a class may do anything: one of transformers makes the activation of that name.
    """
    return next(base for base in (OrderedDict, dict, list, set, deque, Attributes) if isinstance(container, base))


def items_of(mapping: Any) -> Iterable[tuple[Any, Any]]:
    """Names or keys, and values."""
    return dict.items(mapping) if isinstance(mapping, dict) else mapping.items()


def storage_of(tensor: torch.Tensor) -> Any:
    """The same for all that share memory: export holds a parameter in a list as a detached one."""
    return tensor.untyped_storage()._cdata if tensor.layout is torch.strided else id(tensor)


def view_of(tensor: torch.Tensor) -> tuple[Any, ...]:
    """The same for all that are one view of one memory."""
    return (tensor.untyped_storage()._cdata, tensor.storage_offset(), tuple(tensor.shape), tensor.stride())


class Criterion(nn.Module):
    """Holds a loss that is no module, so that what it reads is found as what modules read."""

    def __init__(self, loss: Callable[..., Any]) -> None:
        super().__init__()
        self.loss = loss


def roots_of(model: nn.Module, loss: Callable[..., Any] | None) -> list[nn.Module]:
    """A model, and its loss as a module."""
    return [model] if loss is None else [model, loss if isinstance(loss, nn.Module) else Criterion(loss)]


def _of_module(module: nn.Module) -> Iterator[tuple[str, Any]]:
    return ((n, v) for n, v in vars(module).items() if n not in OF_TORCH and type(v) not in ProxyTypes)


def _inside_or_none(value: Any) -> tuple[Any, ...] | None:
    """What a value holds; None for one that cannot be looked into, as a proxy that says it is of another class."""
    try:
        return _inside(value)
    except Exception:  # whatever the user's class raises
        return None


def _inside(value: Any) -> tuple[Any, ...]:
    if isinstance(value, nn.Module) and not isinstance(value, torch.jit.ScriptModule):
        return (*value._modules.values(), *(v for _, v in _of_module(value)))
    reader = reader_of(value)
    return (*(reader(value) if reader else ()), *through(value))


def through(value: Any) -> tuple[Any, ...]:
    """What is reached by way of a value that does not change itself."""
    if isinstance(value, (tuple, frozenset)):
        return tuple(value)
    if isinstance(value, ChainMap):
        return tuple(value.maps)
    if isinstance(value, MethodType) or (isinstance(value, BuiltinFunctionType) and not isinstance(value.__self__, ModuleType)):
        return (value.__self__,)
    return (value.func, *value.args, value.keywords, *value.keywords.values()) if isinstance(value, partial) else ()


def reader_of(value: Any) -> Reader | None:
    """Gives all that a list, dict, small array or object holds; None for any other value."""
    if isinstance(value, Scope):
        return Scope.read_now
    if isinstance(value, (list, set, deque)):
        return tuple if type(value) in _CONTAINERS else _with_attributes
    if isinstance(value, dict):
        return _keys_and_values if type(value) in _CONTAINERS else _with_attributes
    if isinstance(value, np.ndarray):
        return _bytes if value.size <= _MANY else None
    if not is_object(value):
        return None
    return _in_slots if _slots(type(value)) else _attributes


def is_object(value: Any) -> bool:
    """Of a class of the user's own, with attributes that can be read."""
    kind = type(value)
    if isinstance(value, (nn.Module, type, Scope, FunctionType, ModuleType, *_CONTAINERS)):
        return False
    if not is_of_user(kind.__module__) and kind not in _FOR_USERS:
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


NAMED_PLACES = (dict, Attributes, Scope)
"""Where what is put has a name or key."""


def _slots(kind: type) -> tuple[str, ...]:
    """Names of slots as ``setattr`` knows them."""
    named = (item for c in kind.__mro__ if "__slots__" in vars(c) for item in vars(c).items())
    return tuple(name for name, slot in named if isinstance(slot, MemberDescriptorType))


def _keys_and_values(held: Any) -> tuple[Any, ...]:
    return (*dict.keys(held), *dict.values(held))


def _with_attributes(held: Any) -> tuple[Any, ...]:
    """Of a container that somebody has made a class of."""
    own = _keys_and_values(getattr(held, "__dict__", {}))
    return (*(_keys_and_values(held) if isinstance(held, dict) else base_of(held).__iter__(held)), *own)


def _attributes(held: Any) -> tuple[Any, ...]:
    return _keys_and_values(vars(held))


def _in_slots(held: Any) -> tuple[Any, ...]:
    return _keys_and_values(Attributes(held).now())


def _bytes(held: np.ndarray[Any, Any]) -> tuple[bytes]:
    return (repr((held.shape, held.dtype)).encode() + held.tobytes(),)
