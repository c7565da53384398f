"""Wrong use gets one clear sentence and changes nothing."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import fxcheck
from fxcheck.errors import FxcheckError, InputError, NonFiniteError, StepError, UncoveredModel, UsageError
from fxcheck.runtime.checked import CheckedModule
from tests.runtime.models import flat_images, small_cnn


@pytest.fixture
def checked() -> CheckedModule:
    return fxcheck.instrument(small_cnn(), (flat_images(),))


def _works(checked: CheckedModule) -> None:
    with checked.step() as step:
        checked(flat_images()).sum().backward()
    assert step.verdict == "certified"


def test_stepping_the_optimizer_inside_the_block(checked: CheckedModule) -> None:
    optimizer = torch.optim.SGD(checked.parameters(), lr=0.1)
    with pytest.raises(StepError, match="parameters changed inside step"), checked.step() as step:
        checked(flat_images()).sum().backward()
        optimizer.step()
    assert step.verdict is None and checked.summary().steps == 0
    _works(checked)


def test_another_dtype_is_refused(checked: CheckedModule) -> None:
    with pytest.raises(InputError, match=r"input 0 is torch\.float64 on cpu; the model was"):
        checked(flat_images().double())
    _works(checked)


def test_a_replaced_parameter_is_refused(checked: CheckedModule) -> None:
    kept = checked.model[0].weight
    checked.model[0].weight = nn.Parameter(torch.randn(4, 2, 3, 3))
    with pytest.raises(StepError, match=r"0.weight.*instrumented"):
        checked(flat_images())
    checked.model[0].weight = kept
    _works(checked)


def test_a_frozen_parameter_is_refused(checked: CheckedModule) -> None:
    checked.model[0].bias.requires_grad_(False)
    with pytest.raises(StepError, match=r"requires_grad of 0.bias changed to False"):
        checked(flat_images())
    checked.model[0].bias.requires_grad_(True)
    _works(checked)


def test_moving_the_model_behind_the_checks_is_refused(checked: CheckedModule) -> None:
    checked.model.double()
    with pytest.raises(StepError, match=r"moved from torch.float32 on cpu to torch.float64"):
        checked(flat_images().double())


def test_an_exception_inside_the_block_leaves_no_verdict(checked: CheckedModule) -> None:
    with pytest.raises(RuntimeError, match="mine"), checked.step() as step:
        checked(flat_images()).sum().backward()
        raise RuntimeError("mine")
    assert step.verdict is None and step.certificate is None and checked.summary().steps == 0
    _works(checked)


def test_a_forward_that_raises_can_be_followed_by_others(checked: CheckedModule) -> None:
    with pytest.raises((RuntimeError, FxcheckError)):
        checked(torch.randn(4, 3, 8, 8))
    _works(checked)


def test_steps_do_not_nest(checked: CheckedModule) -> None:
    with checked.step():
        checked(flat_images())
        with pytest.raises(StepError, match="already open"), checked.step():
            pass
    _works(checked)


def test_another_thread_cannot_enter_a_step(checked: CheckedModule) -> None:
    caught: list[Exception] = []

    def run() -> None:
        try:
            checked(flat_images())
        except StepError as error:
            caught.append(error)

    with checked.step() as step:
        checked(flat_images())
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    assert "another thread" in str(caught[0]) and step.forwards == 1


def test_a_step_without_a_forward_is_not_certified(checked: CheckedModule) -> None:
    with checked.step() as step:
        pass
    assert (step.verdict, step.reason) == ("uncertified", "undecided") and "no training forward" in step.text


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_non_finite_numbers_are_an_error(checked: CheckedModule, bad: float) -> None:
    x = flat_images()
    x[0, 0, 0, 0] = bad
    with pytest.raises(NonFiniteError, match="NaN or infinity"):
        checked(x)
    assert checked.summary().steps == 0
    _works(checked)


def test_non_finite_numbers_are_an_error_in_certified_models_too() -> None:
    checked = fxcheck.instrument(nn.Sequential(nn.Linear(3, 3), nn.ReLU()), (torch.randn(2, 3),))
    with pytest.raises(NonFiniteError):
        checked(torch.full((2, 3), float("inf")))


class _Detaching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.linear(x)
        return torch.relu(y) + y.detach()


def test_an_uncovered_model_raises_with_its_diagnostics() -> None:
    with pytest.raises(UncoveredModel, match=r"FX501.*detach"):
        fxcheck.instrument(_Detaching(), (torch.randn(2, 3),))


def _reversed(gradient: torch.Tensor) -> torch.Tensor:
    return -gradient


HOOKS = {
    "of a parameter": lambda m: m[0].weight.register_hook(_reversed),
    "after accumulation": lambda m: m[0].weight.register_post_accumulate_grad_hook(lambda p: None),
    "before a module's backward": lambda m: m[1].register_full_backward_pre_hook(lambda _, gradients: gradients),
    "of all modules": lambda m: nn.modules.module.register_module_full_backward_hook(lambda *_: None),
}


MODELS = {"checked": lambda: small_cnn(inplace=False), "static": lambda: nn.Sequential(nn.Linear(8, 3), nn.ReLU())}


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("name", HOOKS)
def test_a_hook_that_comes_later_is_noticed(name: str, kind: str) -> None:
    model = MODELS[kind]()
    x = flat_images()
    checked = fxcheck.instrument(model, (x,))
    hook = HOOKS[name](model)
    try:
        with pytest.raises(UncoveredModel, match=r"FX505.*hook"), checked.step():
            checked(x)
    finally:
        hook.remove()
    _works(checked)


@pytest.mark.parametrize("kind", MODELS)
def test_a_hook_on_the_checked_module_leaves_the_step_undecided(kind: str) -> None:
    x = flat_images()
    checked = fxcheck.instrument(MODELS[kind](), (x,))
    for register in (checked.register_full_backward_pre_hook, checked.register_forward_hook):
        hook = register(lambda *_: None)
        with checked.step() as step:
            checked(x).sum().backward()
        hook.remove()
        assert (step.verdict, step.reason) == ("uncertified", "undecided") and "hook" in step.text
    _works(checked)


@pytest.mark.parametrize("kind", MODELS)
def test_a_parameter_that_is_frozen_before_backward_leaves_the_step_undecided(kind: str) -> None:
    x, model = flat_images(), MODELS[kind]()
    checked = fxcheck.instrument(model, (x,))
    with checked.step() as step:
        output = checked(x).sum()
        model[0].bias.requires_grad_(False)
        output.backward()
    model[0].bias.requires_grad_(True)
    assert (step.verdict, step.reason) == ("uncertified", "undecided") and "frozen" in step.text
    _works(checked)


@pytest.mark.parametrize("kind", MODELS)
def test_a_gradient_that_is_not_finite_is_never_certified(kind: str) -> None:
    x = flat_images()
    checked = fxcheck.instrument(MODELS[kind](), (x,))
    with checked.step() as step:
        (checked(x) * torch.inf).sum().backward()
    assert (step.verdict, step.reason) == ("uncertified", "undecided") and "infinity" in step.text
    checked.zero_grad()
    _works(checked)


@pytest.mark.parametrize("kind", MODELS)
def test_transforms_of_torch_func_are_refused(kind: str) -> None:
    x = flat_images()
    checked = fxcheck.instrument(MODELS[kind](), (x,))
    for transformed in (torch.vmap(checked), torch.func.jacrev(checked), lambda v: torch.func.jvp(checked, (v,), (v,))):
        with pytest.raises(StepError, match=r"torch\.func"):
            transformed(x[None])
    _works(checked)


_X = torch.randn(2, 3)
WRONG_KINDS = {
    "no model": (lambda f, m: f(None, (_X,)), "NoneType; wanted an nn.Module"),
    "a function": (lambda f, m: f(torch.relu, (_X,)), "wanted an nn.Module"),
    "a class": (lambda f, m: f(nn.ReLU, (_X,)), "the class ReLU; wanted an nn.Module"),
    "a list of keywords": (lambda f, m: f(m, (_X,), [1]), "kwargs is of type list"),
    "a number for parameters": (lambda f, m: f(m, (_X,), wrt=3), "wrt holds a value of type int"),
    "zero for parameters": (lambda f, m: f(m, (_X,), wrt=[0]), "wrt holds a value of type int"),
    "named parameters": (lambda f, m: f(m, (_X,), wrt=m.named_parameters()), "wrt holds a value of type tuple"),
    "no parameters": (lambda f, m: f(m, (_X,), wrt=[]), "wrt holds no parameter"),
    "the class of a loss": (lambda f, m: f(m, (_X,), loss=nn.MSELoss, target=_X), "the loss is the class MSELoss"),
    "the name of a loss": (lambda f, m: f(m, (_X,), loss="mse"), "the loss is of type str"),
    "a target alone": (lambda f, m: f(m, (_X,), target=_X), "a target was given, but no loss"),
    "integers": (lambda f, m: f(m, (_X.long(),)), "FX601 .* multiplies float32 and int64 in module '0'"),
    "double precision": (lambda f, m: f(m, (_X.double(),)), "FX601 .* multiplies float32 and float64"),
    "nested tensors": (lambda f, m: f(m, (torch.nested.nested_tensor([_X, _X]),)), "nested tensor"),
}


@pytest.mark.parametrize("call", [fxcheck.analyze, fxcheck.instrument])
@pytest.mark.parametrize("name", WRONG_KINDS)
def test_arguments_of_the_wrong_kind_get_one_clear_message(name: str, call: Callable[..., object]) -> None:
    wrong, message = WRONG_KINDS[name]
    with pytest.raises(FxcheckError, match=message):
        wrong(call, nn.Sequential(nn.Linear(3, 3), nn.ReLU()))


@pytest.mark.parametrize("call", [fxcheck.analyze, fxcheck.instrument])
def test_inference_mode_gets_one_clear_message(call: Callable[..., object]) -> None:
    def build() -> nn.Module:
        return nn.Sequential(nn.Linear(3, 3), nn.ReLU())

    with torch.inference_mode():
        frozen, x = build(), torch.randn(2, 3)
        with pytest.raises(UsageError, match=r"inference_mode\(\) is on"):
            call(build(), (_X,))
    for model, inputs in ((frozen, _X), (build(), x)):
        with pytest.raises(FxcheckError, match=r"made under torch\.inference_mode"):
            call(model, (inputs,))
    with torch.no_grad():
        call(build(), (_X,))


def test_proxies_that_are_no_file_get_one_clear_message() -> None:
    with pytest.raises(FxcheckError, match="proxies is of type dict; wanted the path of a saved table"):
        fxcheck.analyze(nn.Linear(3, 3), (_X,), proxies={})


def test_one_parameter_and_casts_by_autocast_are_fine() -> None:
    class Cast(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with torch.autocast("cpu", torch.bfloat16):
                return torch.relu(self.linear(x)).float()

    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    assert fxcheck.analyze(model, (_X,), wrt=model[0].bias).verdict == "certified"
    assert fxcheck.analyze(Cast(), (_X,)).verdict == "certified"


def test_a_model_on_the_meta_device_is_analysed_and_not_instrumented() -> None:
    model, x = nn.Sequential(nn.Linear(3, 3, device="meta"), nn.ReLU()), torch.randn(2, 3, device="meta")
    assert fxcheck.analyze(model, (x,)).verdict == "certified"
    with pytest.raises(UsageError, match="meta device"):
        fxcheck.instrument(model, (x,))


def test_a_forward_that_renormalises_its_rows_is_uncovered_step_by_step() -> None:
    x = torch.tensor([1, 2])
    checked = fxcheck.instrument(nn.Sequential(nn.Embedding(5, 3, max_norm=0.1)), (x,), allow_uncovered=True)
    with checked.step() as step:
        checked(x).sum().backward()
    assert (step.verdict, step.reason) == ("uncertified", "uncovered")


def test_wrappers_are_told_apart_from_models(checked: CheckedModule) -> None:
    for again in (fxcheck.analyze, fxcheck.instrument):
        with pytest.raises(UsageError, match="checked already"):
            again(checked, (flat_images(),))
        with pytest.raises(FxcheckError, match=r"FX603.*DataParallel"):
            again(nn.DataParallel(small_cnn()), (flat_images(),))


# State that the forward keeps in Python ---------------------------------------------------------


class Stateful(nn.Module):
    """Two layers, the second one without a bias, and a body that reads or writes attributes."""

    def __init__(self, body: Callable[[Stateful, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.body = body
        self.linear, self.last = nn.Linear(8, 8), nn.Linear(8, 8, bias=False)
        self.state, self.count, self.history = torch.zeros(1, 8), 0, []  # type: ignore[var-annotated]
        self.known: dict[str, torch.Tensor] = {}
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(self, x)


def _layers(m: Stateful, x: torch.Tensor) -> torch.Tensor:
    return torch.relu(m.last(torch.tanh(m.linear(x))))


def _goes_on(m: Stateful, x: torch.Tensor) -> torch.Tensor:
    y = _layers(m, x + m.state)
    m.state = y.detach()
    return y


def _warms_up(m: Stateful, x: torch.Tensor) -> torch.Tensor:
    m.count += 1
    return _layers(m, x) * min(1.0, m.count / 10)


def _takes_turns(m: Stateful, x: torch.Tensor) -> torch.Tensor:
    m.count += 1
    return _layers(m, x) if m.count % 2 else _layers(m, x).abs() + m.last(x)


def _remembers(m: Stateful, x: torch.Tensor) -> torch.Tensor:
    m.history.append(x)
    return _layers(m, x) * len(m.history)


def _looks_up(m: Stateful, x: torch.Tensor) -> torch.Tensor:
    y = _layers(m, x) + m.known.get("y", 0.0)
    m.known["y"] = y.detach()
    return y


def _certified_and_warms_up(m: Stateful, x: torch.Tensor) -> torch.Tensor:
    m.count += 1
    return torch.relu(m.linear(x)) * min(1.0, m.count / 10)


@pytest.mark.parametrize("body", [_goes_on, _warms_up, _takes_turns, _remembers, _looks_up, _certified_and_warms_up])
def test_a_model_whose_next_call_computes_something_else_is_refused(
    body: Callable[[Stateful, torch.Tensor], torch.Tensor],
) -> None:
    model, x = Stateful(body), torch.randn(2, 8)
    with pytest.raises(FxcheckError, match=r"in the second call differs \(the forward writes"):
        fxcheck.instrument(model, (x,))
    assert (model.count, model.history, model.known) == (0, [], {}) and not model.state.any()


def test_a_model_whose_own_backward_raises_is_refused_in_words() -> None:
    class Halved(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, x):
            y = self.second(self.first(x))
            with torch.no_grad():
                self.second.weight.mul_(0.5)
            return y

    with pytest.raises(FxcheckError, match="the model itself raises on the example inputs: RuntimeError: one of the variables"):
        fxcheck.instrument(Halved(), (torch.ones(2, 2),))


def test_what_is_only_written_is_named_in_a_note() -> None:
    def body(m: Stateful, x: torch.Tensor) -> torch.Tensor:
        m.count += 1
        m.state = _layers(m, x).detach()
        return _layers(m, x)

    checked = fxcheck.instrument(Stateful(body), (torch.randn(2, 8),))
    assert "state, " in checked.validation or ", count" in checked.validation or "count, " in checked.validation
    assert checked.validation in checked.summary().notes


def test_a_buffer_that_is_counted_in_place_and_multiplied_is_refused_in_words() -> None:
    def body(m: Stateful, x: torch.Tensor) -> torch.Tensor:
        m.steps += 1
        return _layers(m, x) * m.steps

    try:
        checked = fxcheck.instrument(Stateful(body), (torch.randn(2, 8),))
    except FxcheckError as error:
        assert "does not reproduce" in str(error)
    else:
        with checked.step() as step:
            checked(torch.randn(2, 8)).sum().backward()
        assert step.verdict == "certified"


def test_saved_tensors_that_pass_through_hooks_leave_the_step_undecided(checked: CheckedModule) -> None:
    of_torch = nn.functional.relu  # put there by somebody else
    for pack, unpack in ((torch.zeros_like, lambda t: t), (of_torch, lambda t: t), (of_torch, of_torch)):
        with checked.step() as step, torch.autograd.graph.saved_tensors_hooks(pack, unpack):
            checked(flat_images()).sum().backward()
        assert (step.verdict, step.reason) == ("uncertified", "undecided") and "hooks" in step.text
    with checked.step() as step, torch.autograd.graph.save_on_cpu():
        checked(flat_images()).sum().backward()
    assert step.verdict == "certified"


class _Scaled(nn.Module):
    """w x, some entries of which are dropped, times a buffer."""

    def __init__(self, p: float, kinked: bool) -> None:
        super().__init__()
        self.w, self.p, self.kinked = nn.Parameter(torch.ones(8)), p, kinked
        self.register_buffer("scale", torch.ones(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = nn.functional.dropout(self.w * x, self.p) * self.scale
        return y.relu() if self.kinked else y


@pytest.mark.parametrize("kinked", [False, True])
@pytest.mark.parametrize("options", [
    {"use_reentrant": True}, {"use_reentrant": False}, {"use_reentrant": False, "preserve_rng_state": False},
])  # fmt: skip
def test_a_forward_that_is_computed_again_in_backward_may_be_another_function(options: dict[str, bool], kinked: bool) -> None:
    torch.manual_seed(0)  # where dropout leaves nothing, nothing is wrong
    model, x = _Scaled(0.5, kinked), torch.ones(1, 8, requires_grad=True)
    checked = fxcheck.instrument(model, (x,))
    with checked.step() as step:
        y = torch.utils.checkpoint.checkpoint(checked, x, **options)
        model.scale.fill_(3.0)
        y.sum().backward()
    assert not torch.equal(model.w.grad, y[0])  # its gradient, where nothing has changed
    assert (step.verdict, step.reason) == ("uncertified", "undecided") and "checkpoint" in step.text


def test_sizes_are_captured_under_a_checkpoint() -> None:
    checked = fxcheck.instrument(nn.RNN(3, 3, nonlinearity="relu", batch_first=True), (torch.randn(2, 4, 3),))
    with checked.step():
        torch.utils.checkpoint.checkpoint(checked, torch.randn(2, 5, 3), use_reentrant=False)[0].sum().backward()
    assert all(p.grad is not None for p in checked.parameters())


def test_a_forward_that_enables_gradients_itself_is_no_part_of_what_was_seen() -> None:
    class Enabled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.zeros(1))

        @torch.enable_grad()
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(self.w * x)

    one = torch.ones(1)
    checked = fxcheck.instrument(Enabled(), (one,))
    with checked.step() as step:
        y = checked(one)
        with torch.no_grad():
            z = checked(-one)
        (y - z).sum().backward()  # relu(w) - relu(-w) = w, where AD gives 0
    assert (step.verdict, step.reason) == ("uncertified", "undecided") and "no_grad" in step.text


def test_a_forward_that_puts_random_numbers_back_is_refused() -> None:
    class Forked(nn.Module):
        def __init__(self, kinked: bool) -> None:
            super().__init__()
            self.linear, self.kinked = nn.Linear(3, 3, bias=not kinked), kinked

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with torch.random.fork_rng(devices=[]):
                noise = torch.randn(x.shape)
            return torch.relu(self.linear(x)) + noise if self.kinked else self.linear(x) + noise

    with pytest.raises(FxcheckError, match="state of the random numbers"):
        fxcheck.instrument(Forked(True), (torch.randn(2, 3),))
    checked, before = fxcheck.instrument(Forked(False), (torch.randn(2, 3),)), torch.get_rng_state()
    checked(torch.ones(2, 3))  # certified before training: the model runs itself
    assert torch.equal(torch.get_rng_state(), before)


def test_a_larger_step_than_t1_is_about_is_decided_by_what_else_there_is() -> None:
    checked = fxcheck.instrument(nn.Sequential(nn.Linear(1, 1), nn.Hardsigmoid()), (torch.zeros(1, 1),), batch_size=1)
    for number, theorem in ((1, "T1"), (2, "T8")):
        with checked.step() as step:
            checked(torch.randn(number, 1)).sum().backward()
        assert step.verdict == "certified" and step.theorem in (theorem, "T4", "T5"), step.text


def test_an_optional_keyword_makes_another_call() -> None:
    class Optional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 1, bias=False)

        def forward(self, x: torch.Tensor, scale: Any = None, mask: Any = None) -> torch.Tensor:
            y = torch.relu(self.linear(x if scale is None else x * scale))
            return y if mask is None else y * mask.any(1, keepdim=True)

    x = torch.randn(2, 3)
    checked = fxcheck.instrument(Optional(), (x,), {"scale": torch.ones(1)})
    with checked.step() as step:
        checked(x, mask=x > 0).sum().backward()
    assert step.verdict == "certified"


def test_a_copy_has_a_loss_of_its_own() -> None:
    class Weighted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self, output: torch.Tensor) -> torch.Tensor:
            return (self.weight * output).abs().sum()

    loss, x = Weighted(), torch.randn(2, 3)
    checked = fxcheck.instrument(nn.Linear(3, 1), (x,), loss=loss)
    copied = copy.deepcopy(checked)
    copied.loss(x).backward()
    assert loss.weight.grad is None and copied._roots[1].weight.grad is not None


def test_a_certified_model_is_compared_with_its_capture_too() -> None:
    class Either(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.linear(x)
            return y if type(x) is not torch.Tensor else 2 * y.detach() - y

    x = torch.randn(2, 3)
    assert fxcheck.analyze(Either(), (x,)).verdict == "smooth"
    with pytest.raises(FxcheckError, match=r"does not reproduce.*gradient"):
        fxcheck.instrument(Either(), (x,))


def test_steps_of_an_uncovered_model_are_never_certified() -> None:
    checked = fxcheck.instrument(_Detaching(), (torch.randn(2, 3),), allow_uncovered=True)
    with checked.step() as step:
        checked(torch.randn(2, 3)).sum().backward()
    assert (step.verdict, step.reason) == ("uncertified", "uncovered") and "detach" in step.text


def test_loss_needs_a_loss_and_a_target_where_one_was_given(checked: CheckedModule) -> None:
    with pytest.raises(StepError, match="without a loss"):
        checked.loss(flat_images())
    with pytest.raises(UsageError, match="no loss"):
        fxcheck.instrument(small_cnn(), (flat_images(),), target=torch.zeros(4))


def test_unknown_policies_are_refused() -> None:
    with pytest.raises(StepError, match="'loudly' is not known"):
        fxcheck.instrument(small_cnn(), (flat_images(),), on_uncertified="loudly")


def test_strangers_in_wrt_are_refused() -> None:
    with pytest.raises(UsageError, match="not parameters of the model"):
        fxcheck.instrument(small_cnn(), (flat_images(),), wrt=[nn.Parameter(torch.zeros(1))])


def test_gather_belongs_into_a_step(checked: CheckedModule) -> None:
    with pytest.raises(StepError, match="inside"):
        checked.gather()


def test_checks_inside_vmap_are_refused_and_leave_torch_as_it_was() -> None:
    class Mapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(2, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.func.vmap(lambda z: torch.relu(self.linear(z)) - torch.relu(-self.linear(z)))(x)

    with pytest.raises(UncoveredModel, match="vmap"):
        fxcheck.instrument(Mapped(), (torch.randn(3, 2),), allow_uncovered=True)
    assert torch.randn(2).shape == (2,)


class _Frozen(dict[str, float]):
    def __setitem__(self, key: str, value: float) -> None:
        raise TypeError("frozen")


class _Secretive:
    @property
    def __dict__(self) -> dict[str, object]:  # type: ignore[override]
        raise RuntimeError("nothing to see")


@pytest.mark.parametrize("held", [_Frozen(k=1.0), _Secretive(), [_Secretive()]])
def test_what_cannot_be_copied_or_looked_into_is_left_alone(held: object) -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    model.held = held  # type: ignore[assignment]
    checked = fxcheck.instrument(model, (torch.zeros(3, 2),))
    checked(torch.ones(3, 2)).sum().backward()
    assert checked.last_step.verdict == "certified" and len(checked._programs) == 1 and model.held is held


def test_an_input_of_a_name_that_torch_fx_uses_is_refused_in_one_message() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(2, 1)

        def forward(self, torch: torch.Tensor) -> torch.Tensor:
            return self.linear(torch).relu()

    with pytest.raises(FxcheckError, match="AttributeError"):
        fxcheck.instrument(Named(), (torch.ones(3, 2),))
