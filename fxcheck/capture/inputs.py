"""Example inputs: from flags, from the file, or inferred from the first parameterised layer."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fxcheck.capture.target import Loaded
from fxcheck.errors import InputError, UsageError

DEFAULT_BATCH = 2
"""Samples in an inferred minibatch: 1 would make torch.export specialise on it."""
_DTYPES = {"float": "float32", "double": "float64", "half": "float16", "long": "int64", "int": "int32"}
_HINT = "give them with --input SHAPE[:dtype], for instance --input 8x3x224x224 or --input ids=4x16:int64"


@dataclass(frozen=True)
class Example:
    """One set of example inputs."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    how: str = ""
    """Where it came from, for messages."""


def parse_shape(text: str, flag: str = "--input") -> Tensor:
    """A tensor of zeros from ``8x3x224x224`` or ``4x16:int64`` (an empty shape is ``scalar``).

    Raises:
        UsageError: not a shape, or no dtype of torch.
    """
    shape, _, dtype = text.partition(":")
    name = _DTYPES.get(dtype, dtype) or "float32"
    kind = getattr(torch, name, None)
    if not isinstance(kind, torch.dtype):
        hint = "float32, bfloat16, int64, bool, ..."
        raise UsageError(f"{flag} {text!r}: {dtype!r} is not a dtype of torch", hint=hint)
    if shape == "scalar":
        return torch.zeros((), dtype=kind, device="meta")
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", shape):
        raise UsageError(f"{flag} {text!r}: {shape!r} is not a shape", hint="sizes joined by x, as in 8x3x224x224")
    return torch.zeros([int(s) for s in shape.split("x")], dtype=kind, device="meta")


def example_inputs(loaded: Loaded, specs: Sequence[str], batch_size: int | None = None) -> list[Example]:
    """Candidate example inputs, best first; the first that the model accepts is to be used.

    Args:
        loaded: the model and what its file provides.
        specs: values of ``--input``.
        batch_size: size of the first dimension, when asked for.

    Raises:
        InputError: nothing was given and nothing can be inferred; the message says which flag to give.
        UsageError: a spec that cannot be read.
    """
    module = loaded.module
    assert module is not None
    if specs:
        return [_resized(_from_specs(specs), batch_size)]
    if loaded.example_inputs is not None:
        return [_resized(_from_value(loaded.example_inputs), batch_size)]
    batch = batch_size or DEFAULT_BATCH
    found = _inferred(module, batch)
    if not found:
        raise InputError(
            f"no example inputs for {type(module).__name__}: the file has no example_inputs, and no layer tells their "
            "shape",
            hint=_HINT,
        )
    return found


def _from_specs(specs: Sequence[str]) -> Example:
    args, kwargs = [], {}
    for spec in specs:
        name, equals, shape = spec.partition("=")
        if equals:
            kwargs[name] = parse_shape(shape)
        else:
            args.append(parse_shape(spec))
    return Example(tuple(args), kwargs, "--input")


def _from_value(value: Any) -> Example:
    if isinstance(value, Tensor):
        return Example((value,), {}, "example_inputs")
    if isinstance(value, Mapping):
        return Example((), dict(value), "example_inputs")
    if isinstance(value, (tuple, list)):
        is_pair = len(value) == 2 and isinstance(value[0], (tuple, list)) and isinstance(value[1], Mapping)
        if is_pair:
            return Example(tuple(value[0]), dict(value[1]), "example_inputs")
        return Example(tuple(value), {}, "example_inputs")
    raise InputError(
        f"example_inputs is a {type(value).__name__}; wanted a tensor, a tuple of tensors or a dict",
        hint="example_inputs = (torch.zeros(8, 3, 224, 224),)",
    )


def _resized(example: Example, batch_size: int | None) -> Example:
    """The example with another first dimension, when all its tensors share one."""
    leaves = [v for v in torch.utils._pytree.tree_leaves((example.args, dict(example.kwargs))) if isinstance(v, Tensor)]
    sizes = {v.shape[0] for v in leaves if v.dim() > 0}
    if batch_size is None or sizes <= {batch_size}:
        return example
    if len(sizes) != 1:
        raise InputError(
            f"the example inputs have first dimensions {sorted(sizes)}, so --batch-size {batch_size} fits none of them",
            hint="give inputs of that batch size",
        )

    def resize(v: Any) -> Any:
        if not isinstance(v, Tensor) or v.dim() == 0:
            return v
        return torch.zeros([batch_size, *v.shape[1:]], dtype=v.dtype, device=v.device)

    args, kwargs = torch.utils._pytree.tree_map(resize, (example.args, dict(example.kwargs)))
    return Example(args, kwargs, example.how)


# Inference -------------------------------------------------------------------------------------

_IMAGE_SIZES = (224, 32, 299, 28, 64, 128, 512)
_CLIP_SIZES = ((16, 112, 112), (16, 224, 224), (8, 32, 32))
_LENGTHS = (16, 128, 1024)


def _inferred(module: nn.Module, batch: int) -> list[Example]:
    dummy = getattr(module, "dummy_inputs", None)
    if isinstance(dummy, Mapping) and all(isinstance(v, Tensor) for v in dummy.values()):
        return [Example((), dict(dummy), "the model's dummy_inputs")]
    for layer in module.modules():
        shapes = _shapes_for(layer)
        if shapes is not None:
            kind = torch.int64 if isinstance(layer, (nn.Embedding, nn.EmbeddingBag)) else _float_dtype(layer)
            how = f"inferred from {type(layer).__name__}"
            return [Example((torch.zeros([batch, *s], dtype=kind, device="meta"),), {}, how) for s in shapes]
    return []


def _float_dtype(layer: nn.Module) -> torch.dtype:
    first = next(layer.parameters(recurse=False), None)
    return first.dtype if first is not None and first.is_floating_point() else torch.float32


def _shapes_for(layer: nn.Module) -> list[tuple[int, ...]] | None:
    """Shapes, without the batch, that a layer accepts; None when the layer does not tell."""
    for kind, shapes in _BY_LAYER:
        if isinstance(layer, kind):
            return shapes(layer)
    return None


_BY_LAYER: tuple[tuple[Any, Callable[[Any], list[tuple[int, ...]]]], ...] = (
    ((nn.Conv2d, nn.ConvTranspose2d), lambda m: [(m.in_channels, s, s) for s in _IMAGE_SIZES]),
    ((nn.Conv3d, nn.ConvTranspose3d), lambda m: [(m.in_channels, *s) for s in _CLIP_SIZES]),
    ((nn.Conv1d, nn.ConvTranspose1d), lambda m: [(m.in_channels, s) for s in _LENGTHS]),
    (nn.Linear, lambda m: [(m.in_features,), (16, m.in_features)]),
    (nn.Bilinear, lambda m: [(m.in1_features,)]),
    ((nn.Embedding, nn.EmbeddingBag), lambda m: [(16,), (8,), (4,), ()]),
    ((nn.RNNBase,), lambda m: [(16, m.input_size)]),
    (nn.RNNCellBase, lambda m: [(m.input_size,)]),
    (nn.MultiheadAttention, lambda m: [(16, m.embed_dim)]),
    (nn.BatchNorm2d, lambda m: [(m.num_features, s, s) for s in _IMAGE_SIZES]),
    (nn.BatchNorm1d, lambda m: [(m.num_features,), (m.num_features, 16)]),
    (nn.LayerNorm, lambda m: [tuple(m.normalized_shape), (16, *m.normalized_shape)]),
    (nn.GroupNorm, lambda m: [(m.num_channels, s, s) for s in _IMAGE_SIZES]),
)


def first_accepted(module: nn.Module, candidates: list[Example]) -> Example:
    """The first candidate with which a forward on fake tensors succeeds; the first one when none does.

    A single candidate is not tried: the capture reports what is wrong with it.
    """
    if len(candidates) == 1:
        return candidates[0]
    for candidate in candidates:
        if _runs(module, candidate):
            return candidate
    return candidates[0]


def _runs(module: nn.Module, example: Example) -> bool:
    from torch._subclasses.fake_tensor import FakeTensorMode

    flags = [(m, m.training) for m in module.modules()]
    rng = torch.get_rng_state()
    try:
        with FakeTensorMode(allow_non_fake_inputs=False) as mode, torch.no_grad():
            state = {n: _fake(mode, t) for n, t in [*module.named_parameters(), *module.named_buffers()]}
            device = next((t.device for t in module.parameters()), torch.device("cpu"))
            args = tuple(torch.zeros(a.shape, dtype=a.dtype, device=device) for a in example.args)
            torch.func.functional_call(module, state, args, dict(example.kwargs))
        return True
    except Exception:  # the capture will tell, should every candidate fail
        return False
    finally:
        torch.set_rng_state(rng)
        for m, training in flags:
            m.training = training


def _fake(mode: Any, tensor: Tensor) -> Tensor:
    return mode.from_tensor(tensor)
