"""From the text of a TARGET to a module: files, dotted names, archives (contract.md)."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram

from fxcheck.capture.archive import read_archive
from fxcheck.capture.origin import user_line_of
from fxcheck.errors import TargetError

_FACTORIES = ("model", "get_model", "build_model")


@dataclass(frozen=True)
class Loaded:
    """A model ready for capture."""

    target: str
    module: nn.Module | None
    program: ExportedProgram | None
    """Set instead of ``module`` for a .pt2 archive."""
    example_inputs: Any = None
    """What the file calls ``example_inputs``, evaluated; None when it has none."""


def load(
    target: str, arguments: Mapping[str, Any] | None = None, *, meta: bool = False, allow_pickle: bool = False
) -> Loaded:
    """Find and build the model that a TARGET names.

    Args:
        target: ``path/model.py``, ``path/model.py:attribute``, ``package.module:attribute`` or ``archive.pt2``.
        arguments: keyword arguments for a class or factory.
        meta: run the constructor on the meta device.
        allow_pickle: unpickle objects that an archive carries.

    Returns:
        The model, or the exported program of an archive.

    Raises:
        TargetError: nothing, too much, or something that is not a model was found; the message lists it.
        CaptureError: an archive that cannot be read.
    """
    arguments = dict(arguments or {})
    if target.endswith(".pt2"):
        return Loaded(target, None, read_archive(target, allow_pickle))
    where, _, attribute = target.rpartition(":") if ":" in target else (target, "", "")
    with _at_home(where):
        namespace = _namespace(target, where, attribute)
        name, value = (attribute, _attribute(namespace, where, attribute)) if attribute else _choose(namespace, where)
        module = _build(value, f"{where}:{name}", arguments, meta)
        return Loaded(target, module, None, _example_inputs(namespace, where))


def _namespace(target: str, where: str, attribute: str) -> ModuleType:
    if where.endswith(".py") or os.sep in where or Path(where).is_dir():
        return _import_file(where)
    if attribute:
        return _import_name(where)
    if Path(where).exists():
        hint = "point at model.py or package.module:attribute"
        raise TargetError(f"{where} is not a Python file or a .pt2 archive", hint=hint)
    raise TargetError(
        f"cannot tell what {target!r} is: no such file, and no package.module:attribute",
        hint="fxcheck analyze path/model.py, or fxcheck analyze package.module:attribute",
    )


def load_callable(text: str) -> Callable[..., Any]:
    """The function, or instance of a loss class, that ``package.module:attribute`` names (or ``file.py:attribute``).

    Raises:
        TargetError: it cannot be imported, or is not callable.
    """
    where, _, attribute = text.rpartition(":")
    if not where:
        raise TargetError(f"{text!r} is not package.module:attribute", hint="--loss torch.nn.functional:mse_loss")
    with _at_home(where):
        namespace = _import_file(where) if where.endswith(".py") else _import_name(where)
        value = _attribute(namespace, where, attribute)
        if isinstance(value, type):
            try:
                value = value()
            except Exception as error:
                raise _user_error(f"building {text}", error) from error
    if not callable(value):
        hint = "name a function or nn.Module"
        raise TargetError(f"{text} is a {type(value).__name__}, not a loss function", hint=hint)
    return value


# Finding ---------------------------------------------------------------------------------------


def _import_file(text: str) -> ModuleType:
    path = Path(text)
    if path.is_dir():
        raise TargetError(f"{text} is a directory", hint="name the file that defines the model")
    if not path.exists():
        raise TargetError(f"no such file: {text}", hint="check the path, relative to the current directory")
    name = f"_fxcheck_target_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise TargetError(f"{text} is not a Python file", hint="point at a file that ends in .py")
    module = importlib.util.module_from_spec(spec)
    previous = sys.modules.get(name)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        _restore(name, previous)
        raise _user_error(f"importing {text}", error) from error
    except SystemExit as error:
        _restore(name, previous)
        raise TargetError(f"importing {text} ended the program (exit status {error.code})",
                          hint="put the training loop under if __name__ == '__main__':") from error  # fmt: skip
    return module


def _restore(name: str, previous: ModuleType | None) -> None:
    if previous is None:
        sys.modules.pop(name, None)
    else:
        sys.modules[name] = previous


@contextlib.contextmanager
def _at_home(where: str) -> Iterator[None]:
    """Sibling imports work while a file is imported and its model built, as when Python runs the file.

    They are forgotten afterwards: the next target's folder may hold other modules of the same names.
    """
    folder = Path(where).resolve().parent if where.endswith(".py") else Path.cwd()
    known = set(sys.modules)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(str(folder))
        for name in set(sys.modules) - known if where.endswith(".py") else ():
            file = getattr(sys.modules[name], "__file__", None)
            if file and Path(file).parent.is_relative_to(folder) and "site-packages" not in file:
                del sys.modules[name]


def _import_name(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or name
        if name == missing or name.startswith(missing + "."):
            hint = f"install the package that provides {missing}, or check the spelling"
            raise TargetError(f"no module named {missing!r} is installed here", hint=hint) from error
        raise _user_error(f"importing {name}", error) from error
    except Exception as error:
        raise _user_error(f"importing {name}", error) from error


def _attribute(namespace: ModuleType, where: str, attribute: str) -> Any:
    value: Any = namespace
    for part in attribute.split("."):
        if not hasattr(value, part):
            found = ", ".join(_public_models(namespace)) or "nothing that looks like a model"
            raise TargetError(f"{where} has no attribute {attribute!r}; found {found}", hint=f"{where}:NAME")
        value = getattr(value, part)
    return value


def _choose(namespace: ModuleType, where: str) -> tuple[str, Any]:
    for name in _FACTORIES:
        if hasattr(namespace, name):
            return name, getattr(namespace, name)
    own = {n: v for n, v in vars(namespace).items() if not n.startswith("_")}
    instances = {n: v for n, v in own.items() if isinstance(v, nn.Module)}
    if len({id(v) for v in instances.values()}) == 1:
        return next(iter(instances.items()))
    if instances:
        hint = f"{where}:{next(iter(instances))}"
        raise TargetError(f"{where} has several models: {', '.join(instances)}", hint=hint)
    classes = {n: v for n, v in own.items() if _is_own_module_class(v, namespace)}
    buildable = {n: v for n, v in classes.items() if not _required(v)}
    if len(buildable) == 1:
        return next(iter(buildable.items()))
    if buildable:
        hint = f"{where}:{next(iter(buildable))}"
        raise TargetError(f"{where} has several model classes: {', '.join(buildable)}", hint=hint)
    if classes:
        name, cls = next(iter(classes.items()))
        needs = ", ".join(_required(cls))
        raise TargetError(f"{where} has no model ready to build: {name} needs {needs}",
                          hint=f"fxcheck analyze {where}:{name} --arg {_required(cls)[0]}=VALUE")  # fmt: skip
    found = ", ".join(list(own)[:8]) or "nothing public"
    raise TargetError(
        f"{where} defines no model; found {found}",
        hint="define model, get_model(), or one nn.Module class without required arguments",
    )


def _is_own_module_class(value: Any, namespace: ModuleType) -> bool:
    return isinstance(value, type) and issubclass(value, nn.Module) and value.__module__ == namespace.__name__


def _required(cls: Callable[..., Any]) -> list[str]:
    try:
        parameters = inspect.signature(cls).parameters.values()
    except (TypeError, ValueError):
        return []
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p.name for p in parameters if p.default is inspect.Parameter.empty and p.kind not in kinds]


def _public_models(namespace: ModuleType) -> list[str]:
    public = {n: v for n, v in vars(namespace).items() if not n.startswith("_")}
    classes = {n for n, v in public.items() if isinstance(v, type) and issubclass(v, nn.Module)}
    return [n for n, v in public.items() if n in classes or n in _FACTORIES or isinstance(v, nn.Module)][:12]


# Building --------------------------------------------------------------------------------------


def _build(value: Any, name: str, arguments: dict[str, Any], meta: bool) -> nn.Module:
    if isinstance(value, nn.Module):
        if arguments:
            hint = "drop --arg, or name the class"
            raise TargetError(f"{name} is an instance, so --arg has nothing to go to", hint=hint)
        return value
    if not callable(value):
        raise TargetError(f"{name} is a {type(value).__name__}, not a model, class or factory", hint="name the model")
    try:
        with torch.device("meta") if meta else contextlib.nullcontext():
            built = value(**arguments)
    except Exception as error:
        on_meta = " on the meta device" if meta else ""
        failure = _user_error(f"building {name}{on_meta}", error)
        if meta:
            failure.hint = "drop --meta: the constructor needs real tensors"
        raise failure from error
    if not isinstance(built, nn.Module):
        raise TargetError(f"{name} returned a {type(built).__name__}, not an nn.Module", hint="return the model itself")
    return built


def _example_inputs(namespace: ModuleType, where: str) -> Any:
    value = getattr(namespace, "example_inputs", None)
    if not callable(value):
        return value
    try:
        return value()
    except Exception as error:
        raise _user_error(f"calling example_inputs() of {where}", error) from error


def _user_error(doing: str, error: Exception) -> TargetError:
    frames = traceback.extract_tb(error.__traceback__)
    location, source = user_line_of(f for f in frames if "importlib" not in f.filename)
    if isinstance(error, SyntaxError) and error.filename:
        location, source = f"{os.path.basename(error.filename)}:{error.lineno}", (error.text or "").strip()
    place = f" at {location}" + (f" ({source})" if source else "") if location else ""
    message = str(error).strip().splitlines()[0] if str(error).strip() else ""
    hint = "make it run in plain Python first"
    return TargetError(f"{doing} raised {type(error).__name__}: {message}{place}", hint=hint)
