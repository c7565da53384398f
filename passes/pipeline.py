"""Look: the passes in order, from a captured graph to layers as the theory sees them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from fxcheck.passes.annotate import Annotated, annotate
from fxcheck.passes.describe_layers import describe_layers
from fxcheck.passes.find_activations import ProxySource, find_activations
from fxcheck.passes.find_units import find_units
from fxcheck.passes.group_layers import group_layers
from torch import nn

from fxcheck.capture.export import Captured
from fxcheck.capture.lower import Sources, lower_with_sources
from fxcheck.errors import UsageError
from fxcheck.records.finding import Diagnostic
from fxcheck.records.graph import Graph
from fxcheck.records.layer import Structured
from fxcheck.theory.classify import Classified, classify, is_certified


@dataclass(frozen=True)
class Study:
    """A captured model as every front door sees it: the graph, its layers, and the static verdict."""

    graph: Graph
    sources: Sources
    facts: Annotated
    structured: Structured
    classified: Classified


def study(
    captured: Captured, proxies: ProxySource, *, wrt: Collection[nn.Parameter] | None = None,
    batch_size: int | None = None,
) -> Study:  # fmt: skip
    """The static analysis of a captured model.

    Args:
        captured: the exported program.
        proxies: where measured derivatives come from.
        wrt: the parameters that the step updates; None for all with requires_grad.
        batch_size: the only minibatch size to decide for; None for all.

    Raises:
        UsageError: the example minibatch has another size than ``batch_size``.
    """
    graph, sources = lower_with_sources(captured, wrt)
    if batch_size is not None and graph.batch != batch_size:
        raise UsageError(
            f"the example minibatch holds {graph.batch} samples, but batch_size is {batch_size}",
            hint="give example inputs whose first dimension is the batch size",
        )
    facts = annotate(graph)
    structured = structure(facts, proxies, captured.hidden)
    return Study(graph, sources, facts, structured, classify(structured, batch_size))


def structure(facts: Annotated, proxies: ProxySource, hidden: tuple[Diagnostic, ...] = ()) -> Structured:
    """Find the layers of a captured model.

    Args:
        facts: the captured model, annotated.
        proxies: where measured derivatives come from.
        hidden: findings that the graph does not show (custom Functions, hooks).

    Returns:
        Units, groups in a total order, and findings; ready for ``fxcheck.theory.classify``.
    """
    graph = facts.graph
    units = find_units(facts, find_activations(facts, proxies), proxies)
    grouped, groups = group_layers(facts, units.units, is_certified)
    trainable = [graph.nodes[n] for n in graph.trainable]
    parameters = [n for n in graph.nodes if n.op == "fxcheck.parameter"]
    return Structured(
        facts.parameters, describe_layers(facts, grouped), groups, (*units.findings, *hidden), graph.batch,
        graph.smooth_criterion, sum(n.numel for n in parameters), sum(n.numel for n in trainable),
        units.constant_kinks, units.dead_kinks, _normalisation(facts), _assumptions(graph), _reused(facts),
        frozenset(n.name for n in parameters if n.id not in graph.trainable),
    )  # fmt: skip


def _reused(facts: Annotated) -> int:
    mask = 0
    for i, leaf in enumerate(facts.graph.trainable):
        if sum(facts.matters(u) for u in facts.graph.users_of[leaf]) > 1:
            mask |= 1 << i
    return mask


def _normalisation(facts: Annotated) -> tuple[str, ...]:
    names = (facts.semantics[n].normalisation for n in sorted(facts.relevant) if facts.depends[n])
    return tuple(dict.fromkeys(n for n in names if n))


def _assumptions(graph: Graph) -> tuple[str, ...]:
    has_inputs = any(n.op == "fxcheck.input" for n in graph.nodes)
    if graph.batch_dynamic or not has_inputs:
        return ()
    return (f"captured at batch size {graph.batch} (FX607): shape-dependent choices are baked in",)
