"""A recurrent layer with ReLU is captured step by step, as exactly the function and the gradients that it was."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import _get_current_function_mode

from fxcheck.api import analyze, instrument, report_on
from fxcheck.capture import unroll
from fxcheck.capture.export import Captured, capture, captured_archive
from fxcheck.capture.lower import lower
from fxcheck.capture.unroll import UnrolledRecurrence
from fxcheck.errors import CaptureError, FxcheckError
from tests.capture.interpret import run

STEPS, BATCH, INPUTS, HIDDEN = 5, 6, 3, 4
DTYPES = [torch.float32, torch.float64]
LAYERS = {
    "one layer": {},
    "batch first": {"batch_first": True},
    "without bias": {"bias": False},
    "two layers": {"num_layers": 2},
    "both directions": {"bidirectional": True},
    "dropout between layers": {"num_layers": 3, "dropout": 0.5},
    "all at once": {"num_layers": 2, "dropout": 0.3, "bidirectional": True, "batch_first": True, "bias": False},
}


class Cells(nn.Module):
    """A loop over a cell, as users write it."""

    def __init__(self, bias: bool = True) -> None:
        super().__init__()
        self.cell = nn.RNNCell(INPUTS, HIDDEN, bias=bias, nonlinearity="relu")

    def forward(self, x: Tensor, state: Tensor | None = None) -> Tensor:
        for t in range(x.shape[1]):
            state = self.cell(x[:, t], state)
        assert state is not None
        return state


class Classifier(nn.Module):
    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.rnn = nn.RNN(INPUTS, HIDDEN, nonlinearity="relu", batch_first=True, **options)
        self.head = nn.Linear(HIDDEN, 2)

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.rnn(x)
        return self.head(states[:, -1])


def _rnn(**options: Any) -> nn.RNN:
    return nn.RNN(INPUTS, HIDDEN, nonlinearity="relu", **options)


def _all_bits(model: nn.Module, forward: Callable[..., Any], inputs: tuple[Tensor, ...]) -> list[Tensor]:
    """Outputs, gradients with respect to inputs and parameters, and the generator's state after the forward."""
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    torch.manual_seed(1)
    outputs = torch.utils._pytree.tree_leaves(forward(*leaves))
    after = torch.get_rng_state()
    torch.manual_seed(2)
    cotangents = [torch.randn_like(v) for v in outputs]
    gradients = torch.autograd.grad(outputs, [*leaves, *model.parameters()], cotangents)
    return [*outputs, *gradients, after]


def _captured_without_composite(model: nn.Module, inputs: tuple[Tensor, ...], mode: str = "train") -> Captured:
    captured = capture(model, inputs, mode=mode)
    assert not [n for n in captured.program.graph.nodes if "rnn_relu" in str(n.target)]
    return captured


def _is_the_same_function(model: nn.Module, inputs: tuple[Tensor, ...], mode: str = "train") -> None:
    program = _captured_without_composite(model, inputs, mode).program.module()
    for found, wanted in zip(_all_bits(model, program, inputs), _all_bits(model, model, inputs), strict=True):
        assert found.dtype == wanted.dtype and found.stride() == wanted.stride()
        assert torch.equal(found, wanted)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("with_state", [False, True])
@pytest.mark.parametrize("options", LAYERS.values(), ids=LAYERS)
def test_an_rnn_keeps_every_bit_of_outputs_and_gradients(options: dict, with_state: bool, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = _rnn(**options).to(dtype)
    shape = (BATCH, STEPS) if model.batch_first else (STEPS, BATCH)
    sheets = model.num_layers * (2 if model.bidirectional else 1)
    state = (torch.randn(sheets, BATCH, HIDDEN, dtype=dtype),) if with_state else ()
    _is_the_same_function(model, (torch.randn(*shape, INPUTS, dtype=dtype), *state))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("with_state", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_a_cell_keeps_every_bit_of_outputs_and_gradients(bias: bool, with_state: bool, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    state = (torch.randn(BATCH, HIDDEN, dtype=dtype),) if with_state else ()
    _is_the_same_function(Cells(bias).to(dtype), (torch.randn(BATCH, STEPS, INPUTS, dtype=dtype), *state))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("inputs", "hidden", "steps", "batch"), [(1, 1, 1, 1), (17, 33, 7, 5), (64, 64, 28, 32)])
def test_so_it_does_in_other_sizes(inputs: int, hidden: int, steps: int, batch: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = nn.RNN(inputs, hidden, 2, "relu", bidirectional=True, batch_first=True).to(dtype)
    _is_the_same_function(model, (torch.randn(batch, steps, inputs, dtype=dtype),))


@pytest.mark.parametrize("with_state", [False, True])
def test_so_it_does_for_one_sequence_without_a_batch_dimension(with_state: bool) -> None:
    torch.manual_seed(0)
    state = (torch.randn(1, HIDDEN),) if with_state else ()
    _is_the_same_function(_rnn(), (torch.randn(STEPS, INPUTS), *state))


def test_so_it_does_in_eval_mode_where_nothing_is_dropped() -> None:
    torch.manual_seed(0)
    model = _rnn(num_layers=2, dropout=0.5).eval()
    _is_the_same_function(model, (torch.randn(STEPS, BATCH, INPUTS),), "eval")


def test_the_graph_holds_a_linear_layer_and_a_relu_for_each_step() -> None:
    model = _rnn(num_layers=2, bidirectional=True, batch_first=True)
    captured = _captured_without_composite(model, (torch.zeros(BATCH, STEPS, INPUTS),))
    ops = [n.op for n in lower(captured).nodes]
    assert ops.count("aten.relu.default") == 4 * STEPS
    assert ops.count("aten.linear.default") == 4 * (1 + STEPS)
    assert captured.batch_dynamic


@pytest.mark.parametrize("model", [_rnn(num_layers=2, bidirectional=True, batch_first=True), Cells()])
def test_the_single_assignment_graph_computes_the_same_numbers(model: nn.Module) -> None:
    x = torch.randn(BATCH, STEPS, INPUTS)
    captured = capture(model, (x,))
    wanted = torch.utils._pytree.tree_leaves(model(x))
    for found, value in zip(run(lower(captured), captured, (x,)), wanted, strict=True):
        assert torch.equal(found, value.detach())


@pytest.mark.parametrize("make", [nn.RNN, nn.LSTM, nn.GRU])
def test_smooth_recurrent_layers_stay_whole(make: type[nn.Module]) -> None:
    captured = capture(make(INPUTS, HIDDEN), (torch.zeros(STEPS, BATCH, INPUTS),))
    whole = [n for n in captured.program.graph.nodes if str(n.target).startswith(("aten.rnn", "aten.lstm", "aten.gru"))]
    assert len(whole) == 1
    assert report_on(captured, "model").verdict == "smooth"


def test_the_operator_called_by_name_is_unrolled_too() -> None:
    class ByName(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = _rnn()

        def forward(self, x: Tensor) -> Tensor:
            state, weights = x.new_zeros(1, BATCH, HIDDEN), list(self.rnn.parameters())
            options = (True, 1, 0.0, True, False, False)
            first = torch.ops.aten.rnn_relu(x, state, weights, *options)[0]
            second = torch.ops.aten.rnn_relu.input(x, state, weights, *options)[0]
            third = torch.rnn_relu(x, state, weights, *options)[0]
            return first + second + third + torch.rnn_relu_cell(x[0], state[0], *weights)

    _is_the_same_function(ByName(), (torch.randn(STEPS, BATCH, INPUTS),))


# Nothing is left behind -----------------------------------------------------------------------


def _exports_whole(model: nn.Module) -> bool:
    program = torch.export.export(model, (torch.zeros(BATCH, STEPS, INPUTS),))
    return any("rnn_relu" in str(n.target) for n in program.graph.nodes)


@pytest.mark.parametrize("fails", [False, True])
def test_after_a_capture_torch_and_the_module_are_what_they_were(fails: bool) -> None:
    class Failing(Classifier):
        def forward(self, x: Tensor) -> Tensor:
            out = super().forward(x)
            if fails:
                raise ValueError("after the recurrent layer")
            return out

    model = Failing()
    if fails:
        with pytest.raises(CaptureError, match="after the recurrent layer"):
            capture(model, (torch.zeros(BATCH, STEPS, INPUTS),))
    else:
        capture(model, (torch.zeros(BATCH, STEPS, INPUTS),))
    assert _get_current_function_mode() is None
    assert all(a is b for a, b in zip(model.rnn._flat_weights, model.rnn.parameters(), strict=True))
    assert _exports_whole(Classifier())


def test_other_threads_run_the_composite_while_one_captures() -> None:
    seen: list[bool] = []
    with UnrolledRecurrence():
        thread = threading.Thread(target=lambda: seen.append(_get_current_function_mode() is None))
        thread.start()
        thread.join()
        assert not _exports_whole(Classifier())
    assert seen == [True]


def test_it_may_be_entered_twice() -> None:
    with UnrolledRecurrence(), UnrolledRecurrence():
        assert not _exports_whole(Classifier())
    assert _exports_whole(Classifier())


# What is left whole ---------------------------------------------------------------------------


def test_where_a_fused_kernel_may_run_the_operator_stays_whole() -> None:
    called: list[str] = []

    class Elsewhere(Tensor):
        @property
        def device(self) -> torch.device:  # type: ignore[override]
            return torch.device("cuda")

        @classmethod
        def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            called.append(func.__name__)
            return super().__torch_function__(func, types, args, kwargs or {})

    model, x = _rnn(), torch.zeros(STEPS, BATCH, INPUTS).as_subclass(Elsewhere)
    with UnrolledRecurrence():
        torch.rnn_relu(x, torch.zeros(1, BATCH, HIDDEN), model._flat_weights, True, 1, 0.0, True, False, False)
    assert "rnn_relu" in called


def test_a_packed_sequence_is_refused_with_a_way_out() -> None:
    class Packed(Classifier):
        def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
            packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True)
            return self.rnn(packed)[1]

    with pytest.raises(CaptureError, match="packed sequence") as caught:
        capture(Packed(), (torch.zeros(3, STEPS, INPUTS), torch.tensor([5, 4, 2])))
    assert caught.value.code == "FX602"
    assert "padded batch" in caught.value.hint


def test_an_archive_that_holds_the_composite_is_uncovered_and_says_to_analyse_the_module() -> None:
    program = torch.export.export(Classifier(), (torch.zeros(BATCH, STEPS, INPUTS),))
    (layer,) = report_on(captured_archive(program), "archive").layers
    (finding,) = layer.diagnostics
    assert (str(layer.verdict), finding.code) == ("uncovered", "FX103")
    assert "Analyse the module itself" in finding.hint


# What a user sees -----------------------------------------------------------------------------


def test_each_step_is_a_layer_named_after_the_module_at_the_users_line() -> None:
    report = analyze(Classifier(num_layers=2), torch.zeros(BATCH, 3, INPUTS))
    assert [layer.name for layer in report.layers] == ["rnn/relu", *(f"rnn/relu#{i}" for i in range(2, 7))]
    assert {layer.location.rpartition(":")[0].rpartition("/")[2] for layer in report.layers} == {"test_unroll.py"}
    assert {layer.source for layer in report.layers} == {"states, _ = self.rnn(x)"}
    assert {(layer.activation, layer.pre_activation) for layer in report.layers} == {("relu", ("linear", "add"))}


def test_only_the_first_step_of_each_layer_has_parameters_of_its_own() -> None:
    report = analyze(Classifier(num_layers=2), torch.zeros(BATCH, 3, INPUTS))
    assert [str(layer.verdict) == "certified" for layer in report.layers] == [True, False, False, True, False, False]
    assert report.conditions.condition_1 is False
    assert report.verdict in ("runtime", "uncovered")


def test_calls_of_a_cell_are_told_apart() -> None:
    report = analyze(Cells(), torch.zeros(BATCH, 3, INPUTS))
    assert [layer.name for layer in report.layers] == ["cell/relu", "cell#2/relu", "cell#3/relu"]


@pytest.mark.parametrize("model", [Classifier(), Cells()])
def test_a_single_step_is_an_ordinary_layer(model: nn.Module) -> None:
    report = analyze(model, torch.zeros(BATCH, 1, INPUTS))
    assert (report.verdict, report.theorem) == ("certified", "T4")


@pytest.mark.parametrize("model", [Classifier(num_layers=2, dropout=0.5), Cells(bias=False)])
def test_the_rewritten_program_passes_its_own_validation(model: nn.Module) -> None:
    checked = instrument(model, torch.randn(BATCH, STEPS, INPUTS), allow_uncovered=True)
    assert not checked.validation
    with checked.step() as step:
        checked(torch.randn(BATCH, STEPS, INPUTS)).sum().backward()
    assert len(step.layers) >= STEPS - 1


def test_a_program_that_differs_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch's own decomposition leaves out the dropout between layers."""
    monkeypatch.setattr(unroll, "_layers", torch.ops.aten.rnn_relu.input.decompose)
    with pytest.raises(FxcheckError, match="does not reproduce"):
        instrument(Classifier(num_layers=2, dropout=0.5), torch.randn(BATCH, STEPS, INPUTS), allow_uncovered=True)
