"""What an operator is: local facts only. How facts compose is the passes' and the theory's business."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Any

from fxcheck.records.graph import Ref, is_free


class Kind(StrEnum):
    """The class of an operator as a function of its floating-point tensor operands."""

    CONSTANT = "constant"
    """The value does not depend on operand values: factories, random numbers, sizes."""
    STRUCTURAL = "structural"
    """Every output entry is an operand entry or a constant."""
    LINEAR = "linear"
    """Affine (or multi-affine) in the operands: matmul, convolution, sums, averages, + and *."""
    SMOOTH = "smooth"
    """Analytic, or C1, wherever it is finite."""
    KINKED = "kinked"
    """One scalar piecewise-analytic function of ``operand``, entry by entry."""
    MAX = "max"
    """Every output entry is the largest (smallest) of some operand entries."""
    ORDER_STATISTIC = "order_statistic"
    """sort, topk, median, ...: undecided by the theory."""
    SINGULAR = "singular"
    """Analytic except on a thin set of points (norms at 0, sqrt at 0)."""
    DISCONTINUOUS = "discontinuous"
    """Jumps: round, sign, comparisons, argmax, indices."""
    BREAKING = "breaking"
    """Autograd does not return the derivative of the forward: detach, padding_idx, ..."""
    SHARED_WEIGHTS = "shared_weights"
    """Kinked, and applied repeatedly with the same weights inside one operator: rnn_relu."""
    UNKNOWN = "unknown"
    """No one has said what it is. Never treated as smooth."""


class Transfer(StrEnum):
    """How the coefficient of an additive bias in the operands reaches the output (theory 4.7)."""

    LOST = "lost"
    """Unknown: the certificate ends here."""
    KEEP = "keep"
    """Each output entry is one operand entry (of any operand) or a constant."""
    PAD = "pad"
    """KEEP, plus new entries that are constant."""
    ADD = "add"
    """Sum of the operands, scaled by ``scales``."""
    MULTIPLY = "multiply"
    """Product of two operands: a positive or constant factor keeps the sign of the other's."""
    DIVIDE = "divide"
    """Quotient: as MULTIPLY by the reciprocal."""
    AVERAGE = "average"
    """Each output entry is a sum with positive weights over at least one operand entry."""
    INTERPOLATE = "interpolate"
    """Each output entry is a weighted sum with weights that sum to 1 and may be negative."""
    AFFINE = "affine"
    """Unknown in every operand but ``bias``, which is added with coefficient 1 along the channel axis."""
    DROPOUT = "dropout"
    """Each entry is set to a constant or multiplied by one fixed positive number."""


class MaxPick(StrEnum):
    """Which maximal operand entries receive gradient at a tie (theory 4.2)."""

    ONE_HOT = "one_hot"
    SPLIT = "split"


class Order(IntEnum):
    """In which orders the entries of a tensor may lie in memory; each holds those before it."""

    ROWS = 0
    """Row by row."""
    CHANNELS_LAST = 1
    """Or with channels last, and strides of sizes 1 as torch itself computes them."""
    ANY = 2


@dataclass(frozen=True)
class OpSemantics:
    """Local facts about one call of one operator."""

    kind: Kind
    transfer: Transfer = Transfer.LOST
    operand: str | None = None
    """KINKED, MAX, SINGULAR: the argument that holds the pre-activation (a Ref or a tuple of Refs)."""
    kinks: tuple[float, ...] = ()
    """KINKED: candidate points of ``operand`` where the function may not be differentiable, or where the
    operator compares; float64 as the schema gives them."""
    pick: MaxPick | None = None
    """MAX: who gets the gradient at a tie."""
    trivial: bool = False
    """MAX: every window holds one entry."""
    elementwise: bool = False
    """Output entry i depends on entry i of each operand only (broadcasting allowed)."""
    bias: str | None = None
    """AFFINE: the argument added with coefficient 1 (None when absent)."""
    bias_axis: int = 1
    """AFFINE: the output axis along which the bias runs; other axes repeat it."""
    scales: tuple[float, ...] | None = None
    """ADD: the factor of each operand in argument order; None means all 1."""
    positive: bool = False
    """The value is > 0 in exact arithmetic for every finite operand."""
    nonnegative: bool = False
    """The value is >= 0 for every finite operand."""
    nondecreasing: bool = False
    """KINKED: nowhere decreasing, so that it commutes with a max."""
    discrete_outputs: tuple[int, ...] = ()
    """Indices of outputs that are integer-valued functions of the operands (argmax, indices)."""
    cut_outputs: tuple[int, ...] = ()
    """Indices of outputs that follow the operands, but that autograd takes for constants."""
    orders: tuple[Order, Order] = (Order.ANY, Order.ANY)
    """The widest orders in memory of the operand ``input`` and of the gradient with which backward is the derivative."""
    singular_code: str = ""
    """SINGULAR, DISCONTINUOUS, BREAKING, ORDER_STATISTIC: the diagnostic code to report."""
    normalisation: str | None = None
    """``batch_norm``, ``layer_norm``, ... when the operator is one."""
    fully_connected: bool = False
    """tau is A z (+ b) with a weight matrix of its own (T5)."""
    note: str = ""
    """One clause for messages: why it is of this kind, or what is not known."""


FREE = 0
"""A size that may be 0, 1 or larger: neither empty nor a single entry nor several may be concluded from it."""


@dataclass(frozen=True)
class Call:
    """One call of an operator, as a semantics function sees it."""

    op: str
    arguments: Mapping[str, Any]
    shapes: Mapping[int, tuple[int, ...] | None]
    """Shape by node id, for the operands."""
    dtypes: Mapping[int, str | None]
    constants: Mapping[int, float | None]
    """Node ids that depend on no trainable parameter; the value when all entries equal a known number."""
    shape: tuple[int, ...] | None = None
    """Shape of the output (of the first output where there are several)."""
    lower_bounds: Mapping[int, float] = ()  # type: ignore[assignment]
    """Node ids with a proved lower bound on every entry, in exact arithmetic."""

    dtype: str | None = None
    """Output dtype (of the first output where there are several)."""
    symbols: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    """By node id, for each size the symbol or expression that the capture left open, ``""`` for a number."""

    def arg(self, name: str, default: Any = None) -> Any:
        return self.arguments.get(name, default)

    def is_tensor(self, name: str) -> bool:
        return isinstance(self.arguments.get(name), Ref)

    def shape_of(self, name: str) -> tuple[int, ...] | None:
        value = self.arguments.get(name)
        return self.shapes.get(value.id) if isinstance(value, Ref) else None

    def may_be_one(self, name: str) -> tuple[bool, ...]:
        """For each size of a tensor whether it is 1, or can be."""
        return tuple(size in (1, FREE) for size in self.sizes_of(name) or ())

    def sizes_of(self, name: str) -> tuple[int, ...] | None:
        """``shape_of`` with ``FREE`` in the place of sizes that may be anything."""
        value = self.arguments.get(name)
        shape = self.shape_of(name)
        symbols = self.symbols.get(value.id, ()) if isinstance(value, Ref) else ()
        if shape is None or not symbols:
            return shape
        return tuple(FREE if is_free(symbol) else size for size, symbol in zip(shape, symbols, strict=True))

    def is_constant(self, name: str) -> bool:
        """True for a number, None, or a tensor that depends on no trainable parameter."""
        value = self.arguments.get(name)
        return not isinstance(value, Ref) or value.id in self.constants

    def number(self, name: str) -> float | None:
        """The number held by the argument: a Python number, or a constant tensor with equal known entries."""
        value = self.arguments.get(name)
        if isinstance(value, Ref):
            return self.constants.get(value.id)
        return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None

    def lower_bound(self, name: str) -> float:
        """A proved lower bound of every entry, -inf when none is known."""
        value = self.arguments.get(name)
        if isinstance(value, Ref):
            return self.lower_bounds.get(value.id, float("-inf"))
        return float(value) if isinstance(value, (int, float)) else float("-inf")
