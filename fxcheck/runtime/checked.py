"""The module that a training loop uses in place of the model: it computes the same and decides each step."""

from __future__ import annotations

import copy
import inspect
import threading
import time
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from operator import attrgetter, itemgetter
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils._pytree import tree_map

from fxcheck import scan
from fxcheck.capture.export import of_its_own
from fxcheck.capture.held import HOOKS, roots_of
from fxcheck.errors import NonFiniteError, StepError, UncoveredModel
from fxcheck.ops.observe import collecting
from fxcheck.records.step import CERTIFIED, StepResult, Summary
from fxcheck.runtime.collector import Collector
from fxcheck.runtime.conclude import conclude
from fxcheck.runtime.deposits import Ledger
from fxcheck.runtime.glance import are_trained
from fxcheck.runtime.joint import Joint, decide_jointly
from fxcheck.runtime.layer_mixture import mix_one_layer
from fxcheck.runtime.patience import Patience
from fxcheck.runtime.program import Program, build_program, loss_arguments
from fxcheck.runtime.ranks import gather_rows, world_size
from fxcheck.runtime.replay import Forward, heard_apart, listen, tensors_of
from fxcheck.runtime.session import Session
from fxcheck.runtime.signature import Inputs, State, versions, writes
from fxcheck.runtime.validate import validate

OnUncertified = str | Callable[[StepResult], Any]
_POLICIES = ("record", "warn", "raise")
_MOST_PROGRAMS = 16
_MANY_CAPTURES = 5
_MOST_GRADIENTS = 128
"""Backward passes that the rows and T_j of one forward may cost."""
_ALL = 1 << 30
_HOOKS = itemgetter(*HOOKS)
_REQUIRES_GRADIENT = attrgetter("requires_grad")
_CHECKPOINT = "torch.utils.checkpoint"
_OPEN: list[Session] = []
"""Of all checked modules, those whose step is open."""
_SHARED = ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set")


@dataclass(frozen=True)
class Settings:
    """How a model was instrumented."""

    loss: Callable[..., Any] | None
    has_target: bool
    batch_size: int | None
    wrt: tuple[tuple[int, str], ...] | None
    """The parameters that the step updates, by root (0: the model, 1: the loss) and name; None for all with requires_grad."""
    on_uncertified: OnUncertified
    allow_uncovered: bool
    exact_ties: bool
    joint_seconds: float
    """The most that the joint condition and the decomposition may take at a step."""


class CheckedModule(nn.Module):
    """A model whose training steps are checked.

    Parameters, buffers and submodules are the model's own objects under the model's own names, so ``state_dict``,
    ``parameters``, ``to``, ``train`` and optimizers work as on the model. Training forwards run a rewritten program
    that computes the same bit for bit; in eval mode and under ``no_grad`` the original forward runs, unchecked.

    Source: T5, T8, Algorithms 1 and 2 of Park, Chun, Lee (ICLR 2024).
    """

    def __init__(self, model: nn.Module, settings: Settings) -> None:
        super().__init__()
        # Written past nn.Module.__setattr__, which would register the model under a name of its own.
        self.__dict__.update({name: model.__dict__[name] for name in _SHARED})
        self.__dict__.update(
            _model=model, _settings=settings, _roots=roots_of(model, settings.loss), _programs=[], _state=None,
            _session=None, _owner=None, _opener=None, _several=True, _captured_anew=0,
            _ledger=Ledger.of(model),
            _patience=Patience(settings.joint_seconds), _summary=Summary(exact_ties=settings.exact_ties), last_step=None,
            validation="",
            # torch.compile leaves these eager: verdicts are about eager kernels.
            forward=torch.compiler.disable(self._forward), loss=torch.compiler.disable(self._loss),
        )  # fmt: skip
        with suppress(TypeError, ValueError):  # trainers read the names of arguments from it
            self.__dict__["forward"].__signature__ = inspect.signature(model.forward)

    # As the model ------------------------------------------------------------------------------

    @property
    def model(self) -> nn.Module:
        """The model that was instrumented."""
        return self._model

    @property
    def training(self) -> bool:  # type: ignore[override]
        """The model's own flag."""
        model = self.__dict__.get("_model")
        return True if model is None else model.training

    @training.setter
    def training(self, mode: bool) -> None:
        if "_model" in self.__dict__:
            self._model.training = mode

    @property
    def updated(self) -> tuple[nn.Parameter, ...]:
        """The parameters that verdicts are about: ``wrt``, or all with requires_grad."""
        wrt = self._wrt()
        found = {p: None for r in self._roots for p in r.parameters()} if wrt is None else dict.fromkeys(wrt)
        return tuple(p for p in found if p.requires_grad)

    def __getattr__(self, name: str) -> Any:
        """What the checked module has not, the model may have."""
        if "_model" not in self.__dict__:
            raise AttributeError(name)
        return getattr(self.__dict__["_model"], name)

    def __setattr__(self, name: str, value: Any) -> None:
        """What is read from the model is written to it: its forward reads it there."""
        super().__setattr__(name, value) if self._owns(name) else setattr(self._model, name, value)

    def __delattr__(self, name: str) -> None:
        super().__delattr__(name) if self._owns(name) else delattr(self._model, name)

    def _owns(self, name: str) -> bool:
        """Whether the name is read from the checked module itself; new ones, but private ones, are the model's."""
        own = self.__dict__
        if "_model" not in own or name in own or hasattr(type(self), name):
            return True
        return name.startswith("_") and not hasattr(self._model, name)

    def train(self, mode: bool = True) -> CheckedModule:
        """The model's own ``train``, overrides included."""
        self._model.train(mode)
        return self

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        return self._model.state_dict(*args, **kwargs)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        return self._model.load_state_dict(*args, **kwargs)

    def _apply(self, fn: Any, recurse: bool = True) -> CheckedModule:
        """``to``, ``double``, ``cuda``, ...: the programs are captured again at the next forward."""
        self._model._apply(fn, recurse)
        self.__dict__.update(_programs=[], _state=None)
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> CheckedModule:
        """A copy of the model and of the loss, instrumented alike; it is captured at its first forward."""
        model, loss = copy.deepcopy((self._model, self._settings.loss), memo)
        return CheckedModule(model, replace(self._settings, loss=loss))

    def __getstate__(self) -> dict[str, Any]:
        return {"model": self._model, "settings": self._settings}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["model"], state["settings"])  # type: ignore[misc]

    def extra_repr(self) -> str:
        return f"checked {type(self._model).__name__}"

    # Forwards ----------------------------------------------------------------------------------

    def _forward(self, *args: Any, **kwargs: Any) -> Any:
        """The model's output; in training with gradients, its touches and ties are observed.

        Raises:
            NonFiniteError: the forward computed NaN or infinity.
            StepError, InputError: see ``step``; nothing was changed.
            UncoveredModel: flags or inputs changed so that no theorem covers the model any more.
        """
        if not self._is_checked():
            return self._unchecked(self._model(*args, **kwargs))
        return self._checked(args, kwargs, None, False)

    def _loss(self, *args: Any, target: Any = None, **kwargs: Any) -> Any:
        """The scalar loss that the model was instrumented with, its kinks observed too.

        Raises:
            StepError: the model was instrumented without a loss, or a target is missing or not wanted.
        """
        settings = self._settings
        if settings.loss is None:
            raise StepError("this model was instrumented without a loss", hint="fxcheck.instrument(..., loss=criterion)")
        if settings.has_target != (target is not None):
            raise StepError(
                f"the loss was instrumented {'with' if settings.has_target else 'without'} a target",
                hint="pass target=... to instrument and to loss, or to neither",
            )
        if not self._is_checked():
            output = self._unchecked(self._model(*args, **kwargs))
            return settings.loss(output, target) if settings.has_target else settings.loss(output)
        return self._checked(args, kwargs, target, True)

    def _is_checked(self) -> bool:
        return self._model.training and torch.is_grad_enabled()

    def _unchecked(self, output: Any) -> Any:
        """Nobody looks at this forward; a gradient that comes to it would be no part of a step.

        The forward may enable gradients itself.
        """
        if not (torch.is_grad_enabled() or any(are_trained(tensors_of(output)))):
            return output
        if self._session is not None:
            self._session.problem("a forward in eval mode or under no_grad ran inside the step with gradients, and was not "
                                  "observed")  # fmt: skip
        output, returned = heard_apart(output, each=False)
        _listen_to(returned, self._ledger.count)
        return output

    def _checked(self, args: tuple[Any, ...], kwargs: dict[str, Any], target: Any, with_loss: bool) -> Any:
        started = time.perf_counter()
        self._enter_thread()
        if torch._C._functorch.peek_interpreter_stack() is not None:
            raise StepError(
                "a transform of torch.func (vmap, grad, jvp, ...) runs a checked module, whose values cannot be observed there",
                hint="transform the model itself; a step is one backward() of the loss",
            )
        roots = self._roots
        state = State.of(roots) if self._state is None else self._state.now(roots)
        program, call, inputs, leaves = self._program_for(state, args, kwargs, target, with_loss)
        if self._opener is not None:
            self._opener(self)
        session = self._session or Session(self._ledger, False, self._settings.joint_seconds)
        if not session.parameters:
            session.parameters, session.written = state.held, versions(state.held)
        for sentence in _outside_influence(program, leaves, state.glance.autocast):
            session.problem(sentence)
        session.joins(program, _samples(leaves))
        if any(_HOOKS(self.__dict__)):
            session.problem("the checked module has a hook, which may change outputs or gradients; put it on the model, where it "
                            "is seen")  # fmt: skip
        written = writes(leaves)
        if program.is_static:
            session.spend("other", started)
            output = self._run_static(args, kwargs, target, session, with_loss)
        else:
            output = self._run(program, call, inputs, leaves, written, session, started)
        if writes(leaves) != written and _share_memory(leaves, [*program.tensors.values(), *program.constants]):
            session.problem("the forward wrote into an input that shares memory with another tensor, which the program takes "
                            "for apart")  # fmt: skip
        if self._session is None:
            assert session.deposits is not None
            session.deposits.stand_alone = not program.is_static
            self._finish(session, StepResult())
        return output

    def _run(
        self, program: Program, call: tuple[Any, ...], inputs: Inputs, leaves: list[Any], written: tuple[int, ...],
        session: Session, started: float,
    ) -> Any:  # fmt: skip
        assert session.deposits is not None
        rng = torch.get_rng_state() if program.is_random else None
        forward = Forward(program, call, rng, self._state.glance.autocast, written, session.deposits)
        classes = program.classes_of(leaves, written)
        glances = program.glances[scan.chosen()]
        collector = Collector(program.plan, classes, program.pools, glances, program.can_wait, session.seconds)
        session.spend("other", started)
        with collecting(collector):
            output = program.run(call, inputs)
        session.add_forward(forward, collector, _ALL if self._settings.exact_ties else _MOST_GRADIENTS)
        started = time.perf_counter()
        output, returned = heard_apart(output, each=True)
        _refuse_non_finite(returned)
        forward.has_run(returned)
        session.spend("other", started)
        return output

    def _run_static(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], target: Any, session: Session, with_loss: bool
    ) -> Any:
        assert session.deposits is not None
        output = self._plain(args, kwargs, target, with_loss)
        started = time.perf_counter()
        self._accept_own_changes()
        output, returned = heard_apart(output, each=False)
        _refuse_non_finite(returned)
        _listen_to(returned, session.deposits.look_at)
        session.spend("other", started)
        return output

    def _accept_own_changes(self) -> None:
        """What the forward of a certified model writes into plain attributes, as a counter, asks for no other capture."""
        state = self._state
        if not state.glance.shows_same_attributes():
            now = State.of(self._roots)
            for _, program in self._programs:
                if program.holds_attributes_of(state):
                    program.goes_on_with(now)
            self.__dict__.update(_state=now)

    def _plain(self, args: tuple[Any, ...], kwargs: dict[str, Any], target: Any, with_loss: bool) -> Any:
        output = self._model(*args, **kwargs)
        if not with_loss:
            return output
        loss = self._settings.loss
        assert loss is not None
        return loss(output, target) if self._settings.has_target else loss(output)

    def _enter_thread(self) -> None:
        """One thread at a time: a step's rows belong to one loop.

        Raises:
            StepError: another thread is inside a step.
        """
        if self._session is not None and self._owner != threading.get_ident():
            raise StepError("another thread is inside a step of this checked module", hint="give each thread its own copy")

    # Programs ----------------------------------------------------------------------------------

    def _program_for(
        self, state: State, args: tuple[Any, ...], kwargs: dict[str, Any], target: Any, with_loss: bool
    ) -> tuple[Program, tuple[tuple[Any, ...], dict[str, Any]], Inputs, list[Any]]:
        """The program that fits the model's present state and these inputs; captured when there is none."""
        if self._state is not None and self._state is not state:
            self._state.refuse_other_parameters(state, self._roots)
        call = loss_arguments(args, kwargs, target) if with_loss else (args, kwargs)
        inputs, leaves = Inputs.of(*call)
        same_kind = None
        for known_loss, program in self._programs:
            if known_loss != with_loss:
                continue
            same_kind = program
            if program.is_of(state) and program.takes(inputs):
                self.__dict__["_state"] = state
                return program, call, inputs, leaves
        if same_kind is not None:
            same_kind.inputs.refuse_other_kind(inputs)
            if same_kind.inputs.fits(inputs, same_kind.dynamic):
                self._warn_of_captures(state, same_kind)
        batch_size = self._settings.batch_size
        program = self._capture(args, kwargs, target, with_loss, state, batch_size if _samples(leaves) == batch_size else None)
        known = [*self._programs[-_MOST_PROGRAMS:], (with_loss, program)]
        self.__dict__.update(_state=state, _programs=known)
        return program, call, inputs, leaves

    def _warn_of_captures(self, state: State, program: Program) -> None:
        """Once, where something that is baked in keeps changing: each capture takes as long as many steps."""
        self.__dict__["_captured_anew"] += 1
        if self._captured_anew == _MANY_CAPTURES:
            names = self._state.glance.what_differs(state.glance) or program.constants_changed()
            warnings.warn(
                f"fxcheck: the model has been captured anew {_MANY_CAPTURES} times, since what its code reads keeps changing "
                f"({', '.join(names[:3]) or 'modules, hooks or modes of torch'}); pass what changes at every step "
                "as a tensor, an input or a target, or hold it in a buffer", stacklevel=6,
            )  # fmt: skip

    def _capture(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], target: Any, with_loss: bool, state: State,
        batch_size: int | None,
    ) -> Program:  # fmt: skip
        settings = self._settings
        with _without_hooks():
            program = build_program(
                self._model, args, kwargs, loss=settings.loss if with_loss else None, target=target, batch_size=batch_size,
                wrt=self._wrt(), state=state,
            )  # fmt: skip
        is_larger = settings.batch_size is not None and batch_size is None  # than what T1 is about
        if program.plan.uncovered and not (settings.allow_uncovered or is_larger):
            raise UncoveredModel(_why_uncovered(program), hint="allow_uncovered=True counts touches and ties all the same")
        self._summary.theorem = program.study.classified.theorem or program.plan.theorem
        return program

    def _wrt(self) -> Collection[nn.Parameter] | None:
        if self._settings.wrt is None:
            return None
        named = [dict(r.named_parameters(remove_duplicate=False)) for r in self._roots]
        return [named[root][name] for root, name in self._settings.wrt]

    def prepare(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], target: Any) -> None:
        """Capture in training mode for the example inputs, and compare the result with the model, bit for bit."""
        with_loss = self._settings.loss is not None
        keywords = dict(kwargs)
        roots = self._roots
        flags = [(m, m.training) for r in roots for m in r.modules()]
        if not self._model.training:
            self._model.train()
        try:
            state = State.of(roots)
            program = self._capture(args, keywords, target, with_loss, state, self._settings.batch_size)
            self.__dict__.update(_state=state, _programs=[(with_loss, program)])

            def original() -> Any:
                return self._plain(*_apart(args, keywords, target), with_loss)

            def rewritten() -> Any:
                own = _apart(args, keywords, target)
                call = loss_arguments(*own) if with_loss else own[:2]
                return program.module(*call[0], **call[1])

            note = validate(
                nn.ModuleList(roots), tensors_of((args, keywords, target)), original, rewritten, program.trainable,
                program.is_static, program.has_generators,
            )  # fmt: skip
            self.__dict__.update(validation=note)
            self._summary.notes = (note,) if note else ()
        finally:
            for module, flag in flags:
                module.training = flag

    # Steps -------------------------------------------------------------------------------------

    @contextmanager
    def step(self) -> Iterator[StepResult]:
        """One optimizer step: every training forward inside counts, micro-batches too.

        The verdict stands when the block ends, so call ``optimizer.step()`` after it. An exception inside leaves no
        verdict and changes nothing.

        Raises:
            StepError: steps are nested, or parameters changed between forwards or before the end of the block.
        """
        if self._session is not None:
            raise StepError("a step of this checked module is already open", hint="close it first; steps do not nest")
        session, step = Session(self._ledger, self._several, self._settings.joint_seconds), StepResult()
        before = self._ledger.arrivals
        self.__dict__.update(_session=session, _owner=threading.get_ident())
        _OPEN.append(session)
        try:
            yield step
            started = time.perf_counter()
            program = session.program
            changed = session.was_updated or versions(session.parameters) != session.written
            if changed and (program is None or not program.plan.uncovered):
                raise StepError(
                    "parameters changed inside step(), so its forwards do not belong to one gradient",
                    hint="call optimizer.step() after the block",
                )
            session.look_back(self._ledger.arrivals - before)
            session.spend("other", started)
        finally:
            _OPEN.remove(session)
            self.__dict__.update(_session=None, _owner=None)
        self.__dict__.update(_several=session.forwards > 1)
        self._finish(session, step)

    @property
    def has_open_step(self) -> bool:
        """Whether forwards count towards a step that is not yet decided."""
        return self._session is not None

    def open_steps_with(self, opener: Callable[[CheckedModule], None] | None) -> None:
        """Let a trainer's integration open steps: it is called at each training forward.

        Args:
            opener: enters ``step()`` where none is open, and leaves it before the optimizer steps; None to have each such forward
                be a step.
        """
        self.__dict__.update(_opener=opener)

    def gather(self) -> None:
        """Pool the rows of all ranks of the process group; call it on every rank, inside the step, after its forwards.

        Raises:
            StepError: no step is open.
        """
        if self._session is None:
            raise StepError("gather() pools the rows of an open step", hint="call it inside `with checked.step():`")
        gather_rows(self._session)

    def _finish(self, session: Session, step: StepResult) -> None:
        started = time.perf_counter()
        before = sum(session.seconds.values())
        conclude(session, world_size(), step, lambda: self._look_at(session))
        session.spend("other", started + sum(session.seconds.values()) - before)
        self.__dict__.update(last_step=step)
        self._summary.add(step)
        if step.verdict != CERTIFIED:
            self._report(step)

    def _look_at(self, session: Session) -> Joint:
        """Decide a step as a whole, by running its forwards again."""
        if self._settings.joint_seconds <= 0:
            return Joint(text="it is switched off (joint_seconds=0)")
        if self._patience.is_at_an_end:
            return Joint(text=f"it was not looked at: {self._patience}")
        started = time.perf_counter()
        until = started + session.joint_seconds
        joint = mix_one_layer(session, until) or decide_jointly(session.runs, until, session.seconds)
        self._patience.learn(started, joint.certified or joint.refuted)
        return joint

    def _report(self, step: StepResult) -> None:
        policy = self._settings.on_uncertified
        if callable(policy):
            policy(step)
        elif policy == "warn":
            warnings.warn(f"fxcheck: step uncertified ({step.reason}): {step.text}", stacklevel=4)
        elif policy == "raise":
            raise StepError(f"step uncertified ({step.reason}): {step.text}", hint="on_uncertified='record' goes on")

    def summary(self) -> Summary:
        """Totals over all steps so far."""
        return self._summary


def _note_update(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    for session in _OPEN:
        session.note_update({id(p) for group in optimizer.param_groups for p in group["params"]})


register_optimizer_step_post_hook(_note_update)


def _why_uncovered(program: Program) -> str:
    reasons = program.plan.uncovered
    listed = "; ".join(f"{d.code} {d.message}" + (f" at {d.location}" if d.location else "") for d in reasons[:4])
    more = f"; and {len(reasons) - 4} more" if len(reasons) > 4 else ""
    return f"no theorem covers this model, so no step can be certified: {listed}{more}"


def _samples(leaves: list[Any]) -> int:
    for value in leaves:
        if isinstance(value, Tensor) and value.dim():
            return int(value.shape[0])
    return 1


def _without_hooks() -> AbstractContextManager[None]:
    """What a capture computes is nobody's saved tensor, as where the caller checkpoints the forward."""
    on = torch._C._autograd._top_saved_tensors_default_hooks(False) is not None
    return saved_tensors_hooks(_as_it_is, _as_it_is) if on else nullcontext()


def _as_it_is(value: Any) -> Any:
    return value


def _apart(args: tuple[Any, ...], kwargs: dict[str, Any], target: Any) -> tuple[tuple[Any, ...], dict[str, Any], Any]:
    """A call in tensors of its own, so that what the forward writes into them leaves the caller's without a history."""
    own: tuple[tuple[Any, ...], dict[str, Any], Any] = tree_map(of_its_own, (args, kwargs, target))
    return own


def _outside_influence(program: Program, leaves: list[Any], autocast: tuple[tuple[str, torch.dtype], ...]) -> list[str]:
    """What makes a forward more than a function of its inputs and the checked parameters."""
    found = []
    for value in leaves:
        if isinstance(value, Tensor) and value.grad_fn is not None:
            found.append("an input was computed with gradients outside the checked forward, where nothing is observed; "
                         "detach it, or make that computation part of the model")  # fmt: skip
        if id(value) in program.coordinates:
            found.append("an input is one of the checked parameters, which the program takes for data")
    hooks = torch._C._autograd._top_saved_tensors_default_hooks(False) or ()
    if torch._C._current_graph_task_id() != -1 or any(getattr(h, "__module__", "") == _CHECKPOINT for h in hooks):
        found.append("the checked module's forward runs inside of backward(), as under torch.utils.checkpoint, and nothing says "
                     "that it computes the same again; checkpoint inside of the model, where that is looked at")  # fmt: skip
    elif not all(map(_is_torchs_own, hooks)):
        found.append("saved tensors pass through pack and unpack hooks, which may change the gradient that AD computes")
    for _, dtype in autocast:
        found += program.differences_in(dtype)
    return found


def _share_memory(leaves: list[Any], others: Iterable[Tensor]) -> bool:
    """Whether an input has its memory from where another input or another tensor has it."""
    inputs, known = [_storage(v) for v in leaves if isinstance(v, Tensor)], {_storage(v) for v in others}
    return len(set(inputs)) < len(inputs) or not known.isdisjoint(inputs)


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr() if tensor.layout is torch.strided else id(tensor)


def _is_torchs_own(hook: Any) -> bool:
    """Made by a context of torch, which returns what it was given; a function of torch may have been put there by anybody."""
    return str(getattr(hook, "__module__", "")).startswith("torch.") and "<locals>" in getattr(hook, "__qualname__", "")


def _listen_to(outputs: Iterable[Tensor], listener: Callable[[Tensor], None]) -> None:
    for tensor in filter(_REQUIRES_GRADIENT, outputs):
        listen(tensor, listener, listener)


def _refuse_non_finite(outputs: Iterable[Tensor]) -> None:
    if not scan.are_finite(filter(Tensor.is_floating_point, outputs)):
        raise NonFiniteError(
            "the forward returned NaN or infinity; non-finite numbers have no subgradient",
            hint="look at the inputs and the learning rate; fxcheck gives no verdict on this step",
        )


def check_policy(policy: OnUncertified) -> None:
    """Refuse an unknown ``on_uncertified``.

    Raises:
        StepError: it is neither callable nor one of the known words.
    """
    if not callable(policy) and policy not in _POLICIES:
        raise StepError(f"on_uncertified={policy!r} is not known", hint=f"one of {', '.join(_POLICIES)}, or a callable")
