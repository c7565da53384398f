"""What the code of a forward mentions: globals, attributes of classes and of objects, and what functions close over.

A capture bakes in the values that it finds there. Which code will run is not known, so an attribute counts in every class, module
and object at hand once any code at hand mentions its name. Names that code puts together are not seen.
"""

from __future__ import annotations

import dis
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, MutableMapping
from functools import cached_property, lru_cache, partial, partialmethod, singledispatchmethod
from operator import itemgetter
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any, NamedTuple

_NOT_OF_USERS = frozenset({*sys.stdlib_module_names, "torch", "numpy", "lightning", "pytorch_lightning", "fxcheck"})
"""Packages whose code and objects hold no settings of a forward."""
_OF_MODELS = frozenset({"torchvision", "timm", "transformers", "diffusers", "accelerate", "peft"})
"""Libraries of models: what their objects hold counts, but not their globals and classes, which nobody changes, and are many."""
_NOT_AT_HOME = _NOT_OF_USERS | _OF_MODELS
CACHED = type(lru_cache(len))
"""Of functions that remember what they have returned."""
_CONSTRUCTION = ("__new__", "__init__", "__post_init__")
_NOT_RUN = frozenset({*_CONSTRUCTION, "__init_subclass__", "__repr__", "__str__", "__del__", "__getstate__", "__setstate__",
                      "__reduce__", "__reduce_ex__", "__copy__", "__deepcopy__"})  # fmt: skip
"""Methods that no forward calls of an object that is there, or that change nothing."""
_WHOLE = frozenset({"__dict__", "vars", "asdict", "astuple"})
"""Code that mentions these may read any attribute."""
_AROUND_FUNCTIONS: dict[type, str] = {
    property: "fget", cached_property: "func", staticmethod: "__func__", classmethod: "__func__",
    CACHED: "__wrapped__", partialmethod: "func", singledispatchmethod: "func",
}  # fmt: skip
"""Where what stands for a function holds it."""


def is_of_user(module: str | None) -> bool:
    """Whether a class or function of that module may hold settings of a forward."""
    return _package(module) not in _NOT_OF_USERS


def _package(module: Any) -> str:
    """Of what ``__module__`` says, which a class may have made anything of."""
    return module.partition(".")[0] if isinstance(module, str) else ""


@lru_cache(maxsize=1024)
def _is_installed(package: str) -> bool:
    """Whether it was installed as a library is, so that another project's code is in it."""
    held = sys.modules.get(package)
    places = [getattr(held, "__file__", None) or "", *map(str, getattr(held, "__path__", ()))]
    return any(folder in Path(place).parts for place in places for folder in ("site-packages", "dist-packages"))


class Mentions(NamedTuple):
    """Names in a function and in those that it defines."""

    globals: frozenset[str]
    attributes: frozenset[str]
    imports: frozenset[str]


@lru_cache(maxsize=4096)
def mentions_of(code: CodeType) -> Mentions:
    """What code mentions; words count as attributes, as ``getattr`` takes them."""
    names: tuple[set[str], set[str], set[str]] = (set(), {*_words(code.co_consts)}, set())
    for step in dis.get_instructions(code):
        if "GLOBAL" in step.opname or step.opname == "LOAD_NAME":
            names[0].add(step.argval)
        elif step.opname == "IMPORT_NAME":
            names[2].add(step.argval)
        elif any(kind in step.opname for kind in ("ATTR", "METHOD", "IMPORT_FROM")):
            names[1].add(step.argval)
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            for mine, more in zip(names, mentions_of(inner), strict=True):
                mine |= more
    return Mentions(*(frozenset(n for n in found if isinstance(n, str)) for found in names))


def _words(constants: Iterable[Any]) -> Iterator[str]:
    for value in constants:
        if isinstance(value, str):
            yield from filter(str.isidentifier, value.split("."))
        elif isinstance(value, (tuple, frozenset)):
            yield from _words(value)


class Scope(MutableMapping[str, Any]):
    """Names that code mentions, and the values that they have at present.

    Args:
        space: where they are.
        names: those that are there.
        wanted: those that code mentions.
    """

    def __init__(self, space: Space, names: Iterable[str], wanted: Collection[str]) -> None:
        self.where, self.namespace, self.owner = space.where, space.namespace, space.owner
        self.names = tuple(names)
        self._space, self._wanted = space, wanted
        self.reader: Callable[[Any], tuple[Any, ...]] = itemgetter(*self.read_names) if self.names else _nothing
        """Of the namespace; a KeyError is a name that is gone."""

    @property
    def read_names(self) -> tuple[str, ...]:
        """Those whose values ``reader`` gives: the first one twice, so that it is always a tuple."""
        return (*self.names[:1], *self.names)

    def read_now(self) -> tuple[Any, ...]:
        """The values of ``read_names``.

        Raises:
            KeyError: a name is gone.
        """
        return self.reader(self.namespace)

    def restore(self, before: Mapping[str, Any]) -> None:
        """Give names the values that they had, and take away those that were not there; modules that were imported stay."""
        for name in [n for n in self._wanted if n in self.namespace]:
            now = self.namespace[name]
            if name not in before:
                if not isinstance(now, ModuleType):
                    self._space.drop(name)
            elif now is not before[name]:
                self._space.put(name, before[name])

    def __getitem__(self, name: str) -> Any:
        return self.namespace[name]

    def __setitem__(self, name: str, value: Any) -> None:
        self._space.put(name, value)

    def __delitem__(self, name: str) -> None:
        self._space.drop(name)

    def __iter__(self) -> Iterator[str]:
        """Those that are there now, new ones too."""
        return (name for name in self._wanted if name in self.namespace)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _nothing(_: Any) -> tuple[Any, ...]:
    return ()


class _Cells(Mapping[str, Any]):
    """What a function closes over; its cells are filled and emptied by whoever shares them."""

    def __init__(self, function: FunctionType) -> None:
        self._cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))

    def __getitem__(self, name: str) -> Any:
        try:
            return self._cells[name].cell_contents
        except ValueError:
            raise KeyError(name) from None

    def __setitem__(self, name: str, value: Any) -> None:
        self._cells[name].cell_contents = value

    def __delitem__(self, name: str) -> None:
        del self._cells[name].cell_contents

    def __contains__(self, name: object) -> bool:
        return name in self._cells and _is_filled(self._cells[name])

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._cells if name in self)

    def __len__(self) -> int:
        return sum(map(_is_filled, self._cells.values()))


def _is_filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True


class Space(NamedTuple):
    """A namespace that code reads."""

    where: str
    """For readers."""
    owner: Any
    """Whose it is."""
    namespace: Mapping[str, Any]
    put: Callable[[str, Any], None]
    drop: Callable[[str], None]
    names: set[str] | None = None
    """Those that count; None for the attributes that any code mentions."""

    @classmethod
    def of(cls, where: str, owner: Any, namespace: Any, names: set[str] | None = None) -> Space:
        """Of something like a dict."""
        return cls(where, owner, namespace, namespace.__setitem__, namespace.__delitem__, names)


class Code:
    """The code at hand, and where it reads.

    Libraries that none of the model's own classes and functions comes from, as one that logs, are not looked into: they have much
    state, of which a forward computes nothing.

    Args:
        homes: modules of Python in which those classes and functions are.
    """

    def __init__(self, homes: Iterable[str | None]) -> None:
        self._homes = frozenset(map(_package, homes))
        self._attributes = {"forward", "__call__"}
        self._spaces: dict[int, Space] = {}
        self._functions: dict[int, FunctionType] = {}
        self._told: set[tuple[int, str]] = set()
        self._defaults: list[tuple[str, Any]] = []

    def meet(self, value: Any) -> None:
        """Take in a function or a class, or the class of any other value, and what they read.

        Args:
            value: of a module of Python, the attributes that code mentions.
        """
        if isinstance(value, FunctionType):
            self._meet_function(value)
        elif isinstance(value, type):
            self._meet_class(value, _CONSTRUCTION)
        elif type(value) in _AROUND_FUNCTIONS:
            self.meet(getattr(value, _AROUND_FUNCTIONS[type(value)]))
        elif isinstance(value, ModuleType):
            if self.is_at_home(value.__name__):
                self._look_in(Space.of(f"module {value.__name__}", value, vars(value)))
        else:
            self._meet_class(type(value), ("forward",))

    def is_at_home(self, module: str | None) -> bool:
        """Whether code of that module, and what objects of its classes hold, counts."""
        package = _package(module)
        return package not in _NOT_AT_HOME and (package in self._homes or not _is_installed(package))

    def meet_attributes(self, value: Any) -> None:
        """Take in an object of which only those attributes count that code mentions."""
        self.meet(value)
        self._look_in(Space.of(f"a {type(value).__qualname__}", value, vars(value)))

    def _meet_function(self, function: FunctionType) -> None:
        space, name = function.__globals__, function.__globals__.get("__name__")
        if id(function) in self._functions or not (self.is_at_home(function.__module__) or self.is_at_home(name)):
            return
        cells, closed = _Cells(function), {*function.__code__.co_freevars} - {"__class__"}
        self._functions[id(function)] = function
        if closed:
            self._look_in(Space.of(f"the closure of {function.__qualname__}", function, cells, closed))
        if vars(function):
            self._look_in(Space.of(function.__qualname__, vars(function), vars(function)))
        defaults = (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values())
        self._defaults += [(f"a default of {function.__qualname__}", v) for v in defaults]
        if self.is_at_home(name):
            mentions = mentions_of(function.__code__)
            self._look_in(Space.of(f"the globals of {name}", space, space, set()))
            names = self._spaces[id(space)].names
            assert names is not None
            names |= mentions.globals | (mentions.attributes if "globals" in mentions.globals else set())
            self._attributes |= mentions.attributes | (mentions.globals & _WHOLE)
            for module in _imported(mentions.imports, str(space.get("__package__") or "")):
                self.meet(module)

    def _meet_class(self, cls: type, run: tuple[str, ...]) -> None:
        for base in cls.__mro__ if self.is_at_home(cls.__module__) else ():
            if self.is_at_home(base.__module__):
                put, drop = partial(setattr, base), partial(delattr, base)
                self._look_in(Space(f"class {base.__qualname__}", base, vars(base), put, drop))
                for name, method in vars(base).items():
                    if isinstance(method, FunctionType) and (name in run or (name.startswith("__") and name not in _NOT_RUN)):
                        self._meet_function(method)

    def _look_in(self, space: Space) -> None:
        self._spaces.setdefault(id(space.owner), space)

    def scopes(self) -> list[Scope]:
        """Wherever code reads, or would if there were something."""
        return [Scope(space, _both(wanted, space.namespace), wanted) for space, wanted in self._wanted()]

    def news(self) -> list[tuple[str, Any]]:
        """What has not been told before of the values there, each with its place."""
        found, self._defaults = self._defaults, []
        for space, wanted in self._wanted():
            for name in _both(wanted, space.namespace):
                if (id(space.owner), name) not in self._told:
                    self._told.add((id(space.owner), name))
                    found.append((f"{name} in {space.where}", space.namespace[name]))
        return found

    def _wanted(self) -> Iterator[tuple[Space, Collection[str]]]:
        reads_all = not self._attributes.isdisjoint(_WHOLE)
        for space in [*self._spaces.values()]:
            is_object = space.names is None and not isinstance(space.owner, (type, ModuleType, dict))
            every = {*space.namespace} if is_object and reads_all else set()
            wanted = self._attributes if space.names is None else space.names
            yield space, wanted | every if every else wanted


def _both(wanted: Collection[str], namespace: Mapping[str, Any]) -> list[str]:
    """What is wanted and there; either may be large."""
    few, many = (wanted, namespace) if len(wanted) < len(namespace) else (namespace, wanted)
    return sorted(name for name in few if name in many)


def _imported(names: Iterable[str], package: str) -> Iterator[ModuleType]:
    """Modules that are imported under these names by code in a package, relative ones too."""
    parts = package.split(".") if package else []
    parents = [".".join(parts[:n]) for n in range(len(parts), 0, -1)]
    for name in sorted(names):
        for full in (name, *(f"{parent}.{name}".rstrip(".") for parent in parents)):
            if isinstance(sys.modules.get(full), ModuleType):
                yield sys.modules[full]
