"""What is to be observed in a forward, so that a training step can be decided: the plan of the runtime checks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any

from fxcheck.records.finding import Diagnostic


class CheckKind(StrEnum):
    """What one check node looks for."""

    TOUCH = "touch"
    """Entries of a pre-activation that equal a kink."""
    BOUND = "bound"
    """Entries of a pre-activation that equal a constant tensor it is clamped by."""
    GUARD = "guard"
    """Operands inside a recognised chain that hit their own constant: rounding may move the kink."""
    WINDOWS = "windows"
    """Ties in the windows of a pooling operator."""
    DIMENSION = "dimension"
    """Ties along one dimension, or along each of its prefixes."""
    SPLIT = "split"
    """Ties of a max that shares the gradient among them."""
    SINGULAR = "singular"
    """The one point at which an operator is not differentiable."""
    UNOBSERVED = "unobserved"
    """No rule says how to observe this operation: a step that runs it is undecided."""


@dataclass(frozen=True)
class Side:
    """AD's choice at one kink."""

    kink: float
    direction: int
    """-1: AD took the left derivative, so the pre-activation must fall; +1: the right one; 0: neither."""
    left: float = math.nan
    """The left derivative; NaN where it differs from entry to entry."""
    ad: float = math.nan
    right: float = math.nan


@dataclass(frozen=True)
class Affine:
    """Channels [start, stop) of a tensor, read as a convolution or linear layer, then perhaps a normalisation.

    Where it applies, rows have a closed form (theory 4.9).
    """

    start: int
    stop: int
    layer: int
    """Graph node of the convolution or linear layer."""
    operand: int
    """Graph node that it is applied to."""
    weight: str
    """Qualified name of its trainable, fresh weight."""
    bias: str | None
    """Name of its trainable, fresh bias; None when there is none."""
    has_trained_bias: bool = False
    """It has a trainable bias, fresh or not, so that a zero patch does not make a constant."""
    norm: int | None = None
    """Graph node of the normalisation over the batch, if there is one."""
    epsilon: float | None = None
    """Of a normalisation by statistics of the batch; None where the statistics are constants."""
    gamma: str | None = None
    """Name of its scale, trainable or not; None for a normalisation without one."""
    beta: str | None = None
    """Name of its trainable, fresh shift."""
    clip: tuple[float, ...] = ()
    """Kinks of a clip (relu, relu6, hardtanh, clamp) that follows: at other values of its result it is the identity."""
    kernel: tuple[int, ...] = ()
    """Spatial sizes of the weight; empty for a linear layer."""
    left_out: tuple[str, ...] = ()
    """Fresh parameters that the operand depends on too: rows in closed form leave those coordinates out."""
    is_constant: bool = False
    """The operand depends on no trainable parameter."""
    zero_is_frozen: bool = False
    """A zero of the operand stays zero near w: it is a constant or comes out of a ReLU (theory 4.11)."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """Of the layer, by schema name."""


@dataclass(frozen=True)
class Check:
    """One check node."""

    index: int
    kind: CheckKind
    group: int
    unit: int
    layer: str
    """Name of the layer in reports."""
    node: int
    """Graph node of the operation."""
    operand: int
    """Graph node that is observed."""
    result: int = -1
    """Graph node that holds the layer's output, where another side or pick can be put in its place."""
    sides: tuple[Side, ...] = ()
    operator: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """Of the operation, by schema name."""
    floor: float | None = None
    """WINDOWS, DIMENSION: maxima at or below it come out of a ReLU at 0 and need no row (Algorithm 2)."""
    skip: tuple[float, ...] = ()
    """WINDOWS, DIMENSION, SPLIT: maxima at which AD's slope of every tied entry is 0, so that all of them are in T_j."""
    meets: tuple[int, ...] = ()
    """GUARD: indices of those of the layer's sides at which this comparison is met."""
    harmless: tuple[float, ...] = ()
    """GUARD: values of the pre-activation, which is read, at which it is met and the kinks of the chain cancel."""
    plateaus: tuple[tuple[float, float], ...] = ()
    """GUARD: open intervals of the pre-activation, which is read, on which it is met by a constant: the chain has no slope."""
    is_inside: bool = False
    """TOUCH, BOUND: the layer's output is read inside of another one that is a function of the same pre-activation; another
    side would change that one too."""
    feeders: tuple[int, ...] = ()
    """WINDOWS: units whose values enter these windows and have no other use."""
    sources: tuple[Affine, ...] = ()
    reads: tuple[int, ...] = ()
    """Further graph nodes whose values the check needs, as many as its kind asks for."""
    note: str = ""

    @cached_property
    def kinks(self) -> tuple[float, ...]:
        """Of its sides, in their order."""
        return tuple(s.kink for s in self.sides)


@dataclass(frozen=True)
class GroupPlan:
    """One layer of the theory that the static pass left open."""

    index: int
    layer: str
    fresh: tuple[str, ...]
    """Names of its trainable parameters that reach no earlier layer: the coordinates of its P_l."""
    algorithm: int
    """2 where moving all biases down satisfies touches and cancels in ties (theory 3, 4.7); else 1."""
    fully_connected: bool
    """T5 applies beside T8."""


@dataclass(frozen=True)
class CheckPlan:
    """All checks of one captured program."""

    checks: tuple[Check, ...]
    groups: tuple[GroupPlan, ...]
    trainable: tuple[str, ...]
    theorem: str | None
    """The theorem that certifies statically (smooth models included: ``smooth``), or None."""
    joint: bool
    """The joint condition decides, over all checks together; ``groups`` is empty."""
    one_sample: bool
    """T1 was asked for: a step of one forward of one sample is certified without rows."""
    carried: tuple[str, ...] = ()
    """Buffers that a forward both writes and reads: a second forward of the same step depends on the first one's
    activations, without their gradient."""
    uncovered: tuple[Diagnostic, ...] = ()
    """Why no step can be certified; empty when steps can be."""
    assumptions: tuple[str, ...] = ()

    @cached_property
    def unobserved(self) -> tuple[str, ...]:
        """Why what some of the checks stand for is never seen."""
        return tuple(c.note for c in self.checks if c.kind is CheckKind.UNOBSERVED)
