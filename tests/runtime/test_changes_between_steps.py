"""What changes after a model was instrumented, and makes its capture another function's."""

from __future__ import annotations

import copy
from argparse import Namespace
from collections import UserDict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from types import MethodType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import fxcheck
from tests.soundness.oracle import Verdict, judge

X = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)


class _Times:
    """A callable object with a factor."""

    def __init__(self) -> None:
        self.factor = 1.0

    def __call__(self, y: Tensor) -> Tensor:
        return self.factor * y


class _Linear(nn.Module):
    """relu(w x + k b), which is right as long as the bias counts, and what attributes make of it."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(1, dtype=torch.float64))
        self.b = nn.Parameter(torch.zeros(1, dtype=torch.float64))
        self.act: nn.Module = nn.ReLU()
        self.has_bias = True
        self.scaled = torch.clone
        self.k = torch.ones(1, dtype=torch.float64)
        self.factors = (1.0,)
        self.shifted = partial(torch.mul, 1.0)
        self.times, self.bound = _Times(), _Times().__call__
        self.settings = SimpleNamespace(known={"factors": [1.0]}, array=np.ones(1), tensors=[self.k.clone()])

    def forward(self, x: Tensor) -> Tensor:
        y = self.w * x
        if not (self.settings.known["factors"][0] and self.settings.array[0]):
            return self.act(y)
        b = self.times(self.bound(self.settings.tensors[0] * self.b))
        return self.act(y + self.factors[0] * self.k * self.scaled(self.shifted(b))) if self.has_bias else self.act(y)


@dataclass(slots=True, frozen=True)
class _Slotted:
    held: Any


def _one(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


class _Signed(nn.Module):
    """relu(b) - c relu(-b): |b| for c = -1, where AD is right, and b for c = 1, where AD gives 0 at 0."""

    def __init__(self, holder: Any, read: Callable[[Any], Any]) -> None:
        super().__init__()
        self.b = nn.Parameter(torch.zeros(1, dtype=torch.float64))
        self.holder, self.read = holder, read

    def forward(self, x: Tensor) -> Tensor:
        y = self.b + 0 * x
        return torch.relu(y) - self.read(self.holder) * torch.relu(-y)


HOLDERS: dict[str, tuple[Any, Callable[[Any], Any], Callable[[_Signed], object]]] = {
    "a tensor in a tuple": ((_one(-1.0),), lambda h: h[0], lambda m: setattr(m, "holder", (_one(1.0),))),
    "a tensor in a tuple in a dict": ({0: (_one(-1.0),)}, lambda h: h[0][0], lambda m: m.holder.update({0: (_one(1.0),)})),
    "a tensor in a deque": (deque([_one(-1.0)], maxlen=1), lambda h: h[0], lambda m: m.holder.append(_one(1.0))),
    "a tensor in a set": ({_one(-1.0)}, lambda h: next(iter(h)), lambda m: (m.holder.clear(), m.holder.add(_one(1.0)))),
    "a frozen parameter in a list": (
        [nn.Parameter(_one(-1.0), False)], lambda h: h[0], lambda m: m.holder.__setitem__(0, nn.Parameter(_one(1.0), False))),
    "a module that none has registered": (
        [nn.Sequential(nn.LeakyReLU(-1.0))], lambda h: h[0][0].negative_slope,
        lambda m: setattr(m.holder[0][0], "negative_slope", 1.0)),
    "the flag of a module that none has registered": (
        (nn.ReLU(),), lambda h: -1.0 if h[0].training else 1.0, lambda m: m.holder[0].eval()),
    "entries read by item()": (_one(-1.0), lambda h: h.item(), lambda m: m.holder.fill_(1.0)),
    "entries read by tolist()": ([_one(-1.0)], lambda h: h[0].tolist(), lambda m: m.holder[0].fill_(1.0)),
    "a tensor read by float()": (_one(-1.0), float, lambda m: setattr(m, "holder", _one(1.0))),
    "a slot": (_Slotted(-1.0), lambda h: h.held, lambda m: object.__setattr__(m.holder, "held", 1.0)),
    "a tensor in a slot": (_Slotted(_one(-1.0)), lambda h: h.held, lambda m: object.__setattr__(m.holder, "held", _one(1.0))),
    "a namespace": (Namespace(held=-1.0), lambda h: h.held, lambda m: setattr(m.holder, "held", 1.0)),
    "a user's dict": (UserDict(held=-1.0), lambda h: h["held"], lambda m: m.holder.update(held=1.0)),
    "a dict five levels deep": (
        {0: {0: {0: {0: {0: -1.0}}}}}, lambda h: h[0][0][0][0][0], lambda m: m.holder[0][0][0][0].update({0: 1.0})),
    "a range": (range(-1, 0), lambda h: h.start, lambda m: setattr(m, "holder", range(1, 2))),
    "a frozenset": (frozenset([-1.0]), lambda h: min(h), lambda m: setattr(m, "holder", frozenset([1.0]))),
}  # fmt: skip


@pytest.mark.parametrize("name", HOLDERS)
def test_a_value_is_seen_to_change_in(name: str) -> None:
    holder, read, change = HOLDERS[name]
    model = _Signed(copy.deepcopy(holder), read)
    checked = fxcheck.instrument(model, (X,), allow_uncovered=True)
    checked(X).sum().backward()
    assert checked.last_step.verdict == "certified" and len(checked._programs) == 1
    change(model)
    with checked.step() as step:
        checked(X).sum().backward()
    assert step.verdict == "uncertified" and torch.equal(checked(X), model(X))


class _Odd(nn.Module):
    def forward(self, y: Tensor) -> Tensor:
        return torch.relu(2 * y) - torch.relu(-2 * y)


CHANGES: dict[str, Callable[[_Linear], object]] = {
    "an attribute": lambda m: setattr(m, "has_bias", False),
    "a tuple": lambda m: setattr(m, "factors", (0.0,)),
    "a partial": lambda m: setattr(m, "shifted", partial(torch.mul, 0.0)),
    "an object": lambda m: setattr(m, "times", partial(torch.mul, 0.0)),
    "an attribute of an object": lambda m: setattr(m.times, "factor", 0.0),
    "an attribute of a method's object": lambda m: setattr(m.bound.__self__, "factor", 0.0),
    "a list in a dict": lambda m: m.settings.known["factors"].__setitem__(0, 0.0),
    "a dict": lambda m: m.settings.known.update(factors=[0.0]),
    "an array": lambda m: m.settings.array.fill(0.0),
    "a function": lambda m: setattr(m, "scaled", lambda b: 0 * b),
    "the forward": lambda m: setattr(m, "forward", MethodType(lambda self, x: self.act(self.w * x), m)),
    "a module": lambda m: setattr(m, "act", _Odd()),
    "the entries of a tensor that is no buffer": lambda m: m.k.zero_(),
    "the entries past autograd": lambda m: m.k.data.zero_(),
    "the entries through numpy": lambda m: m.k.numpy().fill(0.0),
    "a tensor in a list": lambda m: m.settings.tensors.__setitem__(0, torch.zeros(1, dtype=torch.float64)),
    "a tensor that is no buffer": lambda m: setattr(m, "k", torch.zeros(1, dtype=torch.float64)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_certified_model_is_looked_at_again_after(change: str) -> None:
    model = _Linear()
    checked = fxcheck.instrument(model, (X,), allow_uncovered=True)
    with checked.step() as step:
        (checked(X) * X).sum().backward()
    assert step.verdict == "certified" and step.theorem == "T4"
    CHANGES[change](model)
    assert judge([model.w, model.b], lambda: (model(X) * X).sum()).verdict is Verdict.OUTSIDE
    with checked.step() as step:
        (checked(X) * X).sum().backward()
    assert step.verdict == "uncertified"


MODES: dict[str, tuple[Callable[[], bool], Callable[[], Any]]] = {
    "autocast": (lambda: torch.is_autocast_enabled("cpu"), lambda: torch.autocast("cpu", torch.bfloat16)),
    "the dtype of autocast": (
        lambda: torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") is torch.float16,
        lambda: torch.autocast("cpu", torch.float16),
    ),
    "the default dtype": (
        lambda: torch.get_default_dtype() is torch.float64,
        lambda: _set(torch.set_default_dtype, torch.float64, torch.float32),
    ),
    "deterministic algorithms": (
        torch.are_deterministic_algorithms_enabled, lambda: _set(torch.use_deterministic_algorithms, True, False),
    ),
}  # fmt: skip


@contextmanager
def _set(write: Callable[[Any], None], value: Any, before: Any) -> Iterator[None]:
    write(value)
    try:
        yield
    finally:
        write(before)


@pytest.mark.parametrize("mode", MODES)
def test_a_forward_that_asks_for_a_mode_of_torch_is_captured_for_each(mode: str) -> None:
    asked, entered = MODES[mode]

    class Asking(_Linear):
        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(self.w * x) if asked() else torch.relu(self.w * x + self.b)

    model = Asking()
    checked = fxcheck.instrument(model, (X,))
    for context, verdict in ((nullcontext, "certified"), (entered, "uncertified"), (nullcontext, "certified")):
        with context(), checked.step() as step:
            (checked(X) * X).sum().backward()
        assert step.verdict == verdict
    assert len(checked._programs) == 2


def test_a_forward_that_asks_whether_its_input_wants_a_gradient_is_captured_for_either() -> None:
    """There it is relu(w x), without a bias."""
    class Asking(_Linear):
        def forward(self, x: Tensor) -> Tensor:
            y = self.w * x
            return torch.relu(y) if x.requires_grad else torch.relu(y + self.b)

    model = Asking()
    checked = fxcheck.instrument(model, (X,))
    for wants, verdict in ((False, "certified"), (True, "uncertified"), (False, "certified")):
        with checked.step() as step:
            (checked(X.clone().requires_grad_(wants)) * X).sum().backward()
        assert step.verdict == verdict


@pytest.mark.parametrize("kept", [lambda m: vars(m), lambda m: vars(m.settings), lambda m: m.settings.known])
def test_a_counter_of_a_certified_model_asks_for_one_capture_only(kept: Callable[[_Linear], dict[str, int]]) -> None:
    class Counting(_Linear):
        def forward(self, x: Tensor) -> Tensor:
            kept(self)["calls"] += 1
            return super().forward(x)

    model = Counting()
    kept(model)["calls"] = 0
    checked = fxcheck.instrument(model, (X,))
    for _ in range(3):
        checked(X).sum().backward()
        checked(X[:1]).sum().backward()
    assert kept(model)["calls"] == 6 and len(checked._programs) == 2
    assert checked.last_step.verdict == "certified"


def test_what_a_forward_counts_in_an_object_is_restored_and_named() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(1, 3), nn.Hardtanh(), nn.Linear(3, 1)).double()
            self.settings = SimpleNamespace(calls=0)

        def forward(self, x: Tensor) -> Tensor:
            self.settings.calls += 1
            return self.layers(x)

    model = Counting()
    checked = fxcheck.instrument(model, (X,))
    checked(X), checked(X)
    assert model.settings.calls == 0 and len(checked._programs) == 1 and "settings" in checked.validation


def test_a_certified_model_may_put_one_attribute_in_the_place_of_another() -> None:
    class Renaming(_Linear):
        def forward(self, x: Tensor) -> Tensor:
            one, other = ("even", "odd") if hasattr(self, "even") else ("odd", "even")
            vars(self).pop(one, None)
            setattr(self, other, True)
            return super().forward(x)

    model = Renaming()
    model.even = True
    checked = fxcheck.instrument(model, (X,))
    for _ in range(3):
        with checked.step() as step:
            checked(X).sum().backward()
        assert (step.verdict, step.theorem) == ("certified", "T4")


def test_a_number_that_is_annealed_counts_in_a_checked_step() -> None:
    model = nn.Sequential(nn.Linear(1, 3), nn.Dropout(0.0), nn.Hardtanh(), nn.Linear(3, 1)).double()
    checked = fxcheck.instrument(model, (X,))
    assert checked.training and torch.equal(checked(X), model(X))
    model[2].max_val = 1e-3
    assert torch.equal(checked(X), model(X))


def test_forwards_of_one_step_with_other_attributes_in_between_are_not_pooled() -> None:
    """relu(b) - relu(-b) = b, where AD gives 0 at 0; each of the two forwards is certified by itself."""
    class Signed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.b = nn.Parameter(torch.zeros(1, dtype=torch.float64))
            self.sign = 1.0

        def forward(self, x: Tensor) -> Tensor:
            return self.sign * torch.relu(self.sign * self.b + x)

    model, zero = Signed(), torch.zeros(2, 1, dtype=torch.float64)
    checked = fxcheck.instrument(model, (zero,))
    with checked.step() as step:
        loss = checked(zero).sum()
        model.sign = -1.0
        (loss + checked(zero).sum()).backward()
    assert float(model.b.grad) == 0.0
    assert step.verdict == "uncertified" and "different layers" in step.text


def test_a_new_attribute_is_the_models_but_for_a_private_one() -> None:
    class Scaled(_Linear):
        def forward(self, x: Tensor) -> Tensor:
            return getattr(self, "gain", 1.0) * super().forward(x)

    model = Scaled()
    nn.init.ones_(model.b)
    checked = fxcheck.instrument(model, (X,))
    before = checked(X)
    checked.gain, checked._seen = 3.0, True
    assert model.gain == 3.0 and not hasattr(model, "_seen")
    assert torch.equal(checked(X), model(X)) and torch.equal(checked(X), 3 * before)
    del checked.gain
    assert torch.equal(checked(X), before) and torch.equal(model(X), before)
