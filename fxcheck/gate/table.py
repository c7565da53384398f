"""A table of a TOML file, read key by key: wrong values and unknown keys are refused with what, where, wanted, try."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from fxcheck.errors import UsageError


class Table:
    """One table, and the path of keys that leads to it.

    Args:
        values: the parsed table.
        file: for messages.
        path: keys that lead to it, as ``tool.fxcheck.models[0]``; empty for the top of the file.

    Raises:
        UsageError: ``values`` is no table.
    """

    def __init__(self, values: Any, file: str, path: str) -> None:
        self.file, self.path = file, path
        if not isinstance(values, Mapping):
            raise UsageError(f"{file}: {path} is {_shown(values)}; wanted a table", hint=f"[{path}]")
        self.values = values

    def refuse_unknown(self, known: tuple[str, ...]) -> None:
        """Refuse keys that mean nothing, with the one that was probably meant.

        Raises:
            UsageError: there is one.
        """
        for key in self.values:
            if key not in known:
                close = get_close_matches(key, known, 1)
                meant = f"{key} = ... is probably {close[0]} = ..." if close else "remove it"
                raise UsageError(f"{self.file}: unknown key {self.key(key)!r}; known are {', '.join(known)}", hint=meant)

    def text(self, name: str, example: str) -> str | None:
        return self._typed(name, str, "text", f'{name} = "{example}"')

    def required_text(self, name: str, example: str) -> str:
        """Text that must be there and not be blank.

        Raises:
            UsageError: it is not.
        """
        found = self.text(name, example)
        if not (found or "").strip():
            raise UsageError(f"{self.file}: {self.path} has no {name}", hint=f'add {name} = "{example}"')
        return str(found)

    def choice(self, name: str, options: tuple[str, ...]) -> str | None:
        found = self.values.get(name)
        if found is not None and found not in options:
            close = get_close_matches(str(found), options, 1) or [options[0]]
            raise self.wrong(name, ", ".join(options[:-1]) + f" or {options[-1]}", f'{name} = "{close[0]}"')
        return found

    def flag(self, name: str) -> bool | None:
        return self._typed(name, bool, "true or false", f"{name} = true")

    def count(self, name: str) -> int | None:
        found = self._typed(name, int, "a whole number", f"{name} = 8")
        if isinstance(found, bool) or (found is not None and found < 1):
            raise self.wrong(name, "a whole number from 1", f"{name} = 8")
        return found

    def table(self, name: str) -> dict[str, Any]:
        return dict(self._typed(name, dict, "a table", f"{name} = {{depth = 18}}") or {})

    def tables(self, name: str, example: str) -> list[Table]:
        """The tables of an array of tables; none if the key is missing."""
        found = self._typed(name, list, "a list of tables", example) or []
        return [Table(item, self.file, f"{self.key(name)}[{i}]") for i, item in enumerate(found)]

    def key(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name

    def wrong(self, name: str, wanted: str, example: str) -> UsageError:
        """The refusal of a value: to be raised."""
        found = _shown(self.values[name])
        return UsageError(f"{self.file}: {self.key(name)} is {found}; wanted {wanted}", hint=example)

    def _typed(self, name: str, kind: type, wanted: str, example: str) -> Any:
        found = self.values.get(name)
        if found is not None and not isinstance(found, kind):
            raise self.wrong(name, wanted, example)
        return found


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
