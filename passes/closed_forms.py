"""Look: tensors whose entries are a convolution or linear layer, perhaps normalised and clipped (theory 4.9)."""

from __future__ import annotations

from dataclasses import replace

from fxcheck.passes.annotate import Annotated

from fxcheck.records.checks import Affine
from fxcheck.records.graph import Node, Ref
from fxcheck.records.layer import Unit, UnitKind
from fxcheck.records.semantics import Kind, Transfer

_CONVOLUTIONS = ("aten.conv1d.default", "aten.conv2d.default", "aten.conv3d.default")
_LINEAR = "aten.linear.default"
_NORM = "aten.batch_norm.default"
_CLIPS = frozenset({"relu", "relu6", "hardtanh", "clamp", "clamp_min"})
_ZERO_STAYS = frozenset({"max_pool1d", "max_pool2d", "max_pool3d", "adaptive_max_pool1d", "adaptive_max_pool2d", "dropout"})
"""A zero of the result comes from zeros that stay, where each varying entry is one and is nowhere negative."""
_AVERAGES = frozenset({"avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d"})


class ClosedForms:
    """Reads a tensor backwards through clips, concatenation, normalisation and one affine layer."""

    def __init__(self, facts: Annotated, units: tuple[Unit, ...]) -> None:
        self.facts = facts
        self.activation = {u.node: u for u in units if u.kind is UnitKind.ACTIVATION}

    def of(self, node: int, fresh: tuple[str, ...]) -> tuple[Affine, ...]:
        """The sources of the tensor's channels, in order; empty where some channel has no closed form.

        Args:
            node: a graph node of shape (B, C, ...), or (..., C) of a linear layer.
            fresh: names of the parameters that are coordinates.
        """
        found = self._read(node, frozenset(fresh))
        return tuple(found) if found is not None else ()

    def _read(self, id_: int, fresh: frozenset[str]) -> list[Affine] | None:
        node = self.facts.graph.nodes[id_]
        if id_ in self.activation:
            unit = self.activation[id_]
            if unit.name not in _CLIPS or unit.smooth_operands:
                return None
            found = self._read(unit.inputs[0], fresh)
            kinks = tuple(p.kink for p in unit.points)
            return None if found is None or any(f.clip for f in found) else [replace(f, clip=kinks) for f in found]
        if node.op == "aten.cat.default":
            return self._concatenated(node, fresh)
        if node.op == _NORM:
            return self._normalised(node, fresh)
        return self._layer(node, fresh)

    def _concatenated(self, node: Node, fresh: frozenset[str]) -> list[Affine] | None:
        if node.arguments.get("dim") != 1:
            return None
        total: list[Affine] = []
        for part in node.arguments["tensors"]:
            found = self._read(part.id, fresh)
            if found is None or any(self._is_linear(f) for f in found):
                return None
            offset = total[-1].stop if total else 0
            total += [replace(f, start=f.start + offset, stop=f.stop + offset) for f in found]
        return total

    def _is_linear(self, form: Affine) -> bool:
        return self.facts.graph.nodes[form.layer].op == _LINEAR

    def _normalised(self, node: Node, fresh: frozenset[str]) -> list[Affine] | None:
        """Normalisation right after the layer; (B, C, ...) only, so that channels are dimension 1."""
        data, gamma, beta = (node.arguments.get(n) for n in ("input", "weight", "bias"))
        if not isinstance(data, Ref) or self.facts.graph.nodes[data.id].op not in _CONVOLUTIONS:
            return None
        if any(isinstance(p, Ref) and not self._is_leaf(p) for p in (gamma, beta)):
            return None
        found = self._layer(self.facts.graph.nodes[data.id], fresh)
        if found is None:
            return None
        scale = self._name(gamma) if isinstance(gamma, Ref) else None
        shift = self._coordinate(beta, data, fresh)
        epsilon = float(node.arguments["eps"]) if node.arguments.get("training") else None
        return [replace(f, norm=node.id, epsilon=epsilon, gamma=scale, beta=shift) for f in found]

    def _layer(self, node: Node, fresh: frozenset[str]) -> list[Affine] | None:
        if node.op not in (*_CONVOLUTIONS, _LINEAR) or node.shape is None:
            return None
        a = node.arguments
        weight, bias, data = a.get("weight"), a.get("bias"), a.get("input")
        if not isinstance(weight, Ref) or not isinstance(data, Ref) or not self._is_leaf(weight):
            return None
        if self._coordinate(weight, data, fresh) is None or (isinstance(bias, Ref) and not self._is_leaf(bias)):
            return None
        operand = self.facts.graph.nodes[data.id]
        spatial = int(node.op[len("aten.conv")]) if node.op in _CONVOLUTIONS else 0
        if spatial and len(operand.shape or ()) != spatial + 2:
            return None
        shape = self.facts.graph.nodes[weight.id].shape or ()
        channels = shape[0]
        left_out = tuple(n for n in self.facts.names(self.facts.depends[data.id]) if n in fresh)
        return [Affine(
            0, channels, node.id, data.id, self._name(weight), self._coordinate(bias, data, fresh),
            has_trained_bias=isinstance(bias, Ref) and bool(self.facts.depends[bias.id]), kernel=shape[2:],
            left_out=left_out, is_constant=not self.facts.depends[data.id],
            zero_is_frozen=self._zero_is_frozen(data.id), arguments=a,
        )]  # fmt: skip

    def _coordinate(self, leaf: object, data: Ref, fresh: frozenset[str]) -> str | None:
        """The name of a fresh parameter that enters here only; None where it also moves the operand, or is not fresh."""
        if not isinstance(leaf, Ref) or self._name(leaf) not in fresh:
            return None
        return None if self.facts.depends[leaf.id] & self.facts.depends[data.id] else self._name(leaf)

    def _is_leaf(self, ref: Ref) -> bool:
        return self.facts.graph.nodes[ref.id].op in ("fxcheck.parameter", "fxcheck.buffer", "fxcheck.constant")

    def _name(self, ref: Ref) -> str:
        return str(self.facts.graph.nodes[ref.id].arguments["name"])

    def _zero_is_frozen(self, id_: int) -> bool:
        """A zero entry is a constant, or built of zeros out of ReLUs whose touches are accounted for (theory 4.11)."""
        if not self.facts.depends[id_]:
            return True
        node = self.facts.graph.nodes[id_]
        unit = self.activation.get(id_)
        if unit is not None:
            points = [(p.kink, p.left, p.ad) for p in unit.points]
            return unit.name == "relu" and points == [(0.0, 0.0, 0.0)]
        keeps = self.facts.semantics[id_]
        structural = keeps.kind is Kind.STRUCTURAL and keeps.transfer is Transfer.KEEP
        base = node.op.split(".")[1] if node.op.startswith("aten.") else ""
        operands = self.facts.graph.inputs_of[id_]
        averages = base in _AVERAGES and all(self.facts.lower.get(i, -1.0) >= 0 for i in operands)
        if not (structural or base in _ZERO_STAYS or averages):
            return False
        return all(self._zero_is_frozen(i) for i in operands)

