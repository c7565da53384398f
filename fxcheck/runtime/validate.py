"""Instrumenting checks itself: the rewritten program against the original, bit for bit, on the example inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fxcheck.capture.export import left_as_it_was
from fxcheck.errors import FxcheckError
from fxcheck.runtime.operands import dense
from fxcheck.runtime.replay import tensors_of

_SEED = 20240507
_RANDOM = "the state of the random numbers after it, as where the forward sets that itself,"


def validate(
    roots: nn.ModuleList, inputs: Sequence[Tensor], original: Callable[[], Any], rewritten: Callable[[], Any],
    parameters: Mapping[str, Tensor], is_static: bool, seeds_itself: bool,
) -> str:  # fmt: skip
    """Run both forms on the same inputs, random numbers and buffers, and compare outputs and gradients; of a forward that writes
    attributes or may seed a generator, those of a second call after it too.

    Args:
        roots: the modules whose state is restored after each run.
        inputs: whose entries are restored as well.
        original: runs the user's model.
        rewritten: runs the program with check nodes.
        parameters: gradients by these are compared.
        is_static: the model itself will run, and what it writes into attributes is written.
        seeds_itself: the forward may do so, since it draws from a generator that is not torch's own.

    Returns:
        An empty text where all agree bit for bit and no attribute is written; else what the original's own spread between two
        runs is, and the attributes.

    Raises:
        FxcheckError: outputs or gradients differ by more than the original differs from itself.
    """
    try:
        first, written = _run(roots, inputs, original, parameters, 2 if seeds_itself else None)
    except FxcheckError:
        raise
    except Exception as error:  # of the user's code
        raise FxcheckError(f"the model itself raises on the example inputs: {_short(error)}",
                           hint="check that its forward and its backward() run on them") from error  # fmt: skip
    calls = 2 if written or seeds_itself else 1
    second, _ = _run(roots, inputs, original, parameters, calls)
    try:
        checked, _ = _run(roots, inputs, rewritten, parameters, calls)
    except Exception as error:  # of the code that torch.fx has written, as where an input is called torch
        raise _refusal(f"it raises {_short(error)}") from error
    if is_static:  # it draws itself
        checked[_RANDOM] = first[_RANDOM]
    if first.keys() != checked.keys():
        raise _refusal("it returns tensors of another structure")
    spread = 0.0
    for name, value in first.items():
        noise = _distance(value, second[name])
        spread = max(spread, noise)
        if _distance(value, checked[name]) > 2 * noise:
            state = f" (the forward writes {', '.join(written[:3])})" if written else ""
            raise _refusal(f"{name} differs{state}")
    notes = []
    if written and not is_static:
        notes.append(f"what the forward writes into {', '.join(written)} is not written by the checked one")
    if spread:
        notes.append(f"the original model differs from itself between two equal runs (by up to {spread:.3g}); compared within it")
    return "; ".join(notes)


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"


def _refusal(what: str) -> FxcheckError:
    return FxcheckError(
        f"the instrumented model does not reproduce the original on the example inputs: {what}, so it was not built",
        hint="keep state in buffers, or pass it in and return it; if there is none, please report the model",
    )


def _run(
    roots: nn.ModuleList, inputs: Sequence[Tensor], run: Callable[[], Any], parameters: Mapping[str, Tensor], calls: int | None
) -> tuple[dict[str, Tensor], list[str]]:
    """Outputs, and gradients of a fixed random combination of them.

    Args:
        roots: restored afterwards.
        inputs: restored too.
        run: a call.
        parameters: gradients are by these.
        calls: how many, one after the other; None for two where the first one writes attributes, else one.

    Returns:
        The tensors by name, and the attributes that the first call wrote.
    """
    with left_as_it_was(roots, inputs) as written, torch.enable_grad():
        torch.manual_seed(_SEED)
        outputs = _named(run())
        changed = written()
        if calls == 2 or (calls is None and changed):
            outputs |= {f"{name} in the second call": v for name, v in _named(run()).items()}
        found = {name: v.detach().clone() for name, v in outputs.items()}
        found[_RANDOM] = torch.get_rng_state()
        generator = torch.Generator().manual_seed(_SEED)
        live = [v for v in outputs.values() if v.requires_grad]
        seeds = [torch.randn(v.shape, generator=generator).to(v.device, v.dtype) for v in live]
        wanted = [p for p in parameters.values() if p.requires_grad]
        if live and wanted:
            gradients = dense(_gradients(live, seeds, wanted))
            names = [n for n, p in parameters.items() if p.requires_grad]
            found |= {f"the gradient of {n}": g for n, g in zip(names, gradients, strict=True) if g is not None}
    return found, changed


def _gradients(outputs: list[Tensor], seeds: list[Tensor], parameters: list[Tensor]) -> Sequence[Tensor | None]:
    """As ``autograd.grad`` returns them, which runs no hook of an optimizer; reentrant checkpoints know ``backward`` only."""
    nodes = _behind(outputs)
    if not any(node.name() == "CheckpointFunctionBackward" for node in nodes):
        return torch.autograd.grad(outputs, parameters, seeds, allow_unused=True)
    leaves = [node.variable for node in nodes if hasattr(node, "variable")]
    held = [(leaf, leaf.grad) for leaf in dict.fromkeys((*leaves, *parameters))]
    for leaf, _ in held:
        leaf.grad = None
    try:
        torch.autograd.backward(outputs, seeds)
        return [p.grad for p in parameters]
    finally:
        for leaf, grad in held:
            leaf.grad = grad


def _behind(outputs: list[Tensor]) -> set[Any]:
    """The nodes of the backward graph."""
    found: set[Any] = set()
    stack = [v.grad_fn for v in outputs]
    while stack:
        node = stack.pop()
        if node is not None and node not in found:
            found.add(node)
            stack.extend(after for after, _ in node.next_functions)
    return found


def _named(outputs: Any) -> dict[str, Tensor]:
    return {f"output {i}": v for i, v in enumerate(tensors_of(outputs))}


def _distance(a: Tensor, b: Tensor) -> float:
    """Largest difference; infinite for other shapes or dtypes, 0 where both are NaN."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return float("inf")
    if torch.equal(a, b):
        return 0.0
    difference = (a.double() - b.double()).abs()
    difference = difference.masked_fill(a.isnan() & b.isnan(), 0.0)
    return float(difference.nan_to_num(nan=float("inf")).max()) if difference.numel() else 0.0
