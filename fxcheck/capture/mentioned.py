"""What the code of a forward mentions: globals, attributes of classes and of objects, and what functions close over.

A capture bakes in the values that it finds there. Which code will run is not known, so an attribute counts in every class, module
and object at hand once any code at hand mentions its name. Names that code puts together are not seen.
"""

from __future__ import annotations

import dis
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from functools import cached_property, lru_cache, partial
from operator import itemgetter
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any, NamedTuple

_NOT_OF_USERS = frozenset({*sys.stdlib_module_names, "torch", "numpy", "lightning", "pytorch_lightning", "fxcheck"})
"""Packages whose code and objects hold no settings of a forward."""
_CONSTRUCTION = ("__new__", "__init__", "__post_init__")
_NOT_RUN = frozenset({*_CONSTRUCTION, "__init_subclass__", "__repr__", "__str__", "__del__", "__getstate__", "__setstate__",
                      "__reduce__", "__reduce_ex__", "__copy__", "__deepcopy__"})  # fmt: skip
"""Methods that no forward calls of an object that is there, or that change nothing."""
_WHOLE = frozenset({"__dict__", "vars", "asdict"})
"""Code that mentions these may read any attribute."""
_AROUND_FUNCTIONS: dict[type, str] = {
    property: "fget", cached_property: "func", staticmethod: "__func__", classmethod: "__func__",
    type(lru_cache(len)): "__wrapped__",
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
    names: tuple[set[str], set[str], set[str]] = (set(), set(), set())
    for step in dis.get_instructions(code):
        if isinstance(step.argval, str) and step.argval.replace(".", "_").isidentifier():
            if "GLOBAL" in step.opname or step.opname == "LOAD_NAME":
                names[0].add(step.argval)
            elif step.opname in ("IMPORT_NAME", "LOAD_CONST") or "ATTR" in step.opname or "METHOD" in step.opname:
                names[2 if step.opname == "IMPORT_NAME" else 1].add(step.argval)
            elif step.opname == "IMPORT_FROM":
                names[1].add(step.argval)
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            for mine, more in zip(names, mentions_of(inner), strict=True):
                mine |= more
    return Mentions(*map(frozenset, names))


class Scope(MutableMapping[str, Any]):
    """Names that code mentions, and the values that they have at present.

    Args:
        where: the namespace, for readers.
        names: those mentioned, at least one.
        namespace: has them, and others.
        put: gives a name another value.
    """

    def __init__(self, where: str, names: Iterable[str], namespace: Mapping[str, Any], put: Callable[[str, Any], None]) -> None:
        self.where, self._names = where, tuple(names)
        self._namespace, self._put = namespace, put
        self._read = itemgetter(self._names[0], *self._names)

    @property
    def read_names(self) -> tuple[str, ...]:
        """Those of ``read_now``."""
        return self._names[0], *self._names

    def read_now(self) -> tuple[Any, ...]:
        """The values, the first one twice so that it is always a tuple.

        Raises:
            KeyError: a name is gone.
        """
        return self._read(self._namespace)  # type: ignore[no-any-return]

    def __getitem__(self, name: str) -> Any:
        return self._namespace[name]

    def __setitem__(self, name: str, value: Any) -> None:
        self._put(name, value)

    def __delitem__(self, name: str) -> None:
        raise TypeError(f"{name} stays in {self.where}")

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._names if name in self._namespace)

    def __len__(self) -> int:
        return sum(1 for _ in self)


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

    def __iter__(self) -> Iterator[str]:
        return iter(self._cells)

    def __len__(self) -> int:
        return len(self._cells)


class _Space(NamedTuple):
    where: str
    namespace: Mapping[str, Any]
    put: Callable[[str, Any], None]
    names: set[str] | None = None
    """Those that count; None for the attributes that any code mentions."""
    is_object: bool = False
    """All attributes count where code mentions that it reads them all."""


class Code:
    """The code at hand, and where it reads.

    Libraries that none of the model's own classes and functions comes from, as one that logs, are not looked into: they have much
    state, of which a forward computes nothing.

    Args:
        homes: modules of Python in which those classes and functions are.
    """

    def __init__(self, homes: Iterable[str | None]) -> None:
        self._homes = frozenset(map(_package, homes))
        self._attributes: set[str] = set()
        self._spaces: dict[int, _Space] = {}
        self._met: dict[int, Any] = {}
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
                self._look_in(value, _Space(f"module {value.__name__}", vars(value), vars(value).__setitem__))
        else:
            self._meet_class(type(value), ("forward",))

    def is_at_home(self, module: str | None) -> bool:
        """Whether code of that module, and what objects of its classes hold, counts."""
        package = _package(module)
        return package not in _NOT_OF_USERS and (package in self._homes or not _is_installed(package))

    def meet_attributes(self, value: Any) -> None:
        """Take in an object of which only those attributes count that code mentions."""
        self.meet(value)
        self._look_in(value, _Space(f"a {type(value).__qualname__}", vars(value), vars(value).__setitem__, is_object=True))

    def _meet_function(self, function: FunctionType) -> None:
        space, name = function.__globals__, function.__globals__.get("__name__")
        if id(function) in self._met or not (self.is_at_home(function.__module__) or self.is_at_home(name)):
            return
        cells = _Cells(function)
        self._look_in(function, _Space(f"the closure of {function.__qualname__}", cells, cells.__setitem__,
                                       set(cells) - {"__class__"}))  # fmt: skip
        self._look_in(vars(function), _Space(function.__qualname__, vars(function), vars(function).__setitem__))
        defaults = (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values())
        self._defaults += [(f"a default of {function.__qualname__}", v) for v in defaults]
        if self.is_at_home(name):
            mentions = mentions_of(function.__code__)
            self._look_in(space, _Space(f"the globals of {name}", space, space.__setitem__, set()))
            names = self._spaces[id(space)].names
            assert names is not None
            names |= mentions.globals | (mentions.attributes if "globals" in mentions.globals else set())
            self._attributes |= mentions.attributes | (mentions.globals & _WHOLE)
            for module in sorted(mentions.imports & sys.modules.keys()):
                self.meet(sys.modules[module])

    def _meet_class(self, cls: type, run: tuple[str, ...]) -> None:
        for base in cls.__mro__ if self.is_at_home(cls.__module__) else ():
            if self.is_at_home(base.__module__):
                self._look_in(base, _Space(f"class {base.__qualname__}", vars(base), partial(setattr, base)))
                for name, method in vars(base).items():
                    if isinstance(method, FunctionType) and (name in run or (name.startswith("__") and name not in _NOT_RUN)):
                        self._meet_function(method)

    def _look_in(self, owner: Any, space: _Space) -> None:
        if id(owner) not in self._met:
            self._met[id(owner)] = owner
            self._spaces[id(owner)] = space

    def scopes(self) -> list[Scope]:
        """Wherever code reads."""
        return [Scope(space.where, names, space.namespace, space.put) for _, space, names in self._read()]

    def news(self) -> list[tuple[str, Any]]:
        """What has not been told before of the values there, each with its place."""
        found, self._defaults = self._defaults, []
        for key, space, names in self._read():
            for name in names:
                if (key, name) not in self._told:
                    self._told.add((key, name))
                    found.append((f"{name} in {space.where}", space.namespace[name]))
        return found

    def _read(self) -> Iterator[tuple[int, _Space, list[str]]]:
        for key, space in [*self._spaces.items()]:
            wanted = self._attributes if space.names is None else space.names
            if space.is_object and not self._attributes.isdisjoint(_WHOLE):
                wanted = {*space.namespace}
            names = sorted(name for name in wanted if name in space.namespace)
            if names:
                yield key, space, names
