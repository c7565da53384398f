"""What a fault is, how it is planted, and the list of all."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any
from unittest.mock import patch

Wrong = Callable[[Any], Any]
"""From the right function (or property) to the wrong one."""


@dataclass(frozen=True)
class Fault:
    """One wrong rule."""

    name: str
    what: str
    section: str
    """Of the theory: the rule that is broken."""
    target: str
    """``module:qualified.name`` of what is replaced."""
    wrong: Wrong
    killer: str
    """The pytest node that must fail while the fault is in force."""

    @contextmanager
    def planted(self) -> Iterator[None]:
        """The fault, in force in this process."""
        owner, name, right = found(self.target)
        wrong = self.wrong(right)
        with ExitStack() as stack:
            stack.enter_context(patch.object(owner, name, wrong))
            if inspect.isfunction(right):
                for holder in _holders(right):
                    stack.enter_context(patch.dict(holder, {k: wrong for k, v in holder.items() if v is right}))
            yield


FAULTS: list[Fault] = []


def fault(section: str, target: str, killer: str) -> Callable[[Wrong], Wrong]:
    """Register a function from right to wrong; its name and docstring are the fault's."""

    def register(wrong: Wrong) -> Wrong:
        what = " ".join((wrong.__doc__ or "").split())
        FAULTS.append(Fault(wrong.__name__.replace("_", "-"), what, section, f"fxcheck.{target}", wrong, killer))
        return wrong

    return register


def found(target: str) -> tuple[Any, str, Any]:
    """(owner, name, value) of ``module:qualified.name``, once all of fxcheck is imported."""
    _import_everything()
    where, _, path = target.partition(":")
    owner: Any = importlib.import_module(where)
    *outer, name = path.split(".")
    for part in outer:
        owner = getattr(owner, part)
    return owner, name, inspect.getattr_static(owner, name)


@cache
def _import_everything() -> None:
    import fxcheck

    for module in pkgutil.walk_packages(fxcheck.__path__, "fxcheck."):
        # The integrations need libraries of their own, and hold none of the functions.
        if not module.name.endswith("__main__") and not module.name.startswith("fxcheck.integrations"):
            importlib.import_module(module.name)


def _holders(right: Any) -> list[dict[Any, Any]]:
    """Namespaces and module-level tables of fxcheck that hold the function."""
    spaces = [vars(m) for n, m in list(sys.modules.items()) if n.split(".")[0] == "fxcheck"]
    tables = [v for space in spaces for n, v in space.items() if isinstance(v, dict) and not n.startswith("__")]
    return [held for held in (*spaces, *tables) if any(v is right for v in list(held.values()))]


# Beginnings of the pytest nodes that must notice a fault -------------------------------------------

TRAPS = "tests/runtime/test_traps_at_run_time.py::test_a_wrong_gradient_is_not_certified"
ATTACKS = "tests/runtime/test_traps_at_run_time.py::test_a_wrong_gradient_found_by_attack_is_not_certified"
ZOO = "tests/zoo/test_traps.py::test_the_verdict_of_a_trap"
VERDICTS = "tests/zoo/test_verdicts.py::test_zoo_model_gets_a_verdict_that_the_theory_permits"
ROWS = "tests/runtime/test_rows.py::"
STEPS = "tests/runtime/test_steps.py::"
NAMED = "tests/soundness/test_faults_named.py::"
