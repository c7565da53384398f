"""From the exported training IR to fxcheck's single-assignment graph: subgraphs inlined, mutations renamed away."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import chain, combinations
from typing import Any

import torch
from torch import fx

from fxcheck.capture.composites import EXPANSIONS
from fxcheck.capture.export import Captured
from fxcheck.capture.held import view_of
from fxcheck.capture.hidden import region_of
from fxcheck.capture.origin import OriginReader
from fxcheck.errors import CaptureError, UsageError
from fxcheck.records.graph import Graph, Node, OpenSize, Ref

_VIEWS_IN_PLACE = ("t_", "transpose_", "swapaxes_", "swapdims_", "squeeze_", "unsqueeze_")
"""Operators that change the sizes and strides of a tensor: it becomes a view of what it was, as views of that stay."""
_OF_LAYOUT = ("as_strided_", "resize_", "resize_as_", "set_")
"""Others, of which nothing is known."""
_INLINED = ("wrap_with_set_grad_enabled", "wrap_with_autocast", "tag_activation_checkpoint", "hints_wrapper", "wrap",
            "invoke_subgraph")  # fmt: skip
_ALIAS_WHEN_CONTIGUOUS = ("reshape", "flatten", "contiguous", "reshape_as", "unflatten", "view_as")
_OPERAND_OR_COPY = ("to", "type_as")
_MAY_RETURN_OPERAND = ("type_as", "sum_to_size", "atleast_1d", "atleast_2d", "atleast_3d", "positive")
_SIZES = frozenset({torch.ops.aten.sym_size.int, torch.ops.aten.sym_stride.int, torch.ops.aten.sym_numel.default,
                    torch.ops.aten.sym_storage_offset.default})  # fmt: skip
_STRIDED = frozenset({"aten.as_strided.default", "aten.as_strided_copy.default"})
_UPDATES_STATISTICS = {"aten.batch_norm.default": "training", "aten.instance_norm.default": "use_input_stats",
                       "aten.native_batch_norm.default": "training", "aten.cudnn_batch_norm.default": "training"}  # fmt: skip
"""Operators that write into their running statistics, by the argument that says so; their schemas do not."""
_MOST_READ = 10_000
"""Entries of a constant tensor whose value is read: each forward of a step compares them with what was read."""
_FREE = ("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout")


@dataclass(frozen=True)
class Sources:
    """Where the program holds what the single-assignment graph names: the way back for a rewriting pass."""

    emitter_of: Mapping[int, Place]
    """The program's node whose translation a graph node is part of; leaves have none."""
    holder_of: Mapping[int, Place]
    """The program's node that returns a graph node's value; what an expanded composite computes inside has none."""
    operand_of: Mapping[tuple[int, int], Place]
    """(graph node, graph node that it reads) -> the program's node from which it read that value."""


@dataclass(frozen=True)
class Place:
    """A node of the exported program."""

    path: tuple[str, ...]
    """Attribute names of the subgraphs that hold it; empty for the main graph."""
    name: str


def lower(captured: Captured, wrt: Collection[torch.nn.Parameter] | None = None) -> Graph:
    """The graph alone; see ``lower_with_sources``."""
    return lower_with_sources(captured, wrt)[0]


def lower_with_sources(
    captured: Captured, wrt: Collection[torch.nn.Parameter] | None = None
) -> tuple[Graph, Sources]:
    """Translate a captured model.

    Args:
        captured: the exported program with the original module's parameters.
        wrt: the parameters that the step updates; None for all with requires_grad.

    Returns:
        The graph, in execution order, with in-place operations replaced by new values that every alias sees; and
        where the program computes them.
    """
    if wrt is not None:
        _refuse_strangers(captured, wrt)
    lowering = _Lowering(captured, None if wrt is None else {id(p) for p in wrt})
    outputs = lowering.run()
    shape = lowering.batch_shape
    graph = Graph(
        tuple(lowering.nodes), outputs, shape[0] if shape else 1, captured.batch_dynamic, captured.smooth_criterion,
        frozenset(lowering.mutated_leaves - {-1}), frozenset(lowering.scattered), frozenset(lowering.overwritten),
        frozenset(lowering.reread), dict(lowering.trainable),
    )  # fmt: skip
    return graph, Sources(lowering.emitter_of, lowering.holder_of, lowering.operand_of)


def _refuse_strangers(captured: Captured, wrt: Collection[torch.nn.Parameter]) -> None:
    known = {id(p) for p in captured.parameters.values()}
    strangers = sum(id(p) not in known for p in wrt)
    if strangers:
        raise UsageError(
            f"wrt holds {strangers} tensors that are not parameters of the captured model",
            hint="give parameters of the model (or of a loss that is a module), or its optimizer",
        )


@dataclass
class _Slot:
    """A tensor of the program: its current value, and the base that it is a view of."""

    id: int
    version: int = 0
    base: _Slot | None = None
    seen: int = 0
    """The base's version that this view was derived from."""
    replay: tuple[str, dict[str, Any], str] | None = None
    """Operator, arguments and base argument that derive the view again; None for a view that cannot be derived."""
    storage: int = 0
    """Identity of the memory that the example value occupies; 0 when it is not known."""
    outputs: tuple[_Slot | None, ...] = ()
    """For a tuple of tensors: the operand that each of them is a view of, where the tuple as a whole is none."""
    leaf: int = -1
    """For a leaf: its node."""
    is_known_view: bool = True
    """Autograd knows of the view: what is written into it passes its gradient on to the base, and takes the old value's away."""
    savers: set[int] = field(default_factory=set)
    """For a base: nodes for whose gradients autograd may have saved its memory."""
    region: int = 0
    """For a base: the checkpointed region that made it."""
    rereaders: set[int] = field(default_factory=set)
    """For a base: nodes of other checkpointed regions that read it."""
    written_in: set[int] = field(default_factory=set)
    """For a base: the checkpointed regions that write it."""

    @property
    def chain(self) -> list[_Slot]:
        """The tensor, what it is a view of, and so on to the base."""
        return [self, *(self.base.chain if self.base else ())]

    @property
    def is_known(self) -> bool:
        """Autograd counts what is written into it as written into its base."""
        return all(slot.is_known_view for slot in self.chain[:-1])


class _Lowering:
    def __init__(self, captured: Captured, wrt: set[int] | None) -> None:
        self.captured = captured
        self.wrt = wrt
        self.nodes: list[Node] = []
        self.trainable: dict[int, str] = {}
        self.scattered: set[int] = set()
        self.overwritten: set[int] = set()
        self.reread: set[int] = set()
        self.region = 0
        """The checkpointed region of the node that is being translated."""
        self.batch_shape: tuple[int, ...] = ()
        self.leaf_of: dict[Any, _Slot] = {}
        self.parameter_memory: list[tuple[range, int, _Slot]] = []
        """Bytes, storage and leaf of every parameter."""
        self.state_memory: dict[int, list[tuple[torch.Tensor, int]]] = {}
        """By storage: buffers and constants, each with its leaf."""
        self.mutated_leaves: set[int] = set()
        self.knows_memory = captured.mode != "exported"
        """False for an archive: its example values have lost who shares memory with whom."""
        self.origins = OriginReader(captured.strip_prefix)
        self.path: tuple[str, ...] = ()
        """Attribute names of the subgraph that is being translated."""
        self.emitter_of: dict[int, Place] = {}
        self.holder_of: dict[int, Place] = {}
        self.operand_of: dict[tuple[int, int], Place] = {}

    # Values ------------------------------------------------------------------------------------

    def emit(self, op: str, arguments: Mapping[str, Any], value: Any, **extra: Any) -> int:
        """Append a node whose example value (a tensor, or a tuple of them) is given."""
        shape, dtype = None, None
        symbols: tuple[str, ...] = ()
        outputs: tuple[tuple[tuple[int, ...], str] | None, ...] = ()
        if isinstance(value, torch.Tensor):
            shape, dtype, symbols = _shape(value), _dtype(value.dtype), _symbols(value)
        elif isinstance(value, (tuple, list)):
            outputs = tuple((_shape(v), _dtype(v.dtype)) if isinstance(v, torch.Tensor) else None for v in value)
        node = Node(len(self.nodes), op, dict(arguments), shape, dtype, outputs=outputs, symbols=symbols, **extra)
        self.nodes.append(node)
        return node.id

    def read(self, slot: _Slot) -> int:
        """The current value, derived again when the base of a view has changed."""
        if slot.base is not None:
            base = self.read(slot.base)
            if slot.seen != slot.base.version:
                op, arguments, name = slot.replay or ("fxcheck.unknown_view", {}, "self")
                old = self.nodes[slot.id]
                slot.id = self._copy_node(old, op, {**arguments, name: Ref(base)})
                slot.version += 1
                slot.seen = slot.base.version
        return slot.id

    def _copy_node(self, old: Node, op: str, arguments: Mapping[str, Any]) -> int:
        node = Node(len(self.nodes), op, dict(arguments), old.shape, old.dtype, old.name, old.origin,
                    old.grad_enabled, old.outputs, old.called_as, old.symbols)  # fmt: skip
        self.nodes.append(node)
        return node.id

    def write(self, slot: _Slot, value: int, is_recorded: bool = True) -> None:
        """The tensor now holds another value; so do its base's entries under the view.

        Where autograd does not record it (``is_recorded``), the gradient still is that of the old value.
        """
        if not slot.is_known:
            self.overwritten |= slot.chain[-1].savers
        if slot.base is None:
            self.reread |= slot.rereaders
            slot.written_in.add(self.region)
        if slot.base is None and not is_recorded:
            value = self._unrecorded(slot, value)
        slot.id = value
        slot.version += 1
        self.mutated_leaves.add(slot.leaf)
        if slot.base is not None:
            base = self.read(slot.base)
            is_recorded = is_recorded and slot.is_known_view
            self.write(slot.base, self._view_write(base, value), is_recorded)
            slot.seen = slot.base.version if is_recorded else -1  # derived again from what the base now is to autograd

    def _view_write(self, base: int, source: int) -> int:
        """The base with other entries under a view."""
        return self._written(self.nodes[base], source, "fxcheck.view_write", {"self": Ref(base), "source": Ref(source)})

    def _written(self, old: Node, by: int, op: str, arguments: Mapping[str, Any]) -> int:
        """What a tensor holds after a write, as a part of the operation that writes."""
        id_, writer = self._copy_node(old, op, arguments), self.nodes[by]
        self.nodes[id_] = replace(self.nodes[id_], origin=writer.origin, grad_enabled=writer.grad_enabled,
                                  called_as=writer.called_as or writer.op)  # fmt: skip
        return id_

    def _unrecorded(self, slot: _Slot, value: int) -> int:
        """The new value and what it replaces, both cut off from autograd."""
        written = self._view_write(slot.id, value)
        return self._copy_node(self.nodes[written], "aten.detach.default", {"self": Ref(written)})

    # Leaves ------------------------------------------------------------------------------------

    def run(self) -> tuple[int, ...]:
        program = self.captured.program
        env: dict[fx.Node, Any] = {}
        for node in program.graph.nodes:
            if node.op == "placeholder":
                env[node] = self._leaf(node)
        results = self._walk(program.graph_module, env, True)
        mutated = set(program.graph_signature.buffers_to_mutate) | set(program.graph_signature.user_inputs_to_mutate)
        slots = [r for node, r in results if node is None or node.name not in mutated]
        self._refuse_writes_under_two_names()
        self._forget_values_of_mutated_constants()
        ids = [self.read(s) for s in slots if isinstance(s, _Slot)]
        floats = tuple(dict.fromkeys(i for i in ids if (self.nodes[i].dtype or "").startswith(("float", "bfloat"))))
        if not floats:
            raise CaptureError("the captured graph has lost the model's floating-point outputs", code="FX603",
                               hint="return tensors that torch operators compute")  # fmt: skip
        return floats

    def _leaf(self, node: fx.Node) -> Any:
        signature = self.captured.program.graph_signature
        value = node.meta.get("val")
        if not isinstance(value, torch.Tensor):
            return value
        name = signature.inputs_to_parameters.get(node.name)
        if name is not None:
            return self._parameter(name, value)
        buffer = signature.inputs_to_buffers.get(node.name)
        if buffer is not None:
            return self._state("fxcheck.buffer", {"name": self._plain(buffer)}, buffer, node)
        constant = signature.inputs_to_lifted_tensor_constants.get(node.name)
        if constant is not None:
            uniform = _uniform(self.captured.program.constants.get(constant))
            return self._state("fxcheck.constant", {"name": constant, "value": uniform}, constant, node)
        if not self.batch_shape and value.dim() > 0:
            self.batch_shape = _shape(value)
        return self._leaf_slot(self.emit("fxcheck.input", {"name": node.name}, value, name=node.name), value)

    def _leaf_slot(self, id_: int, value: torch.Tensor) -> _Slot:
        if self.nodes[id_].op != "fxcheck.input" and not _is_row_by_row(value):
            self.scattered.add(id_)
        return _Slot(id_, storage=self._memory(value), leaf=id_)

    def _plain(self, name: str) -> str:
        prefix = self.captured.strip_prefix
        return name[len(prefix) :] if prefix and name.startswith(prefix) else name

    def _parameter(self, name: str, value: torch.Tensor) -> _Slot:
        """One leaf for all names of one parameter, and for parameters that occupy the same memory."""
        original = self.captured.parameters.get(name)
        key = view_of(original) if original is not None else name
        if key not in self.leaf_of:
            plain = self._plain(name)
            id_ = self.emit("fxcheck.parameter", {"name": plain}, value, name=plain)
            self.leaf_of[key] = self._leaf_slot(id_, value)
        slot = self.leaf_of[key]
        if original is not None:
            self.parameter_memory.append((_bytes(original), original.untyped_storage()._cdata, slot))
            if name in self.captured.requires_grad and (self.wrt is None or id(original) in self.wrt):
                self.trainable.setdefault(slot.id, self.nodes[slot.id].name)
        return slot

    def _state(self, op: str, arguments: dict[str, Any], name: str, node: fx.Node) -> _Slot:
        """A buffer or constant; one that shares memory with a parameter is that parameter, cut off from autograd."""
        value = node.meta["val"]
        program = self.captured.program
        original = self.captured.buffers.get(name, program.constants.get(name))
        has_storage = isinstance(original, torch.Tensor) and original.layout is torch.strided
        owner = self._parameter_under(original) if has_storage else None
        if owner is not None:
            detached = self.emit("aten.detach.default", {"self": Ref(owner.id)}, value, name=node.name)
            return _Slot(detached, base=owner, seen=owner.version, storage=self._memory(value), is_known_view=False)
        slot = self._leaf_slot(self.emit(op, arguments, value, name=node.name), value)
        if has_storage:
            self.state_memory.setdefault(original.untyped_storage()._cdata, []).append((original, slot.leaf))
        return slot

    def _parameter_under(self, tensor: torch.Tensor) -> _Slot | None:
        storage, span = tensor.untyped_storage()._cdata, _bytes(tensor)
        return next((s for other, memory, s in self.parameter_memory if memory == storage and _overlap(span, other)), None)

    def _refuse_writes_under_two_names(self) -> None:
        """Tensors that share memory, and are not one, are nodes that know nothing of each other.

        Raises:
            CaptureError: the forward writes into one of them.
        """
        for (a, reader), (b, leaf) in chain.from_iterable(combinations(held, 2) for held in self.state_memory.values()):
            if a is not b and _overlap(_bytes(a), _bytes(b)) and not self.mutated_leaves.isdisjoint((leaf, reader)):
                names = " and ".join(repr(self.nodes[n].arguments["name"]) for n in (reader, leaf))
                raise CaptureError(
                    f"the forward writes into memory that {names} share, of which the captured graph knows nothing",
                    code="FX604", hint="give each of them memory of its own",
                )  # fmt: skip

    def _forget_values_of_mutated_constants(self) -> None:
        """What the forward writes into is not what it was at the next step."""
        for id_ in self.mutated_leaves - {-1}:
            node = self.nodes[id_]
            if "value" in node.arguments:
                self.nodes[id_] = replace(node, arguments={"name": node.arguments["name"], "value": None})

    def _memory(self, value: Any) -> int:
        if isinstance(value, (list, tuple)):
            value = next((v for v in value if isinstance(v, torch.Tensor)), None)
        if not self.knows_memory or not isinstance(value, torch.Tensor):
            return 0
        try:
            return int(value.untyped_storage()._cdata)
        except NotImplementedError:  # a wrapper, as inside vmap
            return 0

    # Nodes -------------------------------------------------------------------------------------

    def _walk(self, module: fx.GraphModule, env: dict[fx.Node, Any], grad: bool) -> list[tuple[fx.Node | None, Any]]:
        """Translate one (sub)graph; the values that it returns, with the fx nodes that hold them."""
        for node in module.graph.nodes:
            if node.op == "get_attr":
                env[node] = self._attribute(module, node)
            elif node.op == "call_function":
                first = len(self.nodes)
                read = {self.read(env[a]): a for a in node.all_input_nodes if isinstance(env.get(a), _Slot)}
                self.region = region_of(node)
                env[node] = self._call(node, env, grad)
                self._remember(node, range(first, len(self.nodes)), read)
                if not isinstance(env[node], list):
                    self._follow_memory(node, range(first, len(self.nodes)), env, grad)
                if isinstance(env[node], _Slot):
                    self.holder_of.setdefault(self.read(env[node]), Place(self.path, node.name))
            elif node.op == "output":
                flat = fx.map_arg(node.args[0], lambda n: n)
                return [(n if isinstance(n, fx.Node) else None, env[n] if isinstance(n, fx.Node) else n)
                        for n in _flatten(flat)]  # fmt: skip
        return []

    def _remember(self, node: fx.Node, emitted: range, read: Mapping[int, fx.Node]) -> None:
        """Which node of the program computed the emitted values, and from which nodes it read its operands."""
        for id_ in emitted:
            self.emitter_of.setdefault(id_, Place(self.path, node.name))
            for operand, held_by in read.items():
                self.operand_of.setdefault((id_, operand), Place(self.path, held_by.name))

    def _follow_memory(self, node: fx.Node, emitted: range, env: dict[fx.Node, Any], grad: bool) -> None:
        if grad:
            self._may_save(node, emitted, env)
        if self.region:
            self._computed_again(node, emitted, env)

    def _computed_again(self, node: fx.Node, emitted: range, env: dict[fx.Node, Any]) -> None:
        """What a checkpointed region reads of the memory that it did not make: writes of the region and later ones change it."""
        unread = _statistics_not_read(node)
        read = [env[a].chain[-1] for a in node.all_input_nodes if isinstance(env.get(a), _Slot) and a not in unread]
        made = env[node].chain[-1] if isinstance(env[node], _Slot) else None
        if made is not None and not any(made is base for base in read):
            made.region = self.region
        for base in read:
            if base is not made and base.region != self.region:
                base.rereaders.update(emitted)
                self.reread.update(emitted if self.region in base.written_in else ())

    def _may_save(self, node: fx.Node, emitted: range, env: dict[fx.Node, Any]) -> None:
        """What is computed where gradients are recorded, from its operands: autograd may have saved them and the result."""
        result, schema = env[node], getattr(node.target, "_schema", None)
        if isinstance(result, _Slot) and not result.is_known and schema is not None and schema.is_mutable:
            return  # written into what needs no gradient
        unread = _statistics_not_read(node)
        for slot in (result, *(env.get(a) for a in node.all_input_nodes if a not in unread)):
            if isinstance(slot, _Slot):
                slot.chain[-1].savers.update(emitted)

    def _attribute(self, module: fx.GraphModule, node: fx.Node) -> Any:
        value: Any = module
        for part in str(node.target).split("."):
            value = getattr(value, part)
        if isinstance(value, torch.Tensor):
            leaf = {"name": str(node.target), "value": _uniform(value)}
            return self._leaf_slot(self.emit("fxcheck.constant", leaf, value, name=node.name), value)
        return value

    def _call(self, node: fx.Node, env: dict[fx.Node, Any], grad: bool) -> Any:
        target = node.target
        if isinstance(target, torch._ops.HigherOrderOperator):
            return self._higher_order(node, env, grad)
        value = node.meta.get("val")
        if getattr(target, "__name__", "") == "getitem" and not isinstance(target, torch._ops.OpOverload):
            return self._getitem(node, env, grad)
        if not isinstance(target, torch._ops.OpOverload):
            if _holds_tensor(value):
                return self._python_function(node, env, grad, value)
            return self._number_from_data("fxcheck.arithmetic", node, env, grad, value)
        if _holds_tensor(value) or value is None:
            held = self._operator(node, env, grad)
            return held if _returns_tensor(target) else None
        if target in _SIZES and _is_known(value):
            return value
        op = "fxcheck.size" if target in _SIZES else "aten.item.default"
        return self._number_from_data(op, node, env, grad, value)

    def _python_function(self, node: fx.Node, env: dict[fx.Node, Any], grad: bool, value: Any) -> _Slot:
        """A function that is no operator (what vmap leaves in a graph): nothing is known about it."""
        operands = tuple(Ref(self.read(env[a])) for a in node.all_input_nodes if isinstance(env[a], _Slot))
        op = f"python.{getattr(node.target, '__name__', 'function')}"
        return _Slot(self.emit(op, {"operands": operands}, value, name=node.name, origin=self.origins.of(node),
                               grad_enabled=grad))  # fmt: skip

    def _number_from_data(self, op: str, node: fx.Node, env: dict[fx.Node, Any], grad: bool, value: Any) -> Any:
        """A number that depends on tensors, or on such numbers, stays a node; other numbers are plain."""
        operands = tuple(Ref(self.read(env[a])) for a in node.all_input_nodes if isinstance(env[a], _Slot))
        if not operands:
            return value
        arguments: dict[str, Any] = {"self": operands[0]} if len(operands) == 1 else {"operands": operands}
        return _Slot(self.emit(op, arguments, None, name=node.name, origin=self.origins.of(node), grad_enabled=grad))

    def _getitem(self, node: fx.Node, env: dict[fx.Node, Any], grad: bool) -> Any:
        source, index = node.args
        held = env[source]  # type: ignore[index]
        if isinstance(held, (list, tuple)):
            return held[index]  # type: ignore[index]
        if not isinstance(held, _Slot):
            return node.meta.get("val")
        arguments = {"self": Ref(self.read(held)), "index": index}
        id_ = self.emit("fxcheck.getitem", arguments, node.meta.get("val"), name=node.name,
                        origin=self.origins.of(node), grad_enabled=grad)  # fmt: skip
        memory = self._memory(node.meta.get("val"))
        if held.base is not None:  # one output of split, chunk or unbind: a view of what was split
            replay = ("fxcheck.getitem", arguments, "self")
            return _Slot(id_, base=held, seen=held.version, replay=replay, storage=memory)
        viewed = held.outputs[index] if held.outputs else None  # type: ignore[index]
        return _Slot(id_, base=viewed, seen=viewed.version if viewed else 0, storage=memory)

    def _higher_order(self, node: fx.Node, env: dict[fx.Node, Any], grad: bool) -> Any:
        operator: Any = node.target
        name = str(operator.name())
        args = list(node.args)
        graphs = (i for i, a in enumerate(args) if isinstance(a, fx.Node) and isinstance(env[a], fx.GraphModule))
        body = next(graphs, -1)
        if name in _INLINED and body >= 0:
            inside = grad and bool(args[0]) if name == "wrap_with_set_grad_enabled" else grad
            if name == "wrap_with_set_grad_enabled" and args[0] is True:
                inside = True
            module = env[args[body]]  # type: ignore[index]
            operands = [env[a] if isinstance(a, fx.Node) else a for a in args[body + 1 :]]
            outer, self.path = self.path, (*self.path, str(args[body].target))  # type: ignore[union-attr]
            returned = [value for _, value in self._inline(module, operands, inside)]
            self.path = outer
            return returned
        tensors = tuple(Ref(self.read(env[a])) for a in node.all_input_nodes if isinstance(env[a], _Slot))
        id_ = self.emit(f"higher_order.{name}", {"operands": tensors}, node.meta.get("val"), name=node.name,
                        origin=self.origins.of(node), grad_enabled=grad)  # fmt: skip
        return _Slot(id_)

    def _inline(self, module: fx.GraphModule, operands: list[Any], grad: bool) -> list[tuple[fx.Node | None, Any]]:
        placeholders = [n for n in module.graph.nodes if n.op == "placeholder"]
        if len(operands) < len(placeholders):
            raise ValueError("a subgraph is called with fewer operands than it has inputs")
        return self._walk(module, dict(zip(placeholders, operands, strict=False)), grad)

    def _operator(self, node: fx.Node, env: dict[fx.Node, Any], grad: bool) -> Any:
        target = node.target
        assert isinstance(target, torch._ops.OpOverload)
        slots: dict[str, _Slot] = {}
        arguments = self._arguments(node, env, slots)
        op = _name_of(target)
        if op in _STRIDED and not _shows_its_memory(node.all_input_nodes[0]):
            op = "fxcheck.strided_outside"
        value = node.meta.get("val")
        extra = {"name": node.name, "origin": self.origins.of(node), "grad_enabled": grad}
        written = [a.name for a in target._schema.arguments if a.alias_info is not None and a.alias_info.is_write]
        if op == "aten.broadcast_tensors.default":
            return self._broadcast([env[n] for n in node.args[0]], value, extra)  # type: ignore[union-attr, index]
        expanded = EXPANSIONS[op](self, arguments, value, extra) if op in EXPANSIONS else None
        if expanded is not None:
            return _Slot(expanded)
        if written == ["self"] and "self" in slots:
            return self._in_place(op, arguments, slots["self"], value, extra)
        if written:
            return self._unknown_write(node, env, op, arguments, slots, written, value, extra)
        id_ = self.emit(op, {**arguments, **dict.fromkeys(_only_written(op, arguments))}, value, **extra)
        self._update_statistics(id_, op, arguments, slots)
        return self._result(node, env, id_, op, arguments, slots, value)

    def _arguments(self, node: fx.Node, env: dict[fx.Node, Any], slots: dict[str, _Slot]) -> dict[str, Any]:
        schema = node.target._schema.arguments  # type: ignore[union-attr]
        out: dict[str, Any] = {}
        for argument, raw in zip(schema, _given(node), strict=True):
            if isinstance(raw, fx.Node) and isinstance(env[raw], _Slot):
                slots[argument.name] = env[raw]
            out[argument.name] = self._argument(raw, env)
        return out

    def _argument(self, raw: Any, env: dict[fx.Node, Any]) -> Any:
        if isinstance(raw, fx.Node):
            held = env[raw]
            return Ref(self.read(held)) if isinstance(held, _Slot) else _number(held)
        if isinstance(raw, (list, tuple)):
            return tuple(self._argument(r, env) for r in raw)
        return _number(raw)

    def _update_statistics(self, by: int, op: str, arguments: dict[str, Any], slots: dict[str, _Slot]) -> None:
        """Normalisation over the batch updates its running statistics without gradient; who reads them later sees it.

        Autograd does not: it counts no write (torch 2.9 to 2.14).
        """
        statistics = _only_written(op, arguments)
        read = [slot.chain[-1] for name, slot in slots.items() if name not in statistics]
        for name in statistics:
            if name in slots:
                base = slots[name].chain[-1]
                self.overwritten |= base.savers | ({by} if any(base is r for r in read) else set())
                old = self.nodes[self.read(slots[name])]
                updated = {"self": Ref(old.id), "input": arguments["input"]}
                self.write(slots[name], self._written(old, by, "fxcheck.running_statistics", updated))

    def _broadcast(self, operands: list[_Slot], values: Any, extra: dict[str, Any]) -> list[_Slot]:
        """One expanded view of each operand: they do not depend on one another."""
        expanded = []
        for slot, value in zip(operands, values, strict=True):
            arguments = {"self": Ref(self.read(slot)), "size": _shape(value), "implicit": False}
            id_ = self.emit("aten.expand.default", arguments, value, **extra)
            replay = ("aten.expand.default", arguments, "self")
            expanded.append(_Slot(id_, base=slot, seen=slot.version, replay=replay, storage=self._memory(value)))
        return expanded

    def _in_place(self, op: str, arguments: dict[str, Any], slot: _Slot, value: Any, extra: dict[str, Any]) -> _Slot:
        name, arguments = _functional(op, arguments, self.nodes)
        id_ = self.emit(name, arguments, value, called_as=op if name != op else "", **extra)
        if op.split(".")[1] in _VIEWS_IN_PLACE:
            return _Slot(id_, base=slot, seen=slot.version, replay=(name, arguments, "self"), storage=self._memory(value))
        self.write(slot, id_, extra["grad_enabled"])
        return slot

    def _unknown_write(
        self, node: fx.Node, env: dict[fx.Node, Any], op: str, arguments: dict[str, Any], slots: dict[str, _Slot],
        written: list[str], value: Any, extra: dict[str, Any],
    ) -> _Slot:  # fmt: skip
        """An operator that writes into other arguments: what they hold afterwards depends on all of its operands."""
        if written == ["out"] and "out" in slots:
            functional = _without_out(node.target)  # type: ignore[arg-type]
            kept = {k: v for k, v in arguments.items() if k != "out" or not functional}
            id_ = self.emit(functional or op, kept, value, called_as=op if functional else "", **extra)
            self.write(slots["out"], id_, extra["grad_enabled"])
            return slots["out"]
        id_ = self.emit(op, arguments, value, **extra)
        schema = node.target._schema.arguments  # type: ignore[union-attr]
        raw = [r for argument, r in zip(schema, _given(node), strict=True) if argument.name in written]
        for held in (env[r] for r in _flatten(raw) if isinstance(r, fx.Node)):
            if not isinstance(held, _Slot):
                raise CaptureError(f"{op} writes into a tensor that the captured graph does not show", code="FX604",
                                   hint="write into tensors one by one, with operators that torch.export knows")  # fmt: skip
            old = self.nodes[self.read(held)]
            self.write(held, self._written(old, id_, "fxcheck.written", {"self": Ref(id_)}), extra["grad_enabled"])
        return _Slot(id_, storage=self._memory(value))

    def _result(
        self, node: fx.Node, env: dict[fx.Node, Any], id_: int, op: str, arguments: dict[str, Any],
        slots: dict[str, _Slot], value: Any,
    ) -> _Slot:  # fmt: skip
        memory = self._memory(value)
        by_schema = not memory or op.split(".")[1] in _FREE  # a fake dropout may copy where the real one does not
        base = self._aliased(node, op, slots) if by_schema else self._sharing(slots, memory)
        if base is not None:
            if memory and op.split(".")[1] in _OPERAND_OR_COPY:  # the operand itself, gradient and all, in a no_grad region too
                self.nodes[id_] = replace(self.nodes[id_], grad_enabled=True)
            return _Slot(id_, base=slots[base], seen=slots[base].version, replay=(op, arguments, base), storage=memory,
                         is_known_view=_is_known_view(node.target))  # type: ignore[arg-type]  # fmt: skip
        listed = [env[n] for n in node.all_input_nodes if isinstance(env.get(n), _Slot)]
        if isinstance(value, (list, tuple)):
            return _Slot(id_, storage=memory, outputs=tuple(self._owner(listed, self._memory(v)) for v in value))
        owner = self._owner(listed, memory)
        return _Slot(id_, base=owner, seen=owner.version if owner else 0, storage=memory, is_known_view=False)

    @staticmethod
    def _sharing(slots: dict[str, _Slot], memory: int) -> str | None:
        return next((name for name, slot in slots.items() if slot.storage == memory), None)

    @staticmethod
    def _owner(operands: list[_Slot], memory: int) -> _Slot | None:
        return next((slot for slot in operands if memory and slot.storage == memory), None)

    def _aliased(self, node: fx.Node, op: str, slots: dict[str, _Slot]) -> str | None:
        """The argument that the result shares memory with, by the schema: for archives."""
        base = op.split(".")[1]
        if base in _FREE:
            return "input" if not node.args[2:] or node.args[2] is False or node.args[1] == 0 else None
        named = [a.name for a in node.target._schema.arguments  # type: ignore[union-attr]
                 if a.alias_info is not None and not a.alias_info.is_write and a.name in slots]  # fmt: skip
        named = named or [name for name in slots if base in _MAY_RETURN_OPERAND][:1]
        if not named:
            return None
        source = node.args[0].meta.get("val") if isinstance(node.args[0], fx.Node) else None
        if base in (*_ALIAS_WHEN_CONTIGUOUS, *_OPERAND_OR_COPY) and isinstance(source, torch.Tensor):
            copied = base == "to" and (node.kwargs.get("copy") is True or True in node.args[2:])
            return named[0] if not copied and _shares_memory(base, source, node.meta.get("val")) else None
        return named[0]


# Helpers ---------------------------------------------------------------------------------------


def _functional(op: str, arguments: dict[str, Any], nodes: list[Node]) -> tuple[str, dict[str, Any]]:
    """The out-of-place operator of an in-place one: ``aten.relu_.default`` -> ``aten.relu.default``."""
    namespace, name, overload = op.split(".")
    if name == "copy_":
        source, target = arguments["src"], arguments["self"]
        if isinstance(source, Ref) and nodes[source.id].shape == nodes[target.id].shape:
            return "aten.clone.default", {"self": source, "memory_format": None}
    if name in _OF_LAYOUT:
        return "fxcheck.strided_outside", arguments
    if name == "transpose_":
        return "aten.transpose.int", arguments
    return (f"{namespace}.{name[:-1]}.{overload}", arguments) if name.endswith("_") else (op, arguments)


def _given(node: fx.Node) -> list[Any]:
    """What a call gives for each argument of its operator's schema, in order."""
    return [node.kwargs[argument.name] if argument.name in node.kwargs else (
                node.args[i] if i < len(node.args) and not argument.kwarg_only else argument.default_value)
            for i, argument in enumerate(node.target._schema.arguments)]  # type: ignore[union-attr]  # fmt: skip


@lru_cache(maxsize=4096)
def _is_known_view(target: torch._ops.OpOverload) -> bool:
    """Autograd takes what an operator returns for a view of its operand, or it is the operand itself."""
    name = target._schema.name.split("::")[1]
    is_declared = any(r.alias_info is not None for r in target._schema.returns)
    return not name.startswith("detach") and (is_declared or name in (*_FREE, *_MAY_RETURN_OPERAND))


@lru_cache(maxsize=256)
def _without_out(target: torch._ops.OpOverload) -> str:
    """The overload that returns what this one writes into ``out``; empty when there is none."""
    wanted = [(a.name, str(a.type)) for a in target._schema.arguments if a.name != "out"]
    packet = target.overloadpacket
    for overload in packet.overloads():
        found = getattr(packet, overload)
        if [(a.name, str(a.type)) for a in found._schema.arguments] == wanted:
            return f"{target.namespace}.{target._schema.name.split('::')[1]}.{overload}"
    return ""


def _shares_memory(base: str, source: torch.Tensor, result: Any) -> bool:
    if not isinstance(result, torch.Tensor) or source.dtype != result.dtype or source.device != result.device:
        return False
    if base in _OPERAND_OR_COPY:
        return True
    if base == "contiguous":
        return tuple(source.stride()) == tuple(result.stride())
    try:
        source.detach().view(result.shape)
    except Exception:  # a view is impossible: torch copies
        return False
    return True


def _name_of(target: torch._ops.OpOverload) -> str:
    return f"{target.namespace}.{target._schema.name.split('::')[1]}.{target._overloadname}"


def _only_written(op: str, arguments: Mapping[str, Any]) -> tuple[str, ...]:
    """Arguments that an operator writes and does not read: running statistics, where it normalises over the batch."""
    flag = _UPDATES_STATISTICS.get(op)
    return ("running_mean", "running_var") if flag is not None and arguments[flag] else ()


def _statistics_not_read(node: fx.Node) -> list[fx.Node]:
    """Running statistics that normalisation over the batch writes, and does not read."""
    target = node.target
    if not isinstance(target, torch._ops.OpOverload) or _name_of(target) not in _UPDATES_STATISTICS:
        return []
    given = dict(zip((a.name for a in target._schema.arguments), _given(node), strict=True))
    statistics = _only_written(_name_of(target), given)
    read = [v for name, v in given.items() if name not in statistics]
    return [given[name] for name in statistics if not any(given[name] is v for v in read)]


def _flatten(value: Any) -> list[Any]:
    if isinstance(value, (list, tuple)):
        return [v for item in value for v in _flatten(item)]
    return [value]


def _is_row_by_row(value: torch.Tensor) -> bool:
    """Told by the strides of sizes 1 too: torch's kernels read them."""
    return value.stride() == torch.empty(value.shape, device="meta").stride()


def _shows_its_memory(node: fx.Node) -> bool:
    """Every entry of the memory that a tensor lies in is one of its entries."""
    value = node.meta["val"]
    covers = _size(value.numel()) * value.element_size() == _size(value.untyped_storage().nbytes())
    return covers and not _overlaps_itself(value)


def _overlaps_itself(value: torch.Tensor) -> bool:
    """Two entries may be one place in memory."""
    span = 1
    for stride, size in sorted((_size(s), _size(n)) for s, n in zip(value.stride(), value.shape, strict=True) if n != 1):
        if stride < span:
            return True
        span = stride * size
    return False


def _bytes(tensor: torch.Tensor) -> range:
    """The bytes of its storage that a tensor spans."""
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    start = tensor.storage_offset() * tensor.element_size()
    return range(start, start + (last + 1) * tensor.element_size() if tensor.numel() else start)


def _overlap(a: range, b: range) -> bool:
    return max(a.start, b.start) < min(a.stop, b.stop)


@lru_cache(maxsize=4096)
def _returns_tensor(target: torch._ops.OpOverload) -> bool:
    return any("Tensor" in str(r.type) for r in target._schema.returns)


def _is_known(value: Any) -> bool:
    """False for a size that depends on the entries of a tensor."""
    return not isinstance(value, torch.SymInt) or value.node.has_hint()


def _holds_tensor(value: Any) -> bool:
    return isinstance(value, torch.Tensor) or (isinstance(value, (list, tuple)) and any(map(_holds_tensor, value)))


def _size(value: Any) -> int:
    hint = getattr(getattr(value, "node", None), "hint", None)
    return int(hint) if hint is not None else int(value) if isinstance(value, int) else 1


def _shape(value: torch.Tensor) -> tuple[int, ...]:
    return tuple(_size(s) for s in value.shape)


def _symbols(value: torch.Tensor) -> tuple[str, ...]:
    return tuple(str(s) if isinstance(s, torch.SymInt) else "" for s in value.shape)


def _dtype(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _number(value: Any) -> Any:
    if isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool)):
        return OpenSize(_size(value)) if isinstance(value, torch.SymInt) else value.node.hint
    if isinstance(value, torch.dtype):
        return _dtype(value)
    if isinstance(value, (torch.device, torch.layout, torch.memory_format)):
        return str(value)
    return value


def _uniform(value: Any) -> float | None:
    """The number that all entries of a real constant tensor equal."""
    if not isinstance(value, torch.Tensor) or value.numel() == 0 or value.is_meta or value.is_complex():
        return None
    if type(value).__name__ == "FakeTensor" or value.numel() > _MOST_READ:
        return None
    first = value.reshape(-1)[0]
    return float(first) if bool((value == first).all()) else None


