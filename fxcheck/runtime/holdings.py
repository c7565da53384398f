"""What lists, dicts, objects and code hold that a model leads to, and whether it is the same."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from operator import call, is_
from typing import Any

import torch
from torch import nn

from fxcheck.capture.held import Reader, readers_of
from fxcheck.capture.mentioned import Scope


class Holdings:
    """What is held at one moment.

    Args:
        modules: all modules of a model.
    """

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        self.holders = readers_of(modules)
        # Side by side, so that the loops of C read them.
        self.readers, self.places, self.owners = [], [], []
        for reader, place, owner in map(_apart, self.holders):
            self.readers.append(reader)
            self.places.append(place)
            self.owners.append(owner)
        self.kinds = [*map(type, self.owners)]
        self.namespaces = [v.namespace for _, v in self.holders if isinstance(v, Scope)]
        self.sizes = [*map(len, self.namespaces)]
        held = self._held()
        values = [*chain.from_iterable(held)]
        self.identity: Callable[[object], object] = _identity if bytes in map(type, values) else id
        self.lengths, self.identities = [*map(len, held)], [*map(self.identity, values)]
        self.alive = [v for v in values if not issubclass(type(v), torch.Tensor)]  # so that identities tell

    def are_the_same(self) -> bool:
        """Whether each holder is of the same kind and holds the same objects.

        Raises:
            KeyError: a name is gone, and another is there.
        """
        if not self.holders:
            return True
        if [*map(len, self.namespaces)] != self.sizes:  # a name may be there now that code asks for
            return False
        if not all(map(is_, map(type, self.owners), self.kinds)):
            return False
        held = self._held()
        return [*map(len, held)] == self.lengths and [*map(self.identity, chain.from_iterable(held))] == self.identities

    def marked(self, mark: Callable[[object], object]) -> list[tuple[object, ...]]:
        """For each holder its kind, the names of which that knows, and a mark of each value there."""
        return [(kind, v.names if isinstance(v, Scope) else (), *map(mark, read(v)))
                for kind, (read, v) in zip(self.kinds, self.holders, strict=True)]  # fmt: skip

    def what_differs(self, now: Holdings) -> Iterator[str]:
        """Names that code mentions, and kinds of holders, whose values are other objects in later holdings."""
        before, after = iter(self.identities), iter(now.identities)
        for (_, holder), length, new_length in zip(now.holders, self.lengths, now.lengths, strict=False):
            then, held = [*islice(before, length)], [*islice(after, new_length)]
            names = holder.read_names if isinstance(holder, Scope) else ()
            if names:
                yield from (f"{n} in {holder.where}" for n, a, b in zip(names, then, held, strict=False) if a != b)
            elif then != held:
                yield f"what a {type(holder).__name__} holds"

    def _held(self) -> list[tuple[object, ...]]:
        return [*map(call, self.readers, self.places)]


def _apart(held: tuple[Reader, Any]) -> tuple[Reader, Any, Any]:
    """How to read it, where, and whose it is."""
    reader, holder = held
    return (holder.reader, holder.namespace, holder.owner) if isinstance(holder, Scope) else (reader, holder, holder)


def _identity(value: object) -> object:
    """What tells a value apart from any other one; the bytes of an array are new ones each time."""
    return value if type(value) is bytes else id(value)
