"""The result of a static analysis: what ``fxcheck analyze`` prints and ``--format json`` writes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from fxcheck.records.finding import Diagnostic, Verdict
from fxcheck.records.proxy import Proxy

SCHEMA = "fxcheck/report/1"


@dataclass(frozen=True)
class Bias:
    """The bias certificate of a layer (theory 4.7)."""

    kind: str | None
    """``distinct``, ``shared``, ``none``; None for a max without a kink."""
    parameters: tuple[str, ...] = ()
    """Qualified names of the parameters that certify."""
    signs: tuple[int, ...] = ()
    """For each parameter, +1 or -1: which way the pre-activation moves when it grows."""

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "parameters": list(self.parameters), "signs": list(self.signs)}


@dataclass(frozen=True)
class LayerReport:
    """One kinked activation, max or singular operation that depends on a trainable parameter and reaches an
    output."""

    index: int
    group: int
    """Layers with the same number are one layer of the theory (4.5)."""
    name: str
    location: str
    pre_activation: tuple[str, ...]
    """Operators of tau, in order: ``("conv2d", "batch_norm", "add")``."""
    activation: str | None
    maxpool: str | None
    members: tuple[str, ...]
    """Graph node names fused into this layer."""
    residual: bool
    proxies: tuple[Proxy, ...]
    bias: Bias
    verdict: Verdict
    theorem: str | None
    diagnostics: tuple[Diagnostic, ...] = ()
    source: str = ""
    """The user's source line."""
    tie: str = ""
    """Of a max: whether AD ``picks one`` of tied entries or ``splits`` the gradient among them."""
    inputs: tuple[int, ...] = ()
    """Indices of the layers whose outputs enter its pre-activation through smooth operations only."""

    def to_dict(self) -> dict[str, Any]:
        return {
            "index": self.index,
            "group": self.group,
            "name": self.name,
            "location": self.location,
            "pre_activation": list(self.pre_activation),
            "activation": self.activation,
            "maxpool": self.maxpool,
            "members": list(self.members),
            "residual": self.residual,
            "proxies": [p.to_dict() for p in self.proxies],
            "bias": self.bias.to_dict(),
            "verdict": str(self.verdict),
            "theorem": self.theorem,
            "diagnostics": [d.to_dict() for d in self.diagnostics],
            "inputs": list(self.inputs),
        }


@dataclass(frozen=True)
class Conditions:
    """The hypotheses of the theorems over all layers; None where an unknown operator or FX5xx prevents
    deciding (contract.md)."""

    condition_1: bool | None
    condition_2: bool | None
    distinct_bias: bool | None
    shared_bias: bool | None
    trivial_maxpools: bool | None
    lambda_consistent: bool | None

    def to_dict(self) -> dict[str, bool | None]:
        return dict(self.__dict__)


@dataclass(frozen=True)
class Structure:
    """Counts over the captured model."""

    parameters: int
    """Number of scalar parameters."""
    trainable: int
    layers: int
    kinked: int
    maxpools: int
    constant_kinks: int
    """Kinked or max operations that depend on no trainable parameter."""
    dead_kinks: int
    """Kinked or max operations that reach no output."""
    residual: bool
    normalisation: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        return {**self.__dict__, "normalisation": list(self.normalisation)}


@dataclass(frozen=True)
class Report:
    """The static verdict of one model.

    Source: Park, Chun, Lee (ICLR 2024), as read on graphs in docs/theory.md.
    """

    target: str
    torch: str
    mode: str
    """``train``, ``eval``, ``keep`` or ``exported``."""
    batch_size: int | None
    assumptions: tuple[str, ...]
    verdict: Verdict
    theorem: str | None
    subdifferential: str | None
    conditions: Conditions
    structure: Structure
    layers: tuple[LayerReport, ...]
    diagnostics: tuple[Diagnostic, ...]
    proxies_from: str = ""
    """Empty for the installed torch; else the torch version of the saved proxies."""
    numeric: str = ""
    """What ``--numeric`` did and found; empty when it was not asked for."""
    timings: dict[str, float] = field(default_factory=dict, compare=False)
    """Seconds per stage."""

    def to_dict(self) -> dict[str, Any]:
        """The ``fxcheck/report/1`` document."""
        document: dict[str, Any] = {
            "schema": SCHEMA,
            "target": self.target,
            "torch": self.torch,
            "mode": self.mode,
            "batch_size": self.batch_size,
            "assumptions": list(self.assumptions),
            "verdict": str(self.verdict),
            "theorem": self.theorem,
            "subdifferential": self.subdifferential,
            "conditions": self.conditions.to_dict(),
            "structure": self.structure.to_dict(),
            "layers": [layer.to_dict() for layer in self.layers],
            "diagnostics": [d.to_dict() for d in self.diagnostics],
        }
        if self.proxies_from:
            document["proxies_from"] = self.proxies_from
        if self.numeric:
            document["numeric"] = self.numeric
        return document


@dataclass(frozen=True)
class FailedTarget:
    """One of several targets that could not be analysed."""

    target: str
    code: str | None
    message: str

    def to_dict(self) -> dict[str, Any]:
        return {"target": self.target, "error": {"code": self.code, "message": self.message}}
