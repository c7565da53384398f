"""Example inputs: from flags, from the file, or inferred from the layers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fxcheck.capture.inputs import example_inputs, first_accepted
from fxcheck.capture.target import Loaded
from fxcheck.errors import FxcheckError, InputError, UsageError


def _loaded(module: nn.Module | None = None, given=None) -> Loaded:
    return Loaded("m.py", module or nn.Linear(4, 4), None, given)


def _inferred(module: nn.Module, batch: int | None = None) -> tuple[tuple[int, ...], torch.dtype]:
    example = first_accepted(module, example_inputs(_loaded(module), (), batch))
    return tuple(example.args[0].shape), example.args[0].dtype


def test_flags_give_positional_and_keyword_inputs() -> None:
    (example,) = example_inputs(_loaded(), ["8x3x224x224", "mask=8x7:bool", "4x16:int64"])
    assert [tuple(a.shape) for a in example.args] == [(8, 3, 224, 224), (4, 16)]
    assert example.args[1].dtype == torch.int64
    assert example.kwargs["mask"].dtype == torch.bool


@pytest.mark.parametrize("spec", ["3x", "x3", "axb", "4x4:int65", "4x-1", "0x3", "", "n="])
def test_a_spec_that_is_no_shape_is_refused(spec: str) -> None:
    with pytest.raises(UsageError) as caught:
        example_inputs(_loaded(), [spec])
    assert caught.value.hint


@pytest.mark.parametrize(
    ("given", "args", "kwargs"),
    [
        (torch.zeros(2, 4), 1, []),
        ((torch.zeros(2, 4), torch.zeros(2, 4)), 2, []),
        ({"x": torch.zeros(2, 4)}, 0, ["x"]),
        (((torch.zeros(2, 4),), {"m": torch.zeros(2)}), 1, ["m"]),
        ((torch.zeros(2, 4, device="meta"),), 1, []),
    ],
)
def test_example_inputs_of_a_file_may_be_a_tensor_a_tuple_or_a_dict(given, args: int, kwargs: list[str]) -> None:
    (example,) = example_inputs(_loaded(given=given), ())
    assert (len(example.args), list(example.kwargs)) == (args, kwargs)


def test_example_inputs_of_another_kind_are_refused() -> None:
    with pytest.raises(InputError, match="int"):
        example_inputs(_loaded(given=3), ())


def test_a_batch_size_rebuilds_inputs_that_agree_and_refuses_others() -> None:
    (example,) = example_inputs(_loaded(given=(torch.zeros(2, 4), torch.zeros(2, 3))), (), 5)
    assert [tuple(a.shape) for a in example.args] == [(5, 4), (5, 3)]
    with pytest.raises(InputError, match="batch-size 5"):
        example_inputs(_loaded(given=(torch.zeros(2, 4), torch.zeros(3, 4))), (), 5)


class Recurrent(nn.Module):
    def __init__(self, cell: type[nn.Module]):
        super().__init__()
        self.cell = cell(6, 5, batch_first=True)

    def forward(self, x):
        return self.cell(x)[0]


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(10, 4), nn.Linear(4, 3)

    def forward(self, ids):
        return self.head(self.embed(ids))


@pytest.mark.parametrize(
    ("module", "shape", "dtype"),
    [
        (nn.Linear(7, 3), (2, 7), torch.float32),
        (nn.Linear(7, 3).double(), (2, 7), torch.float64),
        (nn.Conv1d(5, 3, 3), (2, 5, 16), torch.float32),
        (nn.Conv2d(3, 3, 3), (2, 3, 224, 224), torch.float32),
        (nn.Conv3d(3, 3, 3), (2, 3, 16, 112, 112), torch.float32),
        (nn.ConvTranspose2d(3, 3, 3), (2, 3, 224, 224), torch.float32),
        (nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(2 * 26 * 26, 10)), (2, 1, 28, 28),
         torch.float32),
        (nn.Sequential(nn.Flatten(), nn.Linear(784, 10)), (2, 784), torch.float32),
        (Tokens(), (2, 16), torch.int64),
        (Recurrent(nn.RNN), (2, 16, 6), torch.float32),
        (Recurrent(nn.LSTM), (2, 16, 6), torch.float32),
        (nn.TransformerEncoderLayer(8, 2, batch_first=True), (2, 16, 8), torch.float32),
        (nn.BatchNorm1d(6), (2, 6), torch.float32),
        (nn.LayerNorm(6), (2, 6), torch.float32),
    ],
)  # fmt: skip
def test_shapes_are_inferred_from_the_first_parameterised_layer(module, shape, dtype) -> None:
    assert _inferred(module) == (shape, dtype)


def test_inference_uses_the_batch_size_asked_for_and_leaves_the_model_alone() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    before = {k: v.clone() for k, v in module.state_dict().items()}
    assert _inferred(module, 5)[0] == (5, 3, 224, 224)
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())


def test_a_model_without_parameters_needs_a_flag() -> None:
    with pytest.raises(FxcheckError) as caught:
        example_inputs(_loaded(nn.ReLU()), ())
    assert "--input" in caught.value.hint
