"""A pool keeps one step open from the first forward to the optimizer's step, without any trainer's library."""

from __future__ import annotations

import inspect

import pytest
import torch
from torch import Tensor, nn

import fxcheck
from fxcheck.errors import StepError, UsageError
from fxcheck.integrations.pooling import StepPool
from fxcheck.runtime.checked import CheckedModule

X = torch.randint(0, 4, (4, 1, 8, 8), generator=torch.Generator().manual_seed(0)).float()


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(18, 3))


class Around(nn.Module):
    """A user's module that contains a checked one."""

    def __init__(self, *checked: CheckedModule) -> None:
        super().__init__()
        self.nets = nn.ModuleList(checked)

    def forward(self, x: Tensor) -> Tensor:
        return sum(net(x).square().mean() for net in self.nets)


def prepared(**options: object) -> tuple[CheckedModule, torch.optim.Optimizer]:
    checked = fxcheck.instrument(network(), (X,), **options)
    return checked, torch.optim.SGD(checked.parameters(), lr=0.1)


def test_micro_batches_and_several_forwards_are_one_step() -> None:
    checked, optimizer = prepared()
    pool = StepPool(checked, [optimizer])
    for half in X.chunk(2):
        (checked(half).square().mean() + checked(half.flip(3)).square().mean()).backward()
    scalars = pool.close(optimizer)
    optimizer.step()
    assert checked.summary().steps == 1 and checked.last_step.forwards == 4 and checked.last_step.samples == 8
    assert scalars == checked.last_step.scalars() and scalars["fxcheck/certified"] == 1.0


def test_evaluation_in_the_middle_counts_for_nothing() -> None:
    checked, optimizer = prepared()
    pool = StepPool(checked, [optimizer])
    checked(X).sum().backward()
    checked.eval()
    with torch.no_grad():
        checked(X)
    checked.train()
    pool.close(optimizer)
    assert checked.last_step.forwards == 1 and checked.last_step.verdict == "certified"


def test_nothing_is_said_when_no_forward_ran() -> None:
    checked, optimizer = prepared()
    assert StepPool(checked, [optimizer]).close(optimizer) == {} and checked.summary().steps == 0


def test_the_policy_of_the_module_is_obeyed_before_the_optimizer_steps() -> None:
    checked, optimizer = prepared(on_uncertified="raise")
    pool = StepPool(checked, [optimizer])
    checked(X).sum().backward()
    checked.eval()
    checked(X).sum().backward()  # unobserved, with gradients
    checked.train()
    with pytest.raises(StepError, match="eval mode"):
        pool.close(optimizer)
    checked(X).sum().backward()
    assert pool.close(optimizer)["fxcheck/certified"] == 1.0


def test_a_discarded_step_has_no_verdict_and_a_detached_module_is_as_before() -> None:
    checked, optimizer = prepared()
    pool = StepPool(checked, [optimizer])
    checked(X).sum().backward()
    pool.discard()
    assert checked.summary().steps == 0
    pool.detach()
    checked(X)
    assert checked.summary().steps == 1
    with checked.step() as step:
        checked(X).sum().backward()
    assert step.verdict == "certified"


def test_a_loss_through_the_checked_graph_is_pooled_too() -> None:
    checked = fxcheck.instrument(network(), (X,), loss=nn.L1Loss(), target=torch.zeros(4, 3), allow_uncovered=True)
    optimizer = torch.optim.SGD(checked.parameters(), lr=0.1)
    pool = StepPool(checked, [optimizer])
    for _ in range(2):
        checked.loss(X, target=torch.zeros(4, 3)).backward()
    pool.close(optimizer)
    assert checked.last_step.forwards == 2


def test_two_modules_are_two_sets_of_scalars() -> None:
    both = Around(*(fxcheck.instrument(network(), (X,)) for _ in range(2)))
    optimizer = torch.optim.SGD(both.parameters(), lr=0.1)
    pool = StepPool(both, [optimizer])
    both(X).backward()
    assert {"fxcheck/nets.0/ties", "fxcheck/nets.1/ties"} <= set(pool.close(optimizer))


def test_an_optimizer_decides_only_its_own_modules() -> None:
    both = Around(*(fxcheck.instrument(network(), (X,)) for _ in range(2)))
    first, second = (torch.optim.SGD(net.parameters(), lr=0.1) for net in both.nets)
    pool = StepPool(both, [first, second])
    both(X).backward()
    assert all(name.startswith("fxcheck/nets.0/") for name in pool.close(first))
    assert both.nets[0].summary().steps == 1 and both.nets[1].summary().steps == 0


def test_an_optimizer_over_other_parameters_is_refused() -> None:
    checked, _ = prepared()
    some = torch.optim.SGD(list(checked.parameters())[:2], lr=0.1)
    with pytest.raises(UsageError, match="updates 2 parameter tensors of the checked module, its checks are about 4"):
        StepPool(checked, [some])


def test_wrt_says_which_parameters() -> None:
    model = network()
    some = torch.optim.SGD(list(model.parameters())[:2], lr=0.1)
    checked = fxcheck.instrument(model, (X,), wrt=some)
    pool = StepPool(checked, [some])
    checked(X).sum().backward()
    assert pool.close(some)


def test_a_model_that_was_not_instrumented_is_refused() -> None:
    model = network()
    with pytest.raises(UsageError, match="no checked module was found in Sequential"):
        StepPool(model, [torch.optim.SGD(model.parameters(), lr=0.1)])


def test_modules_that_share_parameters_are_refused() -> None:
    model = network()
    both = Around(fxcheck.instrument(model, (X,)), fxcheck.instrument(model, (X,)))
    with pytest.raises(UsageError, match="share parameters"):
        StepPool(both, [torch.optim.SGD(both.parameters(), lr=0.1)])


def test_an_optimizer_that_updates_nothing_of_the_module_is_refused() -> None:
    checked, _ = prepared()
    with pytest.raises(UsageError, match="no optimizer updates"):
        StepPool(checked, [torch.optim.SGD(network().parameters(), lr=0.1)])


def test_the_signature_of_forward_is_the_models() -> None:
    checked, _ = prepared()
    assert list(inspect.signature(checked.forward).parameters) == ["input"]


def test_one_backward_pass_may_be_for_two_optimizers() -> None:
    one, first = prepared()
    other, second = prepared()
    pool = StepPool(Around(one, other), [first, second])
    for _ in range(2):
        (one(X).square().mean() + other(X).square().mean()).backward()
        for optimizer in (first, second):
            assert pool.close(optimizer)
            optimizer.step()
            optimizer.zero_grad()
    assert one.summary().steps == other.summary().steps == 2


def test_a_step_that_no_optimizer_took_is_forgotten_when_the_module_runs_again() -> None:
    one, first = prepared()
    other, second = prepared()
    pool = StepPool(Around(one, other), [first, second])
    other(X).sum().backward()
    one(X).square().mean().backward()
    pool.close(first)
    other.zero_grad()
    other(X).square().mean().backward()
    pool.close(second)
    assert other.summary().steps == 1 and other.last_step.forwards == 1


def test_a_step_that_the_users_code_opens_is_left_to_it() -> None:
    checked, optimizer = prepared()
    StepPool(checked, [optimizer])
    with checked.step() as step:
        for half in X.chunk(2):
            checked(half).square().mean().backward()
    assert step.forwards == 2 and checked.summary().steps == 1
