"""One evaluation of a scalar as a list of ATen calls, to be interpreted again in other arithmetics."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map

_LOW = (torch.float32, torch.bfloat16, torch.float16)


class Declined(Exception):
    """The program is outside what an interpreter reads."""


@dataclass(frozen=True)
class Call:
    """One ATen call: what ran, on which tensors, and the tensors that it returned."""

    function: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    result: Any
    drawn: Tensor | None = None
    """Random numbers as they were drawn; the result may have been overwritten since."""

    @property
    def name(self) -> str:
        """Without namespace and overload, as ``relu``."""
        return self.function._schema.name.removeprefix("aten::")

    @property
    def mutates(self) -> bool:
        return self.function._schema.is_mutable and self.name not in _STATISTICS

    def tensors(self) -> Iterator[Tensor]:
        """The arguments that are tensors."""
        return (a for a in tree_iter((self.args, self.kwargs)) if isinstance(a, Tensor))


_DRAWS = {"bernoulli_", "uniform_", "normal_", "rand_like", "randn_like"}
"""Calls whose result depends on no number in their arguments: whoever runs them again runs another program."""
_STATISTICS = {"native_batch_norm", "_native_batch_norm_legit"}
"""They change running statistics only, which no derivative sees."""


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        call = Call(function, args, kwargs or {}, result)
        self.calls.append(replace(call, drawn=result.detach().clone()) if call.name in _DRAWS else call)
        return result


@dataclass(frozen=True)
class Program:
    """The calls between the parameters and the scalar; tensors are told apart by identity and kept alive here."""

    parameters: tuple[Tensor, ...]
    calls: tuple[Call, ...]
    output: Tensor

    def dtypes(self) -> set[torch.dtype]:
        """Of the parameters and of all floats that are computed from them."""
        reached, found = {id(p) for p in self.parameters}, {p.dtype for p in self.parameters}
        for call in self.calls:
            if any(id(t) in reached for t in call.tensors()):
                results = [t for t in tree_iter(call.result) if isinstance(t, Tensor)]
                reached.update(map(id, results))
                found.update(t.dtype for t in results if t.dtype.is_floating_point)
        return found

    def refuse_overwritten_constants(self) -> None:
        """A constant is known as the run has left it.

        Raises:
            Declined: one that a call on parameters reads is overwritten by that call or a later one.
        """
        reached, read = {id(p) for p in self.parameters}, set()
        for call in self.calls:
            depends = any(id(t) in reached for t in call.tensors())
            if depends:
                read |= {t.untyped_storage()._cdata for t in call.tensors() if id(t) not in reached}
            written = call.args[0] if call.mutates else None
            if written is not None and id(written) not in reached and written.untyped_storage()._cdata in read:
                raise Declined("a constant is overwritten after it was read")
            if depends:
                reached.update(id(t) for t in tree_iter(call.result) if isinstance(t, Tensor))

    def largest(self) -> float:
        """The largest size of a number on the way to the scalar."""
        results = (t for call in self.calls for t in tree_iter(call.result) if isinstance(t, Tensor))
        sizes = (float(t.detach().abs().max()) for t in results if t.is_floating_point() and t.numel())
        return max((s for s in sizes if s < float("inf")), default=0.0)

    def lifted(self, leaves: Sequence[Tensor], noise: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """The scalar in float64 with other values of the parameters, differentiable by ``leaves``.

        Args:
            leaves: float64 tensors in the place of the parameters; constants keep their stored values.
            noise: applied to the gradients that arrive at intermediate results.

        Returns:
            The scalar; decisions that Python took while recording are not taken again, random numbers not drawn again.
        """
        env: dict[int, Any] = {id(p): leaf for p, leaf in zip(self.parameters, leaves, strict=True)}
        for call in self.calls:
            if not any(id(t) in env for t in call.tensors()):
                continue
            if draws_again(call, env):
                bind(env, call.result, _raised(call.drawn, {}).clone())
                continue
            args, kwargs = tree_map(lambda a: _raised(a, env), (call.args, call.kwargs))
            if call.name == "_to_copy":
                args, kwargs = args[:1], {"dtype": kwargs.get("dtype") or args[0].dtype}
            found = call.function(*args, **kwargs)
            for t in tree_iter(found) if noise is not None else ():
                if isinstance(t, Tensor) and t.requires_grad:
                    t.register_hook(noise)
            bind(env, call.result, found)
        return env.get(id(self.output), self.output.double())


def draws_again(call: Call, env: dict[int, Any]) -> bool:
    """Whether a call draws random numbers, so that those of the recorded run stand in its place.

    Args:
        call: one of which an argument is in ``env``.
        env: by identity, the values that depend on the parameters.

    Raises:
        Declined: the distribution depends on the parameters.
    """
    if torch.Tag.nondeterministic_seeded not in call.function.tags:
        return False
    if call.drawn is None or any(id(t) in env for t in tree_iter((call.args[1:], call.kwargs)) if isinstance(t, Tensor)):
        raise Declined(f"{call.name} depends on the parameters")
    return True


def _raised(a: Any, env: dict[int, Any]) -> Any:
    if isinstance(a, Tensor):
        return env[id(a)] if id(a) in env else a.double() if a.dtype in _LOW else a
    return torch.float64 if isinstance(a, torch.dtype) and a in _LOW else a


def bind(env: dict[int, Any], recorded: Any, values: Any) -> None:
    """Put a call's results into an environment under the identities of the recorded ones."""
    if isinstance(recorded, Tensor):
        env[id(recorded)] = values
        return
    for tensor, value in zip(recorded, values, strict=True):
        if isinstance(tensor, Tensor):
            env[id(tensor)] = value


def record(parameters: Sequence[Tensor], value: Callable[[], Tensor]) -> Program:
    """Run ``value`` once and keep its ATen calls.

    Args:
        parameters: the leaves that the scalar depends on.
        value: computes the scalar.

    Returns:
        The program, calls in the order of execution.
    """
    with _Recorder() as recorder, torch.enable_grad():
        output = value()
    return Program(tuple(parameters), tuple(recorder.calls), output)
