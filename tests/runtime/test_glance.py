"""A second look at a model sees every change that a record of it would show."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fxcheck.runtime.signature import State


def _replaced_dict(model: nn.Module) -> None:
    model._parameters = dict(model._parameters)  # type: ignore[assignment]
    model._parameters["bias"] = nn.Parameter(torch.zeros(2))


def _replaced_hook(model: nn.Module) -> None:
    model.hook.remove()
    model.register_forward_hook(lambda *_: None)


CHANGES: dict[str, Callable[[nn.Module], Any]] = {
    "flag": lambda m: m.eval(),
    "forward hook": lambda m: m.register_forward_hook(lambda *_: None),
    "forward pre-hook": lambda m: m.register_forward_pre_hook(lambda *_: None),
    "backward hook": lambda m: m.register_full_backward_hook(lambda *_: None),
    "backward pre-hook": lambda m: m.register_full_backward_pre_hook(lambda *_: None),
    "hook of a parameter": lambda m: m.weight.register_hook(lambda gradient: 2 * gradient),
    "hook after accumulation": lambda m: m.bias.register_post_accumulate_grad_hook(lambda _: None),
    "hook in the place of another": _replaced_hook,
    "second hook of a parameter": lambda m: m.bias.register_hook(lambda gradient: gradient),
    "buffer": lambda m: setattr(m, "held", torch.zeros(2)),
    "buffer of another name": lambda m: m.register_buffer("other", torch.zeros(2)),
    "parameter": lambda m: setattr(m, "bias", nn.Parameter(torch.zeros(2))),
    "removed parameter": lambda m: setattr(m, "bias", None),
    "frozen parameter": lambda m: m.weight.requires_grad_(False),
    "dtype": lambda m: m.double(),
    "submodule": lambda m: setattr(m, "inner", nn.ReLU()),
    "added submodule": lambda m: m.add_module("late", nn.ReLU()),
    "number": lambda m: setattr(m, "in_features", 7),
    "new word": lambda m: setattr(m, "manner", "other"),
    "number that is none any more": lambda m: setattr(m, "in_features", torch.zeros(2)),
    "removed number": lambda m: delattr(m, "in_features"),
    "dictionary of parameters": _replaced_dict,
    "entry of a list": lambda m: m.scales.__setitem__(0, 0.5),
    "entry of an array": lambda m: m.table.fill(0.5),
    "all that it holds": lambda m: setattr(m, "__dict__", {**copy.deepcopy(m).__dict__}),
}


@pytest.mark.parametrize("where", ["root", "leaf"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_glance_sees_each_change(change: str, where: str) -> None:
    def build() -> nn.Linear:
        made = nn.Linear(2, 2)
        made.register_buffer("held", torch.zeros(2))
        made.inner = nn.ReLU()
        made.scales, made.table = [1.0], np.ones(2)
        made.hook = made.register_forward_hook(lambda *_: None)
        made.bias.register_hook(lambda gradient: gradient)
        return made

    leaf, root = build(), build()
    root.leaf = leaf
    state = State.of([root])
    assert state.now([root]) is state
    CHANGES[change](root if where == "root" else leaf)
    assert not state.glance.shows_no_change()
    now = state.now([root])
    assert (now.modules, now.parameters, now.attributes) != (state.modules, state.parameters, state.attributes)
    assert now.now([root]) is now


def test_a_glance_sees_a_hook_of_all_modules() -> None:
    root = nn.Linear(2, 2)
    state = State.of([root])
    for register in (nn.modules.module.register_module_forward_hook, nn.modules.module.register_module_full_backward_hook):
        hook = register(lambda *_: None)
        try:
            assert not state.glance.shows_no_change() and state.now([root]).modules != state.modules
        finally:
            hook.remove()
        assert state.now([root]) is state


def test_a_glance_at_a_flag_that_is_computed_claims_nothing() -> None:
    class Computed(nn.Linear):
        training = property(lambda self: True, lambda self, value: None)  # type: ignore[assignment]

    state = State.of([Computed(2, 2)])
    assert not state.glance.shows_no_change()
