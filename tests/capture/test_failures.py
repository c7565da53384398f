"""What cannot be captured: one message with the model's own exception, the user's line and a way out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

import fxcheck
from fxcheck.capture.export import capture
from fxcheck.errors import CaptureError, FxcheckError, InputError, UsageError


class Model(nn.Module):
    def __init__(self, body):
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.body = body

    def forward(self, x):
        return self.body(self.linear(x))


def _refusal(body, x=None) -> FxcheckError:
    with pytest.raises(FxcheckError) as caught:
        capture(Model(body), (torch.zeros(3, 4) if x is None else x,))
    return caught.value


def _raises(y):
    raise KeyError("no such layer")


def test_the_models_own_exception_is_named_with_its_line() -> None:
    error = _refusal(_raises)
    assert error.code == "FX601"
    assert "KeyError: 'no such layer'" in str(error)
    assert "test_failures.py:" in str(error)
    assert error.hint


@dataclass
class _Scores:
    logits: torch.Tensor


@pytest.mark.parametrize("body", [_Scores, lambda y: {"scores": (y, _Scores(y))}])
def test_an_output_that_export_cannot_take_apart_is_named_by_its_type(body) -> None:
    error = _refusal(body)
    assert error.code == "FX603" and "raised" not in str(error)
    assert "an output is of type test_failures._Scores" in str(error).replace(f"{__package__}.", "")
    assert "tuple" in error.hint and "torch.export.register_dataclass" in error.hint
    assert capture(Model(_Scores), (torch.zeros(3, 4),), loss=lambda scores: scores.logits.sum())


def test_an_input_that_export_cannot_take_apart_is_named_by_its_type() -> None:
    error = _refusal(lambda y: y, _Scores(torch.zeros(3, 4)))
    assert "an input is of type" in str(error) and "torch.export.register_dataclass" in error.hint


def test_a_batchnorm_that_averages_over_all_batches_is_named() -> None:
    with pytest.raises(CaptureError) as caught:
        capture(nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2, momentum=None)), (torch.zeros(2, 1, 4, 4),))
    assert caught.value.code == "FX602"
    assert "momentum=None" in str(caught.value) and "momentum=0.1" in caught.value.hint


def test_a_wrong_input_shape_is_reported_as_the_model_reports_it() -> None:
    error = _refusal(lambda y: y, torch.zeros(3, 5))
    assert error.code == "FX601"
    assert "--input" in error.hint


def test_what_the_loss_raises_is_not_called_the_models() -> None:
    with pytest.raises(CaptureError) as caught:
        capture(Model(lambda y: y), (torch.zeros(3, 4),), loss=nn.MSELoss(), target=torch.zeros(5, 3))
    assert "the loss raised" in str(caught.value) and "--target" in caught.value.hint


def test_an_input_that_no_memory_holds_is_refused_with_its_shape() -> None:
    with pytest.raises(InputError, match="1000000x1000000x4 does not fit in memory"):
        capture(Model(lambda y: y), (torch.zeros(1000000, 1000000, 4, device="meta"),))


@pytest.mark.parametrize(
    "body",
    [lambda y: y if y.sum() > 0 else -y, lambda y: y[: int(y.argmax())] * 1, lambda y: y if bool(y.max() > 1) else -y, torch.cov],
)
def test_control_flow_on_values_says_so(body) -> None:
    error = _refusal(body)
    assert error.code == "FX602"
    assert "test_failures.py:" in str(error)
    assert "torch.where" in error.hint


def test_numpy_on_an_activation_is_refused() -> None:
    error = _refusal(lambda y: y + torch.from_numpy(y.detach().numpy() * 2))
    assert isinstance(error, CaptureError)


@pytest.mark.parametrize("container", [lambda v: v, lambda v: [v]])
def test_a_value_that_was_computed_with_gradients_before_the_forward_is_refused(container) -> None:
    model = Model(lambda y: y + torch.utils._pytree.tree_leaves(model.half)[0])
    model.half = container(model.linear.weight * 0.5)
    for call in (fxcheck.analyze, fxcheck.instrument):
        with pytest.raises(CaptureError, match="computed with gradients before it") as caught:
            call(model, (torch.zeros(4, 4),))
        assert caught.value.code == "FX604"


@pytest.mark.parametrize("container", [lambda v: v, lambda v: [v], lambda v: ({0: v},), lambda v: SimpleNamespace(v=v)])
@pytest.mark.parametrize("kind", [nn.Parameter, lambda v: v.requires_grad_()])
def test_a_trainable_tensor_that_is_no_parameter_is_refused_where_its_gradient_counts(kind, container) -> None:
    def scale() -> Any:
        held = vars(model.held) if isinstance(model.held, SimpleNamespace) else model.held
        return torch.utils._pytree.tree_leaves(held)[0]

    model = Model(lambda y: y * scale())
    vars(model)["held"] = container(kind(torch.ones(4)))
    for call in (fxcheck.analyze, fxcheck.instrument):
        with pytest.raises(CaptureError, match="trainable tensor that is no parameter") as caught:
            call(model, (torch.zeros(4, 4),))
        assert caught.value.code == "FX604"
    model.body = lambda y: y * scale().detach() + _without_gradient(lambda: 2 * scale())
    assert fxcheck.analyze(model, (torch.zeros(4, 4),)).verdict == "smooth"
    model.body = lambda y: y * scale()
    scale().requires_grad_(False)
    assert fxcheck.analyze(model, (torch.zeros(4, 4),)).verdict == "smooth"


def test_a_cache_by_shape_is_captured_with_the_sizes_of_the_example() -> None:
    """The first try leaves sizes open, whose symbols have no hash; what it notes on an input does not reach the second."""
    cache: dict[Any, torch.Tensor] = {}

    def cached(y: torch.Tensor) -> torch.Tensor:
        return y * (cache[y.shape] if y.shape in cache else torch.ones(y.shape))

    x = torch.zeros(4, 4)
    before = dict(vars(x))
    assert fxcheck.analyze(Model(cached), (x,)).verdict == "smooth"
    assert vars(x) == before


@pytest.mark.parametrize("persistent", [False, True])
def test_a_trained_buffer_is_refused_as_soon_as_it_is_trained(persistent: bool) -> None:
    model = Model(lambda y: y + torch.relu(model.t) - torch.relu(-model.t))
    model.register_buffer("t", torch.zeros(4), persistent)
    checked = fxcheck.instrument(model, (torch.zeros(4, 4),))
    checked(torch.zeros(4, 4)).sum().backward()
    model.t.requires_grad_()
    for call in (lambda: checked(torch.zeros(4, 4)), lambda: fxcheck.analyze(model, (torch.zeros(4, 4),))):
        with pytest.raises(CaptureError, match="trainable tensor that is no parameter") as caught:
            call()
        assert caught.value.code == "FX604"
    model.t = model.linear.weight[0] * 1
    with pytest.raises(CaptureError, match="'t' that was computed with gradients before it"):
        fxcheck.analyze(model, (torch.zeros(4, 4),))


def test_a_trained_buffer_of_a_module_that_is_not_registered_is_refused() -> None:
    hidden = nn.Module()
    hidden.register_buffer("t", torch.zeros(4))
    model = Model(lambda y: y + model.hidden[0].t + model.own)
    model.hidden, model.own = [hidden], torch.zeros(4)
    for held in (hidden.t, model.own):
        checked = fxcheck.instrument(model, (torch.zeros(4, 4),))
        held.requires_grad_()
        for call in (lambda c=checked: c(torch.zeros(4, 4)), lambda: fxcheck.analyze(model, (torch.zeros(4, 4),))):
            with pytest.raises(CaptureError, match="trainable tensor that is no parameter"):
                call()
        held.requires_grad_(False)


def _without_gradient(compute: Callable[[], torch.Tensor]) -> torch.Tensor:
    with torch.no_grad():
        return compute()


def test_non_finite_weights_are_an_error_that_names_them() -> None:
    model = Model(lambda y: y)
    with torch.no_grad():
        model.linear.bias[1] = float("inf")
    with pytest.raises(FxcheckError, match=r"linear\.bias") as caught:
        capture(model, (torch.zeros(3, 4),))
    assert not isinstance(caught.value, CaptureError)


def test_complex_and_integer_outputs_have_no_gradient_to_check() -> None:
    assert "complex" in str(_refusal(lambda y: torch.complex(y, y)))
    assert "int64" in str(_refusal(lambda y: y.argmax(1)))
    assert "no tensor" in str(_refusal(lambda y: None))


def test_lazy_parameters_and_scripted_modules_are_named() -> None:
    with pytest.raises(InputError, match="lazy"):
        capture(nn.LazyLinear(4), (torch.zeros(3, 4),))
    with pytest.warns((FutureWarning, DeprecationWarning)):
        scripted = torch.jit.script(nn.Linear(4, 4))
    for model in (scripted, nn.Sequential(scripted)):
        with pytest.raises(CaptureError, match="TorchScript"):
            capture(model, (torch.zeros(3, 4),))


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(UsageError, match="sideways"):
        capture(nn.Linear(4, 4), (torch.zeros(3, 4),), mode="sideways")


def test_a_model_without_parameters_is_captured() -> None:
    captured = capture(nn.ReLU(), (torch.zeros(3, 4),))
    assert not captured.parameters


def test_nothing_is_printed_or_logged_while_capturing(capfd, caplog) -> None:
    _refusal(lambda y: y if y.sum() > 0 else -y)
    capture(Model(lambda y: y), (torch.zeros(3, 4),))
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")


def test_what_torch_func_differentiates_is_refused() -> None:
    assert "torch.func" in str(_refusal(lambda y: torch.func.grad(lambda z: torch.relu(y * z).sum())(torch.ones(4)) * y))
