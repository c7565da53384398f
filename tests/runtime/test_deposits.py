"""A mixture is about the gradient that the optimizer sees, not about gradients that were thrown away."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fxcheck
from tests.runtime.models import Scalars

ONE = torch.ones(1, dtype=torch.float64)


def _zero(s: Scalars, x: Tensor) -> Tensor:
    """max(w, -w) - max(-w, w) = 0, where AD gives 2 at w = 0 (theory 5); the second layer of picks is not the first's."""
    y = s.w * x
    return torch.stack([y, -y]).max(0).values - torch.stack([-y, y]).max(0).values


def _behind(s: Scalars, x: Tensor) -> Tensor:
    """The same, with a layer before it, so that all layers are decided together."""
    y = s.w * x + torch.relu(s.w * x + 7.0) - (s.w * x + 7.0)
    return torch.stack([y, -y]).max(0).values - torch.stack([-y, y]).max(0).values


def _thrown_away(checked: Any) -> None:
    checked(ONE).sum().backward()
    checked.zero_grad()
    (-checked(ONE)).sum().backward()


def _zeroed(checked: Any) -> None:
    checked(ONE).sum().backward()
    checked.zero_grad(set_to_none=False)
    (-checked(ONE)).sum().backward()


def _gone_elsewhere(checked: Any) -> None:
    torch.autograd.grad(checked(ONE).sum(), list(checked.parameters()))
    (-checked(ONE)).sum().backward()


def _meant_for_the_input(checked: Any) -> None:
    x = ONE.clone().requires_grad_()
    checked(x).sum().backward(inputs=[x])
    (-checked(ONE)).sum().backward()


def _added(checked: Any) -> None:
    checked(ONE).sum().backward()
    (-checked(ONE)).sum().backward()


def _where_trap(s: Scalars, x: Tensor) -> Tensor:
    """log(w relu(x)) is not chosen where x < 0, and backward multiplies its infinite slope by 0."""
    return torch.where(x > 0, torch.log(s.w * x.relu()), s.w)


@pytest.mark.parametrize("kinked", [False, True])
def test_a_step_that_leaves_nan_in_grad_is_uncertified(kinked: bool) -> None:
    model = Scalars(lambda s, x: _where_trap(s, x) + (torch.relu(s.w * x) if kinked else 0), w=1.0)
    checked = fxcheck.instrument(model, (ONE,))
    for sign, expected in ((1, "certified"), (-1, "uncertified"), (1, "certified")):
        checked.zero_grad()
        with checked.step() as step:
            checked(sign * ONE).sum().backward()
        assert step.verdict == expected, step.text


def test_what_a_backward_pass_left_before_a_forward_is_not_the_steps() -> None:
    model = Scalars(lambda s, x: s.w * x, w=1.0)
    checked = fxcheck.instrument(model, (ONE,))
    model.w.grad = torch.full_like(model.w, torch.nan)
    checked(ONE)
    assert checked.last_step.verdict == "certified"


def _verdict(function: Callable[..., Tensor], run: Callable[[Any], None]) -> tuple[str | None, float]:
    model = Scalars(function, w=0.0)
    checked = fxcheck.instrument(model, (ONE,))
    with checked.step():
        checked(ONE), checked(ONE)  # from now on a second forward is expected
    model.zero_grad()
    with checked.step() as step:
        run(checked)
    return step.verdict, float(model.w.grad)


@pytest.mark.parametrize("function", [_zero, _behind])
@pytest.mark.parametrize("run", [_thrown_away, _zeroed, _gone_elsewhere, _meant_for_the_input])
def test_gradients_that_do_not_add_up_in_grad_are_not_mixed_together(
    function: Callable[..., Tensor], run: Callable[[Any], None]
) -> None:
    assert _verdict(function, run) == ("uncertified", -2.0)


@pytest.mark.parametrize("function", [_zero, _behind])
def test_gradients_of_micro_batches_that_do_are(function: Callable[..., Tensor]) -> None:
    assert _verdict(function, _added) == ("certified", 0.0)


def _before_any_step(checked: Any) -> Tensor:
    return checked(ONE)


def _in_the_step_before(checked: Any) -> Tensor:
    with checked.step():
        y = checked(ONE)
    return y


def _in_a_step_that_failed(checked: Any) -> Tensor:
    with contextlib.suppress(ValueError), checked.step():
        y = checked(ONE)
        raise ValueError
    return y


@pytest.mark.parametrize("earlier", [_before_any_step, _in_the_step_before, _in_a_step_that_failed])
@pytest.mark.parametrize("function", [lambda s, x: torch.relu(s.w * x), lambda s, x: s.w * x], ids=["relu", "linear"])
def test_a_gradient_that_comes_to_a_forward_of_before_the_step_is_no_part_of_what_was_seen(
    function: Callable[[Scalars, Tensor], Tensor], earlier: Callable[[Any], Tensor]
) -> None:
    """relu(w) - relu(-w) = w, where AD gives 0 at w = 0."""
    checked = fxcheck.instrument(Scalars(function, w=0.0), (ONE,))
    y = earlier(checked)
    with checked.step() as step:
        (y - checked(-ONE)).sum().backward()
    assert step.verdict == "uncertified"
    assert "before this step" in step.text
    with checked.step() as step:
        checked(ONE).sum().backward()
    assert step.verdict == "certified"


def _unchecked(checked: Any) -> Tensor:
    checked.eval()
    y = checked(ONE)
    checked.train()
    return y


def _of_another_checked_module(checked: Any) -> Tensor:
    other = fxcheck.instrument(checked.model, (ONE,))
    with other.step():
        return other(ONE)


def _enabling_gradients(checked: Any) -> Tensor:
    with torch.no_grad():
        return checked(ONE)


@pytest.mark.parametrize("earlier", [_unchecked, _of_another_checked_module, _enabling_gradients])
def test_nor_is_one_that_comes_to_a_forward_that_the_step_did_not_check(earlier: Callable[[Any], Tensor]) -> None:
    def function(s: Scalars, x: Tensor) -> Tensor:
        with torch.enable_grad():
            return torch.relu(s.w * x)

    checked = fxcheck.instrument(Scalars(function, w=0.0), (ONE,))
    y = earlier(checked)
    assert y.requires_grad
    with checked.step() as step:
        (y - checked(-ONE)).sum().backward()
    assert step.verdict == "uncertified"
    assert "before this step, or to one that was not checked" in step.text


def test_checked_modules_of_one_model_see_each_other_in_open_steps() -> None:
    one = fxcheck.instrument(Scalars(lambda s, x: torch.relu(s.w * x), w=0.0), (ONE,))
    other = fxcheck.instrument(one.model, (ONE,))
    with one.step() as first, other.step() as second:
        (one(ONE) - other(-ONE)).sum().backward()
    assert (first.verdict, second.verdict) == ("uncertified", "uncertified")


# What was there before -------------------------------------------------------------------------


def _relu(w: float = 0.0, function: Callable[[Scalars, Tensor], Tensor] = lambda s, x: torch.relu(s.w * x)) -> Any:
    return fxcheck.instrument(Scalars(lambda s, x: function(s, x) + 0.25 * s.w, w=w), (ONE,))


def _is_about_its_own(step: fxcheck.StepResult) -> bool:
    return any("about what it added alone" in a for a in step.assumptions)


def test_a_step_that_adds_to_older_gradients_says_so() -> None:
    """relu(w) + w/4 and -relu(-w) + w/4 sum to 3w/2, where AD gives 1/2 at w = 0 (theory 4.12)."""
    checked = _relu()
    checked(ONE).sum().backward()
    with pytest.warns(UserWarning, match="gradients of before the step"), checked.step() as step:
        (checked.model.w / 2 - checked(-ONE)).sum().backward()
    assert checked.model.w.grad == 0.5
    assert _is_about_its_own(step)
    assert step.certificate is not None
    assert any("about what it added alone" in note for note in step.certificate.notes)
    checked.zero_grad()
    with checked.step() as step:
        checked(ONE).sum().backward()
    assert not _is_about_its_own(step)


def _none_before(checked: Any, x: Tensor) -> None:
    checked.zero_grad()
    checked(x).sum().backward()


def _none_between(checked: Any, x: Tensor) -> None:
    y = checked(x)
    checked.zero_grad()
    y.sum().backward()


def _zero_between(checked: Any, x: Tensor) -> None:
    y = checked(x)
    checked.zero_grad(set_to_none=False)
    y.sum().backward()


def _beside_a_penalty(checked: Any, x: Tensor) -> None:
    """Whose gradient may come before that of the output."""
    y = checked(x)
    checked.zero_grad()
    (y.sum() + checked.model.w.square().sum() + checked.model.w.sum()).backward()


def _zero_at_first(checked: Any, x: Tensor) -> None:
    checked.zero_grad(set_to_none=False)
    checked(x).sum().backward()
    checked(x).sum().backward()


@pytest.mark.parametrize("run", [_none_before, _none_between, _zero_between, _beside_a_penalty, _zero_at_first])
def test_gradients_that_are_set_to_zero_before_backward_are_none_of_the_steps(run: Callable[[Any, Tensor], None]) -> None:
    checked = _relu(w=1.0)
    for x in (ONE, -ONE, ONE):
        with checked.step() as step:
            run(checked, x)
        assert checked.model.w.grad != 0
        assert not _is_about_its_own(step)


def test_gradients_that_are_right_everywhere_add_up() -> None:
    checked = _relu(function=lambda s, x: torch.sigmoid(s.w * x))
    for _ in range(2):
        with checked.step() as step:
            checked(ONE).sum().backward()
        assert not _is_about_its_own(step)


def test_forwards_outside_of_steps_warn_when_their_gradients_add_up(recwarn: pytest.WarningsRecorder) -> None:
    checked = _relu()
    for _ in range(3):
        checked(ONE).sum().backward()
        checked.zero_grad()
    assert not [w for w in recwarn if "fxcheck" in str(w.message)]
    checked(ONE).sum().backward()
    with pytest.warns(UserWarning, match="gradients of before the step"):
        checked(ONE).sum().backward()


@pytest.mark.parametrize("scale", [1.0, float("nan")])
def test_gradients_of_embeddings_may_be_sparse(scale: float) -> None:
    model = nn.Sequential(nn.Embedding(5, 3, sparse=True), nn.Linear(3, 2), nn.ReLU())
    checked = fxcheck.instrument(model, (torch.tensor([1, 3]),))
    for _ in range(2):  # the second time there is something to add to
        with checked.step() as step:
            checked(torch.tensor([1, 3])).sum().backward()
            model[0].weight.grad.mul_(scale)
        assert (step.verdict == "certified") == (scale == 1.0), step.text
    assert model[0].weight.grad.is_sparse


def test_zeros_that_a_fused_optimizer_wrote_are_seen() -> None:
    """Fused optimizers write past torch's count of writes."""
    checked = fxcheck.instrument(Scalars(lambda s, x: (s.w * x).square(), w=1.0), (ONE,))
    optimizer = torch.optim.SGD(checked.parameters(), 0.5, fused=True)
    with pytest.raises(fxcheck.StepError, match="parameters changed inside step"), checked.step():
        for _ in range(2):
            checked(ONE).sum().backward()
            optimizer.step()
    with checked.step() as step:
        checked(ONE).sum().backward()
    optimizer.step()
    assert step.verdict == "certified"


class _Pair(nn.Module):
    """max(p, q) and max(q, p) of <x, w>, tied at w = 0."""

    def __init__(self) -> None:
        super().__init__()
        self.l = nn.Linear(2, 1, bias=False).double()
        nn.init.zeros_(self.l.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.l(x).squeeze(-1).max(1).values


X = torch.tensor([[[1.0, 0], [0, 1]], [[0, 1], [1, 0]]], dtype=torch.float64)


def _paired() -> Any:
    checked = fxcheck.instrument(_Pair(), (X,))
    with checked.step():
        checked(X), checked(X)  # from now on a second forward is expected
    return checked


def test_what_a_scaler_does_to_gradients_between_two_passes_is_seen() -> None:
    """2 max(p, q) - 2 max(q, p) is 0, and backward's gradient of it (2, -2)."""
    checked = _paired()
    optimizer, scaler = torch.optim.SGD(checked.parameters(), 0.1), torch.amp.GradScaler("cpu")
    with checked.step() as step:
        scaler.scale(checked(X).sum()).backward()
        scaler.unscale_(optimizer)
        y = checked(X)
        (y[0] - 3 * y[1]).backward()
    assert checked.model.l.weight.grad.tolist() == [[2, -2]]
    assert step.verdict == "uncertified"


def _out_of_memory(*_: Any) -> None:
    raise RuntimeError("out of memory")


@pytest.mark.parametrize("first", [False, True])
def test_a_backward_pass_that_fails_brings_nothing(first: bool) -> None:
    """(1, -3) is backward's gradient of -2 max(p, q), whose subgradients are between (-2, 0) and (0, -2)."""
    checked = _paired()

    def fails() -> None:
        a = checked(X)
        a.grad_fn.register_prehook(_out_of_memory)
        with contextlib.suppress(RuntimeError):
            (5 * a.sum()).backward()

    with checked.step() as step:
        if first:
            fails()
        y = checked(X)
        (y[0] - 3 * y[1]).backward()
        if not first:
            fails()
    assert checked.model.l.weight.grad.tolist() == [[1, -3]]
    assert step.verdict == "uncertified"


def test_gradients_that_autograd_grad_returns_are_added_to_nothing(recwarn: pytest.WarningsRecorder) -> None:
    checked = _relu(w=1.0)
    for _ in range(3):
        with checked.step() as step:
            (gradient,) = torch.autograd.grad(checked(ONE).sum(), [checked.model.w])
        checked.model.w.grad = gradient
        assert not _is_about_its_own(step)
    x = ONE.clone().requires_grad_()
    for _ in range(3):
        with checked.step() as step:
            (sent,) = torch.autograd.grad(checked(x).sum(), [x])
            checked.zero_grad()
            checked(ONE + sent.sign()).sum().backward()
        assert step.verdict == "certified" and not _is_about_its_own(step)
    assert not [w for w in recwarn if "fxcheck" in str(w.message)]
    with checked.step() as step:
        torch.autograd.grad(checked(ONE).sum(), [checked.model.w])
        checked(ONE).sum().backward()
    assert _is_about_its_own(step)


def test_two_forwards_outside_of_steps_warn_too_when_their_gradients_come_afterwards() -> None:
    checked = _relu()
    a, b = checked(ONE), checked(-ONE)
    with pytest.warns(UserWarning, match="gradients of before the step"):
        (a - b).sum().backward()
