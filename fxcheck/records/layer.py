"""Layers of the theory as found in a graph: units (one kinked or max operation) and groups of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from fractions import Fraction

from fxcheck.records.bias import EntryClass, Moved
from fxcheck.records.finding import Diagnostic
from fxcheck.records.graph import Origin
from fxcheck.records.piecewise import Piecewise
from fxcheck.records.proxy import Proxy


class UnitKind(StrEnum):
    """What makes an operation a layer of its own."""

    ACTIVATION = "activation"
    """A scalar piecewise-analytic rho applied to each entry."""
    MAX = "max"
    """A non-trivial max whose gradient goes to one entry."""
    SPLIT_MAX = "split_max"
    """A non-trivial max that splits the gradient at ties (theory 4.2)."""
    ORDER_STATISTIC = "order_statistic"
    SINGULAR = "singular"
    """Analytic but at a point; off it there is nothing to check (theory 4.3)."""
    RECURRENT = "recurrent"
    """Kinked, applied repeatedly with the same weights inside one operator."""


@dataclass(frozen=True)
class Unit:
    """One kinked, max or singular operation that depends on a trainable parameter and reaches an output."""

    index: int
    kind: UnitKind
    node: int
    """The graph node that holds its output."""
    inputs: tuple[int, ...]
    """Graph nodes of its pre-activation."""
    members: tuple[int, ...]
    name: str
    """``relu``, ``max_pool2d``, ``chain(gt, mul)``."""
    display: str = ""
    """Where the user finds it: module path, ``layer1.0/relu``."""
    origin: Origin = field(default_factory=Origin)
    member_names: tuple[str, ...] = ()
    points: tuple[Proxy, ...] = ()
    continuous: bool = True
    nondecreasing: bool = False
    smooth_operands: tuple[int, ...] = ()
    note: str = ""
    breaks: tuple[Fraction, ...] = ()
    """Of a chain of operators: where the points are, and then those at which its operators have kinks that cancel."""
    forms: Mapping[int, Piecewise] = field(default_factory=dict)
    """By graph node of a chain, where it is known: the function of the pre-activation that it holds."""
    is_inside: bool = False
    """Other layers, or functions without a kink, that are taken as a whole are computed from its output too."""
    may_collapse: bool = False
    """A clamp between tensors that may be equal: there it is constant, and AD has a slope. A step looks at its bounds."""
    pre_activation: tuple[str, ...] = ()
    """Operators of tau."""
    residual: bool = False
    fully_connected: bool = False
    """tau is exactly A z (+ b) with A of its own, z the previous layer's output (T5)."""
    classes: tuple[EntryClass, ...] = ()
    """What moves the pre-activation's entries. Empty for a max inside a group whose rho comes first."""
    samples: int = 1
    """Entries of the minibatch that each neuron has: 1 behind a sum over them."""
    moved: Mapping[int, Moved] = field(default_factory=dict)
    """By parameter index, for those that were followed entry by entry: each moves every pre-activation entry by one of
    its entries, or not at all."""

    @property
    def is_max(self) -> bool:
        return self.kind in (UnitKind.MAX, UnitKind.SPLIT_MAX, UnitKind.ORDER_STATISTIC)

    @property
    def is_cut(self) -> bool:
        """Its output belongs to it and not to the next tau."""
        return self.kind is not UnitKind.SINGULAR


@dataclass(frozen=True)
class Group:
    """Units treated as one layer of the theory: an antichain, but for the inside of sigma (theory 4.5)."""

    index: int
    units: tuple[int, ...]
    own: int
    """Mask of the parameters that reach the group through its own tau."""
    fresh: int
    """Those of ``own`` that reach no group before this one (theory 4.6)."""

    @property
    def borrowed(self) -> int:
        return self.own & ~self.fresh


@dataclass(frozen=True)
class Structured:
    """A model as the theory sees it: the input of the classification."""

    parameters: tuple[str, ...]
    units: tuple[Unit, ...]
    groups: tuple[Group, ...]
    """In the total order of theory 4.6. A singular unit is in no group."""
    findings: tuple[Diagnostic, ...]
    """FX4xx, FX5xx and FX606 on a path from a trainable parameter to an output."""
    batch: int
    """Samples in the captured minibatch."""
    smooth_criterion: bool
    scalar_parameters: int
    """Number of scalar parameters, and of trainable ones."""
    scalar_trainable: int
    constant_kinks: int
    dead_kinks: int
    normalisation: tuple[str, ...]
    assumptions: tuple[str, ...] = ()
    reused: int = 0
    """Mask of the parameters that more than one operation reads."""
    frozen: frozenset[str] = field(default_factory=frozenset)
    """Names of parameters that are not trained."""
