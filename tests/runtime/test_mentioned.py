"""What code of a forward or a loss reads without holding it: globals, classes, closures; a capture bakes in their values."""

from __future__ import annotations

import itertools
import sys
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable
from enum import Enum
from functools import lru_cache, partial, partialmethod, singledispatchmethod
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fxcheck
from fxcheck.capture.held import reached_from

X = torch.zeros(2, 1, dtype=torch.float64)
FACTOR: float = -1.0
FACTORS: dict[str, Any] = {}
WEIGHT = torch.tensor(-1.0, dtype=torch.float64)
CONFIG, OF_THREAD = SimpleNamespace(), threading.local()
COUNT = itertools.count(1)
CALLS = 0
KEPT: list[Tensor] = []
settings_module = ModuleType("settings_of_a_user")
HERE = sys.modules[__name__]


class Settings:
    """A user's own."""

    factor = -1.0

    def __init__(self) -> None:
        self.own, self.unrelated = -1.0, 0

    @property
    def seen(self) -> float:
        return self.own


class Signed(nn.Module):
    """relu(b) - c relu(-b): |b| for c = -1, where AD is right, and b for c = 1, where AD gives 0 at 0."""

    factor = -1.0

    def __init__(self, read: Callable[[Signed], Any]) -> None:
        super().__init__()
        self.b = nn.Parameter(torch.zeros(1, dtype=torch.float64))
        self.read = read

    def forward(self, x: Tensor) -> Tensor:
        y = self.b + 0 * x
        return torch.relu(y) - self.read(self) * torch.relu(-y)

    def by_a_method(self) -> float:
        return FACTOR


def _closure() -> tuple[Callable[[Any], Any], Callable[[float], None]]:
    held = -1.0

    def put(value: float) -> None:
        nonlocal held
        held = value

    return lambda _: held, put


def _default(held: list[float]) -> tuple[Callable[[Any], Any], Callable[[float], None]]:
    def read(_: Any, factors: list[float] = held) -> float:
        return factors[0]

    return read, partial(held.__setitem__, 0)


def _wrapped() -> tuple[Callable[[Any], Any], Callable[[float], None]]:
    @torch.no_grad()
    def read(_: Any) -> float:
        return FACTOR

    return read, partial(setattr, HERE, "FACTOR")


@lru_cache(maxsize=1)
def _cached() -> tuple[Settings]:
    return (GLOBAL_SETTINGS,)


def _imported(_: Any) -> Any:
    from settings_of_a_user import factor

    return factor


def _of_named_class(_: Any) -> float:
    return Settings.factor


GLOBAL_SETTINGS = Settings()
_READ_CLOSURE, _PUT_CLOSURE = _closure()
_READ_DEFAULT, _PUT_DEFAULT = _default([-1.0])
_READ_WRAPPED, _PUT_WRAPPED = _wrapped()

PLACES: dict[str, tuple[Callable[[Signed], Any], Callable[[float], Any]]] = {
    "a closure": (_READ_CLOSURE, _PUT_CLOSURE),
    "a default": (_READ_DEFAULT, _PUT_DEFAULT),
    "a global": (lambda m: FACTOR, partial(setattr, HERE, "FACTOR")),
    "a global that a method reads": (lambda m: m.by_a_method(), partial(setattr, HERE, "FACTOR")),
    "a global that a decorated function reads": (_READ_WRAPPED, _PUT_WRAPPED),
    "globals by name": (lambda m: globals()["FACTOR"], partial(setattr, HERE, "FACTOR")),
    "a dict": (lambda m: FACTORS["one"], partial(FACTORS.__setitem__, "one")),
    "a tensor": (lambda m: WEIGHT, lambda v: setattr(HERE, "WEIGHT", torch.tensor(v, dtype=torch.float64))),
    "entries of a tensor": (lambda m: WEIGHT, lambda v: WEIGHT.fill_(v)),
    "a namespace": (lambda m: CONFIG.factor, partial(setattr, CONFIG, "factor")),
    "a namespace of this thread": (lambda m: OF_THREAD.factor, partial(setattr, OF_THREAD, "factor")),
    "an attribute of a user's object": (lambda m: GLOBAL_SETTINGS.own, partial(setattr, GLOBAL_SETTINGS, "own")),
    "a property": (lambda m: GLOBAL_SETTINGS.seen, partial(setattr, GLOBAL_SETTINGS, "own")),
    "an attribute by name": (lambda m: getattr(GLOBAL_SETTINGS, "own"), partial(setattr, GLOBAL_SETTINGS, "own")),  # noqa: B009
    "all attributes": (lambda m: vars(GLOBAL_SETTINGS)["".join(("o", "wn"))], partial(setattr, GLOBAL_SETTINGS, "own")),
    "what a cached function returns": (lambda m: _cached()[0].own, partial(setattr, GLOBAL_SETTINGS, "own")),
    "a class": (lambda m: Settings.factor, partial(setattr, Settings, "factor")),
    "a class that a function names": (_of_named_class, partial(setattr, Settings, "factor")),
    "the model's class": (lambda m: m.factor, partial(setattr, Signed, "factor")),
    "a module": (lambda m: settings_module.factor, partial(setattr, settings_module, "factor")),
    "a module imported in the forward": (_imported, partial(setattr, settings_module, "factor")),
}


@pytest.fixture(autouse=True)
def _as_at_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "settings_of_a_user", settings_module)
    for _, put in PLACES.values():
        put(-1.0)


def assert_seen_to_change(read: Callable[[Signed], Any], put: Callable[[float], Any]) -> None:
    """The model is certified and not captured again while the value is -1, and no longer when it is 1."""
    checked = fxcheck.instrument(Signed(read), (X,), allow_uncovered=True)
    for _ in range(2):
        checked(X).sum().backward()
    assert checked.last_step.verdict == "certified" and len(checked._programs) == 1
    put(1.0)
    with checked.step() as step:
        checked(X).sum().backward()
    assert step.verdict == "uncertified" and torch.equal(checked(X), checked.model(X))


@pytest.mark.parametrize("place", PLACES)
def test_a_value_that_code_mentions_is_seen_to_change_in(place: str) -> None:
    assert_seen_to_change(*PLACES[place])


class Defaults:
    """A trainer whose settings are defaults of its class until somebody sets them."""

    factor = -1.0


class Other(Defaults):
    """What an object of ``Defaults`` may become."""

    factor = 1.0


class Choice(Enum):
    """One of one, whose value is no constant."""

    ONE = {"factor": -1.0}  # noqa: RUF012 (what is attacked)


class Halves:
    """Methods that stand for others."""

    factor = -1.0

    def scaled(self, by: float) -> float:
        return by * self.factor

    whole = partialmethod(scaled, 1.0)

    @singledispatchmethod
    def of(self, _: Any) -> float:
        return self.factor


class Pair:
    """Two of a kind, and the one that counts."""

    def __init__(self, first: Any, second: Any) -> None:
        self.both, self.now = (first, second), first


def _late(held: Any) -> Any:
    return getattr(held, "factor", -1.0)


DEFAULTS, BARE, HALVES, CHANGING = Defaults(), SimpleNamespace(), Halves(), Defaults()
SETTINGS = Pair(Settings(), Settings())
MODULES = Pair(nn.LeakyReLU(-1.0), nn.LeakyReLU(1.0))
SETTINGS.both[1].own = 1.0
TENSORS = [WEIGHT.clone()]
HOLDER = SimpleNamespace(weights={"w": [WEIGHT.clone()]})
TEACHER = nn.Linear(1, 1, bias=False).double().requires_grad_(False)
FLAGS = Pair(object(), object())

REBOUND: dict[str, tuple[Callable[[Signed], Any], Callable[[float], Any]]] = {
    "a name that only its class had": (lambda m: DEFAULTS.factor, partial(setattr, DEFAULTS, "factor")),
    "a name that nobody had": (lambda m: _late(BARE), partial(setattr, BARE, "factor")),
    "a list of tensors": (lambda m: TENSORS[0], lambda v: setattr(HERE, "TENSORS", [torch.tensor(v, dtype=torch.float64)])),
    "a list in a dict": (
        lambda m: HOLDER.weights["w"][0],
        lambda v: setattr(HOLDER, "weights", {"w": [torch.tensor(v, dtype=torch.float64)]})),
    "an object of two": (lambda m: SETTINGS.now.own, lambda v: setattr(SETTINGS, "now", SETTINGS.both[v > 0])),
    "a module of two": (lambda m: MODULES.now.negative_slope, lambda v: setattr(MODULES, "now", MODULES.both[v > 0])),
    "an object without attributes": (
        lambda m: -1.0 if FLAGS.now is FLAGS.both[0] else 1.0, lambda v: setattr(FLAGS, "now", FLAGS.both[v > 0])),
    "a number and a flag": (
        lambda m: -1.0 if isinstance(CONFIG.kind, bool) else 1.0, lambda v: setattr(CONFIG, "kind", True if v < 0 else 1)),
    "the class of an object": (
        lambda m: CHANGING.factor, lambda v: setattr(CHANGING, "__class__", Other if v > 0 else Defaults)),
    "the value of an enumeration's member": (
        lambda m: Choice.ONE.value["factor"], partial(Choice.ONE.value.__setitem__, "factor")),
    "a method with arguments": (lambda m: HALVES.whole(), partial(setattr, Halves, "factor")),
    "a method by types": (lambda m: HALVES.of(1), partial(setattr, Halves, "factor")),
    "names in a tuple": (
        lambda m: [getattr(CONFIG, n) for n in ("own", "other")][1], partial(setattr, CONFIG, "other")),
}  # fmt: skip


@pytest.mark.parametrize("place", REBOUND)
def test_another_value_in_place_is_seen(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for held in (DEFAULTS, BARE):
        vars(held).pop("factor", None)
    monkeypatch.setattr(CONFIG, "own", 0.0, raising=False)
    read, put = REBOUND[place]
    if "name that" not in place:
        put(-1.0)
    assert_seen_to_change(read, put)


@lru_cache(maxsize=2)
def _mask(size: int) -> Tensor:
    return torch.full((size,), -1.0, dtype=torch.float64)


def _lazily(_: Any) -> Tensor:
    if not hasattr(DEFAULTS, "made"):
        DEFAULTS.made = torch.tensor(-1.0, dtype=torch.float64)
    return DEFAULTS.made


@pytest.mark.parametrize("read", [lambda m: _mask(1), _lazily])
def test_what_a_forward_makes_once_is_no_fake_tensor_afterwards(read: Callable[[Any], Tensor]) -> None:
    fxcheck.analyze(Signed(read), (X,))
    assert type(read(None)) is Tensor
    checked = fxcheck.instrument(Signed(read), (X,))
    checked(X).sum().backward()
    assert checked.last_step.verdict == "certified" and type(read(None)) is Tensor


def test_a_teacher_whose_parameters_get_other_memory_is_read_anew() -> None:
    model, x = nn.Sequential(nn.Linear(1, 3, bias=False), nn.ReLU(), nn.Linear(3, 1)).double(), torch.randn(4, 1).double()

    def loss(y: Tensor) -> Tensor:
        return (y - TEACHER(x)).square().mean()

    checked = fxcheck.instrument(model, (x,), loss=loss)
    for _ in range(2):
        TEACHER.weight.data = TEACHER.weight.data * 0.5
        assert torch.equal(checked.loss(x), loss(model(x)))


def test_a_weak_proxy_of_what_has_gone_since_is_passed_over() -> None:
    model, owner = Signed(lambda m: FACTOR), Settings()
    model.owner, model.owners = weakref.proxy(owner), [weakref.proxy(owner)]
    checked = fxcheck.instrument(model, (X,))
    del owner
    model.unrelated = X  # asks for another look at everything
    checked(X).sum().backward()
    assert checked.last_step.verdict == "certified"


class Makes(OrderedDict[str, Any]):
    """Makes what is asked for, as a table of activations does that is part of a library."""

    def __getitem__(self, name: str) -> Any:
        return super().__getitem__(name)()


class Locked(dict[str, Any]):
    """Lets nobody write."""

    def __setitem__(self, name: str, value: Any) -> None:
        raise TypeError("locked")

    def clear(self) -> None:
        raise TypeError("locked")


ACTIVATIONS, LOCKED = Makes(negative=lambda: -1.0, needs=lambda argument: argument), Locked(negative=-1.0)


@pytest.mark.parametrize("read", [lambda m: ACTIVATIONS["negative"], lambda m: LOCKED["negative"] if LOCKED else 0.0])
def test_dicts_of_classes_of_their_own_are_read_past_them(read: Callable[[Any], Any]) -> None:
    model = Signed(read)
    model.held = [ACTIVATIONS, LOCKED]
    checked = fxcheck.instrument(model, (X,))
    checked(X).sum().backward()
    assert checked.last_step.verdict == "certified" and list(ACTIVATIONS) == ["negative", "needs"] and len(LOCKED) == 1


def test_what_a_forward_writes_past_a_class_is_put_back_past_it() -> None:
    def counting(_: Signed) -> float:
        dict.__setitem__(LOCKED, "calls", 1)
        return -1.0

    fxcheck.analyze(Signed(counting), (X,))
    assert dict(LOCKED) == {"negative": -1.0}


class Penalty:
    """A callable loss."""

    def __init__(self) -> None:
        self.beta = 1.0

    def __call__(self, y: Tensor) -> Tensor:
        return self.beta * y.square().mean()


class Trainer:
    """Counts, and has a loss of its own."""

    def __init__(self) -> None:
        self.beta, self.steps, self.history = 1.0, 0, [0.0]

    def loss(self, y: Tensor) -> Tensor:
        return self.beta * y.square().mean()


def _penalty() -> tuple[Callable[[Tensor], Tensor], Callable[[float], None]]:
    penalty = Penalty()
    return penalty, partial(setattr, penalty, "beta")


def _lambda() -> tuple[Callable[[Tensor], Tensor], Callable[[float], None]]:
    beta = 1.0

    def put(value: float) -> None:
        nonlocal beta
        beta = value

    return lambda y: beta * y.square().mean(), put


@pytest.mark.parametrize("made", [_penalty, _lambda])
def test_a_weight_that_a_loss_reads_may_be_annealed(made: Callable[[], Any]) -> None:
    loss, put = made()
    model, x = nn.Sequential(nn.Linear(2, 3, bias=False), nn.ReLU(), nn.Linear(3, 1)), torch.randn(4, 2)
    checked = fxcheck.instrument(model, (x,), loss=loss)
    for beta in (1.0, 0.5):
        put(beta)
        assert torch.equal(checked.loss(x), loss(model(x)))


def test_a_trainer_whose_method_is_the_loss_may_count() -> None:
    trainer = Trainer()
    model, x = nn.Sequential(nn.Linear(2, 3, bias=False), nn.ReLU(), nn.Linear(3, 1)), torch.randn(4, 2)
    checked = fxcheck.instrument(model, (x,), loss=trainer.loss)
    for _ in range(3):
        checked.loss(x).backward()
        trainer.steps += 1
        trainer.history.append(0.0)
    assert len(checked._programs) == 1
    trainer.beta = 0.5
    assert torch.equal(checked.loss(x), trainer.loss(model(x))) and len(checked._programs) == 2


def test_a_library_that_code_calls_is_not_looked_into() -> None:
    """As one that logs: what it counts at each step is nothing to the forward."""
    import rich

    paths = [p for p, _ in reached_from([("", Signed(lambda m: rich.print(m)))])]
    assert any(p.startswith("the globals of tests") for p in paths)
    assert not any(p.startswith(("module rich", "the globals of rich")) for p in paths)


def test_a_checked_module_that_a_loss_mentions_may_change_at_every_step() -> None:
    held: list[Any] = []
    model, x = nn.Sequential(nn.Linear(2, 3, bias=False), nn.ReLU(), nn.Linear(3, 1)), torch.randn(4, 2)
    checked = fxcheck.instrument(model, (x,), loss=lambda y: y.square().mean() * len(held))
    held.append(checked)
    for _ in range(3):
        checked.loss(x).backward()
    assert len(checked._programs) == 2


@pytest.mark.parametrize(
    ("change", "name"),
    [(lambda m, i: setattr(HERE, "FACTOR", float(i)), "FACTOR in the globals of"),
     (lambda m, i: setattr(m, "factor", i), "factor"),
     (lambda m, i: setattr(HERE, "WEIGHT", torch.tensor(float(i))), "WEIGHT in the globals of"),
     (lambda m, i: WEIGHT.fill_(i), "the entries of a tensor"), (lambda m, i: FACTORS.update(one=i), "a dict")],
)  # fmt: skip
def test_what_keeps_changing_is_named_once(change: Callable[[Signed, int], None], name: str) -> None:
    model = Signed(lambda m: FACTOR * m.factor * WEIGHT * FACTORS["one"])
    model.factor = -1.0
    checked = fxcheck.instrument(model, (X,), allow_uncovered=True, on_uncertified="record")
    for i in range(2, 6):
        change(model, i)
        checked(X)
    with pytest.warns(UserWarning, match=f"captured anew 5 times.*{name}"):
        change(model, 7)
        checked(X)
    change(model, 8)
    checked(X)


def test_globals_that_only_share_a_name_with_an_attribute_do_not_count() -> None:
    (scopes,) = [dict(v) for p, v in reached_from([("", Signed(lambda m: m.FACTOR))]) if p.startswith("the globals")]
    assert "torch" in scopes and "FACTOR" not in scopes


def _count(_: Any) -> int:
    global CALLS
    CALLS += 1
    return CALLS


def _keep(model: Signed) -> float:
    KEPT.append(2 * model.b)
    return -1.0


TWICE = (iter(range(100)),)


@pytest.mark.parametrize(
    ("read", "code"), [(lambda m: next(COUNT), "FX603"), (lambda m: next(TWICE[0]), "FX603"), (_keep, "FX508")]
)
def test_what_a_forward_takes_or_leaves_outside_of_the_model_is_uncovered(read: Callable[[Any], Any], code: str) -> None:
    assert code in [d.code for d in fxcheck.analyze(Signed(read), (X,)).diagnostics]
    assert not KEPT


@pytest.mark.parametrize(
    ("read", "words"),
    [(_count, " .the forward writes the globals of"), (lambda m: torch.rand(1, generator=torch.Generator().manual_seed(5)), "")],
)
def test_what_another_call_computes_otherwise_is_refused(read: Callable[[Any], Any], words: str) -> None:
    model = Signed(read)
    nn.init.constant_(model.b, -1.0)
    with pytest.raises(fxcheck.FxcheckError, match=f"in the second call differs{words}"):
        fxcheck.instrument(model, (X,), allow_uncovered=True)
    assert not CALLS


def test_a_class_and_globals_are_as_they_were_after_a_capture() -> None:
    def counting(model: Signed) -> float:
        type(model).factor = FACTORS["calls"] = 7.0
        return -1.0

    FACTORS["calls"] = 0.0
    fxcheck.analyze(Signed(counting), (X,))
    assert Signed.factor == -1.0 and FACTORS["calls"] == 0.0
