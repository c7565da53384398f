"""One captured form of a model, rewritten with check nodes: what a training forward runs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from math import prod
from typing import Any
from weakref import ProxyTypes

import torch
from torch import Tensor, fx, nn

from fxcheck.capture.export import Captured, capture
from fxcheck.capture.held import storage_of, through
from fxcheck.capture.hidden import random_calls
from fxcheck.errors import UncoveredModel
from fxcheck.ops.measured import Measured
from fxcheck.passes.insert_checks import insert_checks, insert_choices
from fxcheck.passes.pipeline import Study, study
from fxcheck.passes.plan_checks import plan_checks, plan_jointly
from fxcheck.records.checks import Check, CheckKind, CheckPlan
from fxcheck.records.step import LayerStep
from fxcheck.runtime.bound import bound
from fxcheck.runtime.other_dtype import what_differs_in
from fxcheck.runtime.position_classes import PositionClasses
from fxcheck.runtime.positions import Positions
from fxcheck.runtime.signature import Inputs, State, checksum, writes
from fxcheck.runtime.ties_found import Pools
from fxcheck.scan import Glance
from fxcheck.theory.classify import certified_coins, classify

Glances = dict[int, Glance]
_MOST_SHAPES = 16


@dataclass(frozen=True, eq=False)
class Replayed:
    """A program rewritten for the joint condition."""

    plan: CheckPlan
    module: fx.GraphModule
    chosen: frozenset[int]
    """Checks whose layer can be given another side or pick than AD's."""

    @cached_property
    def rests(self) -> frozenset[tuple[int, float]]:
        """(group, kink) where maxima at that value are not looked at, since AD's slope of every tied entry is 0 there.

        That holds as long as touched entries keep AD's side.
        """
        return frozenset((c.group, value) for c in self.plan.checks for value in c.skip)

    @cached_property
    def thorough(self) -> Replayed:
        """The same, looking at all maxima."""
        return replace(self, plan=replace(self.plan, checks=tuple(replace(c, skip=()) for c in self.plan.checks)))


@dataclass(eq=False)
class Program:
    """A rewritten program and what its observations mean."""

    captured: Captured
    study: Study
    plan: CheckPlan
    module: fx.GraphModule
    inputs: Inputs
    """Of the example arguments."""
    dynamic: tuple[bool, ...]
    """For each leaf of the arguments, whether its first dimension was left to vary."""
    trainable: Mapping[str, Tensor]
    """The coordinates of w by name."""
    tensors: Mapping[str, Tensor]
    """Parameters and buffers by name."""
    modules: tuple[Any, ...]
    """With training flags, hooks and buffers at capture, as ``State.modules``."""
    attributes: tuple[Any, ...]
    """Plain attributes of the modules, as ``State.attributes``."""
    input_names: tuple[str, ...]
    """Placeholder of each leaf of the arguments."""
    constants: tuple[Tensor, ...]
    """Tensors outside of the model's parameters and buffers whose values the analysis or the captured forward has read."""
    written: tuple[int, ...]
    """How often each of them had been written to in place, and checksums: what is written through ``.data`` is not counted."""
    held: tuple[tuple[dict[str, Any], str, Any], ...]
    """Which attributes of modules hold tensors that the program has taken for constants, or tuples of such."""
    tensors_read: tuple[tuple[int, Tensor], ...]
    """Such tensors elsewhere, with their places in ``State.tensors``."""
    memory: tuple[tuple[Tensor, Any], ...]
    """Those, ones in attributes, and ones that unregistered modules have registered, with their memory then, as ``.data`` gives
    them another, and whether they were trained."""
    pools: Pools = field(default_factory=dict)
    glances: dict[str | None, Glances] = field(default_factory=lambda: defaultdict(dict))
    """By ``scan.chosen``, as ``Collector.glances``."""
    can_wait: dict[int, bool] = field(default_factory=dict)
    """By check, as ``Collector.can_wait``."""
    served: set[tuple[Any, ...]] = field(default_factory=set)
    """Leaves of ``Inputs`` that the module has run with."""
    positions: dict[tuple[tuple[str, torch.Size], ...], Positions] = field(default_factory=dict)
    """By the shapes of the inputs, those of the last forwards."""
    other_dtypes: dict[torch.dtype, tuple[str, ...]] = field(default_factory=dict)
    idle_entries: dict[int, int] = field(default_factory=dict)
    """``Observed.entries`` of the last step in which nothing was touched or tied."""
    idle_layers: tuple[LayerStep, ...] = ()
    """Of that step."""

    @cached_property
    def forward(self) -> Callable[..., Any]:
        """The module's."""
        return bound(self.module)

    @cached_property
    def replayed(self) -> Replayed:
        """The same computation with the checks of all layers; made when a step first needs it."""
        plan = plan_jointly(self.study.facts, self.study.structured, self.plan)
        module, chosen = insert_choices(self.captured.program, plan, self.study.graph, self.study.sources)
        return Replayed(plan, module, chosen)

    @cached_property
    def kept(self) -> tuple[Tensor, ...]:
        """Parameters and buffers that no forward writes: what one computed is computed again from these values."""
        graph = self.study.graph
        written = {str(graph.nodes[leaf].arguments.get("name")) for leaf in graph.written}
        return tuple(t for n, t in self.tensors.items() if n not in written)

    @cached_property
    def coins(self) -> tuple[Mapping[int, Mapping[float, int]], ...]:
        """What the layers that are certified before training ask of their biases."""
        return certified_coins(self.study.structured)

    @cached_property
    def coordinates(self) -> frozenset[int]:
        """Identities of the trainable parameters."""
        return frozenset(map(id, self.trainable.values()))

    @cached_property
    def has_complex_coordinates(self) -> bool:
        """Some trainable parameter holds complex numbers."""
        return any(t.is_complex() for t in self.trainable.values())

    @cached_property
    def checks_by_layer(self) -> Mapping[tuple[int, str], Sequence[Check]]:
        """(group, layer) with the checks that its counts come from."""
        found: dict[tuple[int, str], list[Check]] = {}
        for check in self.plan.checks:
            if check.kind is not CheckKind.GUARD:
                found.setdefault((check.group, check.layer), []).append(check)
        return found

    def is_of(self, state: State) -> bool:
        """Whether the modules and their plain attributes are as they were at the capture."""
        if self.modules is state.modules and self.attributes is state.attributes:  # as at most steps
            return True
        return self.modules == state.modules and self.holds_attributes_of(state)

    def holds_attributes_of(self, state: State) -> bool:
        """Whether plain attributes are as they were, and the tensors that were read where attributes and code lead to."""
        return self.attributes == state.attributes and all(state.tensors[at] is tensor for at, tensor in self.tensors_read)

    def goes_on_with(self, state: State) -> None:
        """Take a state that the model's own forward has made of the one at the capture for that one."""
        read = {id(tensor) for _, tensor in self.tensors_read}
        self.attributes, self.tensors_read = state.attributes, _places_of(state.tensors, read, id)

    def takes(self, inputs: Inputs) -> bool:
        """Whether the capture holds for a call."""
        if self.constants and _values(self.constants) != self.written:
            return False
        if self.held and any(place.get(name) is not held for place, name, held in self.held):
            return False
        if self.memory and any(_memory_of(tensor) != memory for tensor, memory in self.memory):
            return False
        spec = self.inputs.spec
        known = inputs.leaves in self.served and (inputs.spec is spec or inputs.spec == spec)
        return known or self.inputs.fits(inputs, self.dynamic)

    def constants_changed(self) -> list[str]:
        """Where tensors that the capture has taken for constants are others now, or hold other values."""
        found = [name for place, name, held in self.held if place.get(name) is not held]
        return found or (["the entries of a tensor that is no buffer"] if _values(self.constants) != self.written else [])

    def run(self, call: tuple[tuple[Any, ...], dict[str, Any]], inputs: Inputs) -> Any:
        """The module's output; torch.export's hooks look at each kind of call once, since they cost as much as many checks."""
        args, kwargs = call
        if inputs.leaves in self.served:
            return self.forward(*args, **kwargs)
        output = self.module(*args, **kwargs)
        while len(self.served) >= _MOST_SHAPES:
            self.served.pop()
        self.served.add(inputs.leaves)
        return output

    def classes_of(self, leaves: Sequence[Any], written: tuple[int, ...]) -> PositionClasses:
        """Which positions of a forward's tensors are equal functions.

        Args:
            leaves: those of its call.
            written: how often each of them had been written to in place before it ran.
        """
        return PositionClasses(self._positions_of, self.input_names, leaves, written)

    def _positions_of(self, inputs: Mapping[str, Tensor]) -> Positions:
        shapes = {n: v.shape for n, v in inputs.items()}
        key = tuple(shapes.items())
        if key not in self.positions:
            while len(self.positions) >= _MOST_SHAPES:
                del self.positions[next(iter(self.positions))]
            self.positions[key] = Positions(self.study.facts, shapes)
        return self.positions[key]

    @cached_property
    def is_random(self) -> bool:
        """Whether it draws random numbers, as far as its operators say."""
        return bool(random_calls(self.module))

    @property
    def has_generators(self) -> bool:
        """Whether it draws from other generators than torch's own."""
        return any(call.kwargs.get("generator") is not None for call in random_calls(self.module))

    @cached_property
    def is_static(self) -> bool:
        """Every step is certified without checks."""
        return self.plan.theorem is not None

    def slot_size(self, name: str) -> int:
        """How many coordinates one index of a parameter's first dimension holds."""
        shape = self.trainable[name].shape
        return prod(shape[1:]) if shape else 1

    def differences_in(self, dtype: torch.dtype) -> tuple[str, ...]:
        """What keeps the plan from holding for activations of another dtype; measured once."""
        if dtype not in self.other_dtypes:
            self.other_dtypes[dtype] = what_differs_in(self.study, dtype)
        return self.other_dtypes[dtype]

    def is_like(self, other: Program) -> bool:
        """Whether the rows of both may be pooled: their inputs differ in sizes, and in whether they require a gradient, only."""
        if self is other:
            return True
        mine, others = self.plan, other.plan
        if [(c.kind, c.layer) for c in mine.checks] != [(c.kind, c.layer) for c in others.checks]:
            return False
        plans = (mine.groups, mine.trainable, mine.theorem) == (others.groups, others.trainable, others.theorem)
        plans = plans and self.coins == other.coins
        return plans and self._state() == other._state() and self.inputs.kind == other.inputs.kind

    def _state(self) -> tuple[Any, ...]:
        """What the capture has baked in."""
        read = chain((v for *_, v in self.held), (v for _, v in self.tensors_read))
        return self.modules, self.attributes, self.written, [*map(id, read)]


def build_program(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], *, loss: Callable[..., Any] | None = None,
    target: Any = None, batch_size: int | None = None,
    wrt: Collection[nn.Parameter] | None = None, state: State,
) -> Program:  # fmt: skip
    """Capture, analyse, plan and rewrite.

    Args:
        model: the user's model.
        args: example inputs of this call.
        kwargs: example keyword inputs.
        loss: makes the loss part of the program.
        target: example target of the loss.
        batch_size: 1 asks for T1.
        wrt: the parameters that the step updates; None for all with requires_grad.
        state: of the model, that the program will hold for.

    Raises:
        CaptureError: the model cannot be captured for these inputs.
        UncoveredModel: parts of it run where no check can look.
    """
    captured = capture(model, args, kwargs, mode="keep", loss=loss, target=target)
    found = study(captured, Measured(), wrt=wrt, batch_size=batch_size)
    fallback = classify(found.structured, None) if found.classified.theorem == "T1" else None
    plan = plan_checks(found.facts, found.structured, found.classified, fallback)
    if plan.checks:
        _refuse_vmap(captured)
    module = insert_checks(captured.program, plan, found.graph, found.sources)
    call = (args, kwargs) if loss is None else loss_arguments(args, kwargs, target)
    inputs, _ = Inputs.of(*call)
    prefix = captured.strip_prefix
    parameters = {_plain(n, prefix): p for n, p in captured.parameters.items()}
    buffers = {_plain(n, prefix): b for n, b in captured.buffers.items()}
    names = tuple(str(n) for n in captured.program.graph_signature.user_inputs)
    constants, read = (*_constants_read(captured, found), *captured.read), _memory_read(captured)
    return Program(
        captured, found, plan, module, inputs, _dynamic(captured, len(inputs.leaves)),
        {n: parameters[n] for n in plan.trainable}, {**buffers, **parameters}, state.modules, state.attributes, names,
        constants, _values(constants), tuple(_attributes_held(state, read)),
        _places_of(state.tensors, read, storage_of), tuple(_memory_held(state, read)),
    )  # fmt: skip


def _refuse_vmap(captured: Captured) -> None:
    modules = (m for m in captured.program.graph_module.modules() if isinstance(m, fx.GraphModule))
    if any(getattr(n.target, "__name__", "") == "_vmap_increment_nesting" for m in modules for n in m.graph.nodes):
        raise UncoveredModel("the forward calls torch.vmap, where no check can look", hint="write the batch dimension out")


def _constants_read(captured: Captured, found: Study) -> Iterator[Tensor]:
    read = (n.arguments for n in found.graph.nodes if n.op == "fxcheck.constant")
    return (captured.program.constants[str(a["name"])] for a in read if a["value"] is not None)


def _values(constants: Sequence[Tensor]) -> tuple[int, ...]:
    return (*writes(constants), *map(checksum, constants))


def _memory_read(captured: Captured) -> set[Any]:
    """Of all tensors that the program has taken for constants."""
    return {storage_of(v) for v in (*captured.program.constants.values(), *captured.read) if isinstance(v, Tensor)}


def _places_of(tensors: Sequence[Tensor], known: set[Any], key: Callable[[Tensor], Any]) -> tuple[tuple[int, Tensor], ...]:
    return tuple((place, tensor) for place, tensor in enumerate(tensors) if key(tensor) in known)


def _attributes_held(state: State, read: set[Any]) -> Iterator[tuple[dict[str, Any], str, Any]]:
    for place in map(vars, state.glance.modules):
        yield from ((place, name, v) for name, v in place.items() if type(v) not in ProxyTypes and _leads_to(v, read))


def _memory_held(state: State, read: set[Any]) -> Iterator[tuple[Tensor, Any]]:
    modules = state.glance.modules
    registered = (chain(m._parameters.values(), m._buffers.values()) for m in modules)
    own = (v for m in modules for v in vars(m).values() if issubclass(type(v), Tensor))
    model = set(map(id, state.held))
    for tensor in chain(state.tensors, own, *registered):
        if tensor is not None and id(tensor) not in model and storage_of(tensor) in read:
            yield tensor, _memory_of(tensor)


def _memory_of(tensor: Tensor) -> tuple[Any, bool]:
    return storage_of(tensor), tensor.requires_grad


def _leads_to(value: Any, lifted: set[Any]) -> bool:
    """By way of what changes only as a whole, as a tuple."""
    return storage_of(value) in lifted if isinstance(value, Tensor) else any(_leads_to(v, lifted) for v in through(value))


def loss_arguments(
    args: tuple[Any, ...], kwargs: Mapping[str, Any], target: Any
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """How a program with a loss is called."""
    packed: tuple[Any, ...] = (tuple(args), dict(kwargs))
    return (packed if target is None else (*packed, target)), {}


def _plain(name: str, prefix: str) -> str:
    return name[len(prefix) :] if prefix and name.startswith(prefix) else name


def _dynamic(captured: Captured, leaves: int) -> tuple[bool, ...]:
    names = [str(n) for n in captured.program.graph_signature.user_inputs]
    values = {n.name: n.meta.get("val") for n in captured.program.graph.nodes if n.op == "placeholder"}
    if not captured.batch_dynamic or len(names) != leaves:
        return (False,) * leaves
    shapes: list[Any] = [getattr(values.get(n), "shape", ()) for n in names]
    return tuple(len(s) > 0 and isinstance(s[0], torch.SymInt) for s in shapes)
