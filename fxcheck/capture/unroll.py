"""Recurrent layers that export keeps whole, recorded as the operators that their own kernels call, step by step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

_LAYERS = torch.ops.aten.rnn_relu.input
_CELL = torch.ops.aten.rnn_relu_cell.default
_COMPOSITE = torch._C.DispatchKey.CompositeImplicitAutograd
_UNFUSED = ("cpu", "meta")
"""Devices on which ``rnn_relu`` is the composite kernel. cuDNN and MIOpen run one kernel of their own instead."""


class UnrolledRecurrence(TorchFunctionMode):
    """While it is entered, ``rnn_relu`` and ``rnn_relu_cell`` of this thread run as linear, add and relu.

    What runs is ATen's own composite kernel, which dispatch would have chosen too: values, gradients and random numbers
    stay what they are, bit for bit, and a tracer records the operators inside instead of the composite. Packed
    sequences, whose kernel reads entries of ``batch_sizes``, and devices with a fused kernel are left alone.

    Source: theory 4.6 and 5: a ReLU inside an operator has no pre-activation to look at. Torch's decomposition table is
    no substitute: its entry for ``rnn_relu`` leaves out the dropout between layers.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # fmt: skip
        keywords = dict(kwargs or {})
        if func in _LAYER_CALLS and _is_padded_and_unfused(args, keywords):
            return _layers(*args, **keywords)
        if func in _CELL_CALLS:
            return _CELL._op_dk(_COMPOSITE, *args, **keywords)
        return func(*args, **keywords)


_LAYER_CALLS = (torch.rnn_relu, torch.ops.aten.rnn_relu, _LAYERS)
_CELL_CALLS = (torch.rnn_relu_cell, torch.ops.aten.rnn_relu_cell, _CELL)


def _is_padded_and_unfused(args: tuple[Any, ...], keywords: Mapping[str, Any]) -> bool:
    """The overload for padded sequences is called, on a device where it is composite."""
    data = args[0] if args else keywords.get("input")
    packed = "batch_sizes" in keywords or (len(args) > 2 and isinstance(args[2], torch.Tensor))
    return isinstance(data, torch.Tensor) and data.device.type in _UNFUSED and not packed


def _layers(
    input: torch.Tensor, hx: torch.Tensor, params: Sequence[torch.Tensor], has_biases: bool, num_layers: int,
    dropout: float, train: bool, bidirectional: bool, batch_first: bool,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """The kernel with time first: for ``batch_first`` it transposes its result in place, which no view replays."""
    steps = input.transpose(0, 1) if batch_first else input
    output, last = _LAYERS._op_dk(
        _COMPOSITE, steps, hx, params, has_biases, num_layers, dropout, train, bidirectional, False
    )
    return output.transpose(0, 1) if batch_first else output, last
