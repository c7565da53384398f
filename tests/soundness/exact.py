"""All gradients of the pieces that meet at a point, in rational arithmetic, for programs of rational operations.

Every kink that is touched and every tie is a decision; branches whose decisions no direction realises are cut. A branch
with an open cone of directions gives a limit of gradients; one that only a curve might reach is kept as possible.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_iter, tree_map

from tests.soundness.exact_cone import FINGERPRINTS, HEAD, Cone, Exhausted, Work
from tests.soundness.exact_ops import Context, Jet, Unknown, exact
from tests.soundness.exact_table import operation
from tests.soundness.program import _LOW, Call, Declined, Program, bind, draws_again, record

_CLOSE = 1e-9
"""A value known in floats only and nearer to a kink than this is not decided."""


@dataclass
class Pieces:
    """The gradients of the pieces around a point.

    Attributes:
        proved: (K, P) limits of gradients.
        possible: (K, P) gradients of pieces that only curves might reach.
        complete: whether there is no other piece.
        rounded: whether some computed touch, tie or side is not the exact one.
        cones: the decisions of the possible pieces.
    """

    proved: np.ndarray
    possible: np.ndarray
    complete: bool = True
    rounded: bool = False
    cones: tuple[Cone, ...] = ()

    def curves(self, random: np.random.Generator, size: float, each: int = 40, most: int = 480) -> Iterator[np.ndarray]:
        """Points of curves w + t v + t^2 u into the possible pieces.

        Args:
            random: of v and u.
            size: t.
            each: points for each piece.
            most: points in all.

        Returns:
            Offsets; v lies in the closed cone of the piece's decisions.
        """
        left = most
        for cone in self.cones:
            for v in islice(cone.edges(random), min(each, left)):
                left -= 1
                yield size * v + size**2 * 10.0 ** random.uniform(-1, 1) * random.standard_normal(len(v))

    def promote(self, gradient: np.ndarray, tolerance: float) -> None:
        """Count as proved the possible piece whose gradient was met on a curve."""
        apart = np.abs(self.possible - gradient).max(axis=1, initial=0.0)
        met = apart <= min(tolerance, apart.min(initial=np.inf))
        self.proved, self.possible = np.concatenate([self.proved, self.possible[met]]), self.possible[~met]


class _Dead(Exception):
    """No point nearby takes this branch."""


@dataclass(frozen=True)
class _Branch:
    at: int
    env: dict[int, Any]
    told: tuple[int, ...]
    cone: Cone


def pieces_of(
    parameters: Sequence[Tensor], value: Callable[[], Tensor], *, coordinates: int = 80, branches: int = 1500,
    work: float = 1.2e7,
) -> Pieces | None:  # fmt: skip
    """Enumerate the pieces around the current parameters.

    Args:
        parameters: the coordinates.
        value: computes the scalar.
        coordinates: at most so many are followed.
        branches: where to stop, then incomplete.
        work: likewise, in exact numbers computed (``Work``), so that the answer does not depend on the machine.

    Returns:
        The pieces; None when the program has other operations or too many coordinates.
    """
    if sum(p.numel() for p in parameters) > coordinates:
        return None
    try:
        program = record(parameters, value)
        program.refuse_overwritten_constants()
        return _Explorer(program, Work(work)).pieces(branches)
    except (Declined, OverflowError):
        return None


class _Explorer:
    """Interprets a program once for each branch, from the call at which it leaves another."""

    def __init__(self, program: Program, work: Work) -> None:
        self.program, self.work = program, work
        self.count = sum(p.numel() for p in program.parameters)
        self.channels = HEAD + self.count
        self.caches: list[dict[Any, Any]] = [{} for _ in program.calls]
        self.rounded = False
        self.stack = [_Branch(0, self._root(), (), Cone.whole_space(self.count, work))]
        self.branch, self.position, self.told = self.stack[0], 0, []
        self.storages: dict[int, set[int]] = {}
        for call in program.calls:
            for t in tree_iter((call.args, call.kwargs, call.result)):
                if isinstance(t, Tensor):
                    self.storages.setdefault(t.untyped_storage()._cdata, set()).add(id(t))

    def _root(self) -> dict[int, Any]:
        random, env, start = np.random.default_rng(7), {}, HEAD
        for p in self.program.parameters:
            data = np.zeros((self.channels, p.numel()), dtype=object)
            data[0] = exact(p.detach().double().numpy().reshape(-1))
            for f in range(FINGERPRINTS):
                data[1 + f] = [int(x) for x in random.integers(-(10**6), 10**6, p.numel())]
            data[start + np.arange(p.numel()), np.arange(p.numel())] = 1
            start += p.numel()
            env[id(p)] = Jet(data.reshape(self.channels, *p.shape))
        return env

    def pieces(self, branches: int) -> Pieces:
        """Run all branches, or as many as the work allows."""
        found: dict[bool, set[tuple[float, ...]]] = {True: set(), False: set()}
        done, cones = 0, []
        while self.stack and done < branches:
            done += 1
            branch = self.stack.pop()
            try:
                gradient = self._run(branch)
            except _Dead:
                continue
            except Exhausted:
                self.stack.append(branch)
                break
            cones += [self.cone] if not self.cone.proved and gradient not in found[False] else []
            found[self.cone.proved].add(gradient)
        proved, possible = (np.array(sorted(found[k])).reshape(-1, self.count) for k in (True, False))
        return Pieces(proved, possible, not self.stack, self.rounded, tuple(cones))

    def _run(self, branch: _Branch) -> tuple[float, ...]:
        env, self.cone, told = dict(branch.env), branch.cone, branch.told
        for at in range(branch.at, len(self.program.calls)):
            call = self.program.calls[at]
            self.at, self.told, self.position, told = at, list(told), 0, ()
            if any(id(t) in env for t in call.tensors()):
                self.start = dict(env)
                self._step(call, env)
        out = env.get(id(self.program.output))
        if not isinstance(out, Jet):
            return (0.0,) * self.count
        return tuple(float(x) for x in out.flat[HEAD:, 0])

    def _step(self, call: Call, env: dict[int, Any]) -> None:
        if draws_again(call, env):
            bind(env, call.result, call.drawn.double())
            return
        overridden = any(isinstance(env.get(id(t)), Tensor) for t in call.tensors())
        args, kwargs = tree_map(lambda a: _bound(a, env), (call.args, call.kwargs))
        values = list(tree_iter((args, kwargs)))
        if any(isinstance(v, Unknown) for v in values):
            if any(isinstance(v, Jet) for v in values):
                raise Declined("indices of a max are used")
            bind(env, call.result, tree_map(lambda _: Unknown(), call.result))
            return
        if call.mutates and (call.name == "copy_" or self._has_views(call.args[0], env)):
            raise Declined("a tensor with views is overwritten")
        if not any(isinstance(v, Jet) for v in values):
            if call.mutates:  # branches share constants
                args = (args[0].clone(), *args[1:])
            bind(env, call.result, call.function(*args, **kwargs))
            return
        ctx = Context(call, self.channels, self._sign, None if overridden else self.caches[self.at])
        result = operation(ctx, args, kwargs)
        self.work.spend(sum(j.data.size for j in tree_iter((args, kwargs, result)) if isinstance(j, Jet)))
        bind(env, call.result, result)

    def _has_views(self, tensor: Tensor, env: dict[int, Any]) -> bool:
        return any(i in env for i in self.storages[tensor.untyped_storage()._cdata] - {id(tensor)})

    def _sign(self, column: np.ndarray, seen: float | None) -> int:
        """The sign of a function next to the point; 0 only where it is the zero function of this piece."""
        value = column[0]
        self.work.spend(len(column))
        if isinstance(value, float):
            if abs(value) < _CLOSE:
                raise Declined("a kink close to a value that is not rational")
            return 1 if value > 0 else -1
        sign = (value > 0) - (value < 0)
        self.rounded |= seen is not None and sign != (seen > 0) - (seen < 0)
        if sign or not column[1:].any():
            return sign
        if self.position == len(self.told):
            self._decide(column)
        self.position += 1
        return self.told[self.position - 1]

    def _decide(self, column: np.ndarray) -> None:
        if any(isinstance(x, float) for x in column):
            raise Declined("a touched kink whose gradient is not rational")
        sides = [(s, cone) for s in (1, -1) if (cone := self.cone.with_positive(s * column)) is not None]
        if not sides:
            raise _Dead
        for s, cone in sides[1:]:
            self.stack.append(_Branch(self.at, self.start, (*self.told, s), cone))
        self.told.append(sides[0][0])
        self.cone = sides[0][1]


def _bound(a: Any, env: dict[int, Any]) -> Any:
    if isinstance(a, Tensor):
        return env[id(a)] if id(a) in env else a.detach().double() if a.dtype in _LOW else a.detach()
    return torch.float64 if isinstance(a, torch.dtype) and a in _LOW else a
