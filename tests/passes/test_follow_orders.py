"""Normalisation of maps with sizes of 1: what is called smooth has the right gradient however its input lies in memory."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fxcheck.api import analyze

Norm = Callable[[Tensor], Tensor]


def _by_hand(x: Tensor, dims: tuple[int, ...]) -> Tensor:
    return (x - x.mean(dims, keepdim=True)) / (x.var(dims, correction=0, keepdim=True) + 1e-5).sqrt()


NORMS: dict[str, tuple[Norm, Norm]] = {
    "batch": (lambda x: F.batch_norm(x, None, None, training=True), lambda x: _by_hand(x, (0, 2, 3))),
    "native": (lambda x: torch.native_batch_norm(x, None, None, None, None, True, 0.1, 1e-5)[0],
               lambda x: _by_hand(x, (0, 2, 3))),
    "instance": (lambda x: F.instance_norm(x), lambda x: _by_hand(x, (2, 3))),
}  # fmt: skip
"""torch's and the same in elementary operators."""


class Net(nn.Module):
    """A convolution, what a test makes of it, and a linear layer of the channels if it asks for one."""

    def __init__(self, forward: Callable[..., Tensor], norm: Norm) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.head = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 2, 1), nn.Linear(3, 4)
        self.function, self.norm = forward, norm

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def _tokens(x: Tensor) -> Tensor:
    return F.layer_norm(x.flatten(2).transpose(1, 2), (3,))


def _odd(x: Tensor) -> Tensor:
    """Channels last, as an image that was permuted and given a batch dimension."""
    last = x.contiguous(memory_format=torch.channels_last)
    return last[0][None] if len(x) == 1 else x.transpose(1, 3).contiguous().transpose(1, 3)


def gradients(net: Net, x: Tensor, channels_last: bool) -> list[Tensor]:
    net = net.double()
    if channels_last:
        net = net.to(memory_format=torch.channels_last)
    out = net(x)
    weights = torch.linspace(-1, 2, out.numel(), dtype=out.dtype).sin().view(out.shape)
    found = torch.autograd.grad((out * weights).sum(), list(net.parameters()), allow_unused=True)
    return [torch.zeros(()) if g is None else g for g in found]


def is_right(forward: Callable[..., Tensor], norm: str, shape: tuple[int, ...], channels_last: bool) -> bool:
    """The gradient through torch's normalisation is that through elementary operators, for inputs of three layouts."""
    x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    real, by_hand = NORMS[norm]
    for given in (x, x.contiguous(memory_format=torch.channels_last), _odd(x)):
        pair = [gradients(Net(forward, f), given, channels_last) for f in (real, by_hand)]
        if not all(torch.allclose(a, b, atol=1e-9) for a, b in zip(*pair, strict=True)):
            return False
    return True


def verdict(forward: Callable[..., Tensor], norm: str, shape: tuple[int, ...], channels_last: bool) -> str:
    net = Net(forward, NORMS[norm][0])
    if channels_last:
        net = net.to(memory_format=torch.channels_last)
    return analyze(net, (torch.zeros(shape),)).verdict


MAPS: dict[str, Callable[..., Tensor]] = {
    "conv": lambda s, x: s.b(s.norm(s.a(x))).flatten(1),
    "gelu, conv": lambda s, x: s.b(F.gelu(s.norm(s.a(x)))).flatten(1),
    "conv, added": lambda s, x: s.b(s.norm(s.a(x)) + s.norm(s.a(x)).tanh()).flatten(1),
    "a row each": lambda s, x: s.norm(s.a(x)).flatten(1),
    "mean, linear": lambda s, x: s.head(F.silu(s.norm(s.a(x))).mean((2, 3))),
    "pool, linear": lambda s, x: s.head(F.adaptive_avg_pool2d(s.norm(s.a(x)), 1).flatten(1)),
    "tokens": lambda s, x: _tokens(s.norm(s.a(x))),
    "gelu, tokens": lambda s, x: _tokens(F.gelu(s.norm(s.a(x)))),
    "tokens, linear": lambda s, x: s.head(_tokens(s.norm(s.a(x)))),
    "channels last": lambda s, x: s.norm(s.a(x)).permute(0, 2, 3, 1),
    "of tokens": lambda s, x: s.norm(s.head(_tokens(s.a(x))).transpose(1, 2).reshape(len(x), 4, *x.shape[2:])).flatten(1),
    "conv of tokens": lambda s, x: s.b(s.norm(s.a(_tokens(x).transpose(1, 2).reshape(x.shape)))).flatten(1),
    "of the input": lambda s, x: s.a(s.norm(x * s.head.weight[0, 0])).flatten(1),
}
SMOOTH_FOR_ONE = ("conv", "gelu, conv", "a row each", "mean, linear", "pool, linear", "conv of tokens")


@pytest.mark.parametrize("channels_last", [False, True], ids=["rows", "channels-last"])
@pytest.mark.parametrize("shape", [(1, 3, 2, 4), (2, 3, 1, 4), (2, 3, 2, 4)], ids=str)
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", MAPS)
def test_what_is_called_smooth_is_differentiated_rightly(
    name: str, norm: str, shape: tuple[int, ...], channels_last: bool
) -> None:
    said = verdict(MAPS[name], norm, shape, channels_last)
    assert said in ("smooth", "uncovered")
    assert said == "uncovered" or is_right(MAPS[name], norm, shape, channels_last)


@pytest.mark.parametrize("name", SMOOTH_FOR_ONE)
def test_a_batch_of_one_is_no_reason_where_kernels_of_maps_take_what_is_normalised(name: str) -> None:
    assert verdict(MAPS[name], "batch", (1, 3, 2, 4), False) == "smooth"
    assert verdict(MAPS[name], "batch", (1, 3, 2, 4), True) == "smooth"


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", MAPS)
def test_maps_without_sizes_of_one_are_smooth(name: str, norm: str) -> None:
    assert verdict(MAPS[name], norm, (2, 3, 2, 4), False) == "smooth"


def test_torch_is_wrong_where_the_verdict_is_withheld() -> None:
    """Should this fail, torch has been repaired: ask for less in ``fxcheck.ops.normalization``."""
    assert not is_right(MAPS["tokens"], "batch", (1, 3, 2, 4), False)
    assert not is_right(MAPS["of tokens"], "batch", (1, 3, 2, 4), False)
    assert not is_right(MAPS["conv"], "instance", (1, 3, 2, 4), True)
    for name, norm in (("tokens", "batch"), ("of tokens", "batch"), ("conv", "instance")):
        assert verdict(MAPS[name], norm, (1, 3, 2, 4), norm == "instance") == "uncovered"


def test_a_batch_that_a_smaller_one_makes_a_batch_of_one_counts_as_one() -> None:
    def rest(s: Net, x: Tensor) -> Tensor:
        return _tokens(s.norm(s.a(x)[1:]))

    assert not is_right(rest, "batch", (2, 3, 2, 4), False)
    assert is_right(rest, "batch", (3, 3, 2, 4), False)
    assert verdict(rest, "batch", (3, 3, 2, 4), False) == "uncovered"
