"""Fresh parameters and groups (theory 4.5, 4.6): siamese, recurrent, tied, residual and dense networks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.zoo.case import (
    CERTIFIED,
    NOT_CERTIFIED,
    RUNTIME,
    SMOOTH,
    UNCOVERED,
    Case,
    Of,
    dense,
    image,
    of,
    pair,
    sequence,
    stack,
    unbiased,
)  # fmt: skip

relu = torch.relu
FRESH = (CERTIFIED, RUNTIME)
T46 = "T4|T6"


def _unrolled(s: Of, x: Tensor) -> Tensor:
    state = torch.zeros_like(x[:, 0])
    for step in range(x.shape[1]):
        state = relu(s.inner(state) + s.outer(x[:, step]))
    return state


def _unrolled_with_biases(s: Of, x: Tensor) -> Tensor:
    state = torch.zeros_like(x[:, 0])
    for step in range(x.shape[1]):
        state = relu(s.inner(state) + s.outer(x[:, step]) + s.biases[step])
    return state


class TiedBias(nn.Module):
    """Two layers in series that hold the same bias."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = dense(), dense()
        self.second.bias = self.first.bias

    def forward(self, x: Tensor) -> Tensor:
        return relu(self.second(relu(self.first(x))))


class TiedWeight(nn.Module):
    """An autoencoder whose decoder is the transposed encoder."""

    def __init__(self, bias: bool, kink: bool) -> None:
        super().__init__()
        self.encoder = nn.Linear(3, 2)
        self.bias = nn.Parameter(torch.zeros(3)) if bias else None
        self.kink = kink

    def forward(self, x: Tensor) -> Tensor:
        out = F.linear(relu(self.encoder(x)), self.encoder.weight.t(), self.bias)
        return relu(out) if self.kink else out


class DenseBlock(nn.Module):
    """Each layer reads all earlier outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(3 + 2 * i, 2) for i in range(3))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.cat([x, relu(layer(x))], 1)
        return x


class Basic(nn.Module):
    """The residual block of ResNet."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(2, 2, 3, padding=1, bias=False), nn.BatchNorm2d(2)
        self.conv2, self.bn2 = nn.Conv2d(2, 2, 3, padding=1, bias=False), nn.BatchNorm2d(2)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += x
        return self.relu(out)


def _normalised() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))


def _then_by_fixed_statistics(s: Of, a: Tensor, b: Tensor) -> Tensor:
    first, norm = s.net(a), s.net[1]
    return first + F.batch_norm(s.layer(b), norm.running_mean, norm.running_var).sum(1, keepdim=True)


def _no_fresh(*codes: str) -> dict:
    return {"allowed": (RUNTIME,), "theorem": "joint", "codes": codes or ("FX103",)}


CASES = (
    Case("siamese branches share one bias and one side",
         of(lambda s, a, b: ((relu(s.layer(a)) - relu(s.layer(b))) ** 2).sum(1), layer=dense), (CERTIFIED, *NOT_CERTIFIED), pair, "T6"),
    Case("siamese branches of two layers",
         of(lambda s, a, b: (relu(s.v(relu(s.u(a)))) - relu(s.v(relu(s.u(b))))) ** 2, u=dense, v=dense),
         (CERTIFIED, *NOT_CERTIFIED), pair, "T6"),
    Case("siamese branches of opposite sign",
         of(lambda s, a, b: relu(s.layer(a)) - relu(-s.layer(b)), layer=dense), NOT_CERTIFIED, pair),
    Case("siamese branches without bias", of(lambda s, a, b: relu(s.layer(a)) - relu(s.layer(b)), layer=unbiased),
         NOT_CERTIFIED, pair, "T5|T8"),
    Case("siamese branches at different depths",
         of(lambda s, a, b: relu(s.v(relu(s.u(a)))) - relu(s.v(b)), u=dense, v=dense), (CERTIFIED, *NOT_CERTIFIED), pair),
    Case("one layer at two depths", of(lambda s, a, b: relu(s.v(relu(s.v(a)))) - relu(s.v(b)), v=dense), **_no_fresh(), args=pair),
    Case("siamese branches under a distance",
         of(lambda s, a, b: F.pairwise_distance(relu(s.layer(a)), relu(s.layer(b))), layer=dense), NOT_CERTIFIED, pair),
    Case("siamese branches with batch statistics", of(lambda s, a, b: s.net(a) - s.net(b), net=_normalised), (CERTIFIED,), pair,
         "T6"),
    Case("siamese branches with statistics of each sample",
         of(lambda s, a, b: relu(s.norm(s.conv(a))) - relu(s.norm(s.conv(b))), conv=lambda: nn.Conv2d(2, 2, 3),
            norm=lambda: nn.InstanceNorm2d(2, affine=True, track_running_stats=True)), (CERTIFIED,), lambda: image() * 2, "T6"),
    Case("siamese branches and the running mean that they leave",
         of(lambda s, a, b: s.net(a) - s.net(b) + s.net[1].running_mean.sum(), net=_normalised), (UNCOVERED,), pair, codes=("FX501",)),
    Case("statistics of this forward normalise another layer",
         of(_then_by_fixed_statistics, net=_normalised, layer=lambda: nn.Linear(3, 4)), (UNCOVERED,), pair, codes=("FX501",)),
    Case("unrolled recurrence", of(_unrolled, inner=unbiased, outer=dense), **_no_fresh(), args=sequence),
    Case("unrolled recurrence with a bias per step",
         of(_unrolled_with_biases, inner=unbiased, outer=unbiased, biases=[[0.0] * 3] * 4), (CERTIFIED, *NOT_CERTIFIED), sequence, T46),
    Case("nn.RNN with ReLU", lambda: nn.RNN(3, 2, nonlinearity="relu", batch_first=True), **_no_fresh("FX103|FX606"), args=sequence),
    Case("nn.RNN with ReLU over one step", lambda: nn.RNN(3, 2, nonlinearity="relu", batch_first=True), (CERTIFIED,),
         lambda: (torch.ones(2, 1, 3),), "T4"),
    Case("nn.RNN with tanh", lambda: nn.RNN(3, 2, batch_first=True), (SMOOTH,), sequence),
    Case("LSTM", lambda: nn.LSTM(3, 2, batch_first=True), (SMOOTH,), sequence),
    Case("GRU", lambda: nn.GRU(3, 2, batch_first=True), (SMOOTH,), sequence),
    Case("RNNCell with ReLU once", of(lambda s, x: s.cell(x), cell=lambda: nn.RNNCell(3, 2, nonlinearity="relu")),
         (CERTIFIED,), theorem="T4"),
    Case("RNNCell with ReLU twice",
         of(lambda s, x: s.cell(x, s.cell(x)), cell=lambda: nn.RNNCell(3, 3, nonlinearity="relu")), (RUNTIME,), theorem="joint"),
    Case("the same module twice in series", of(lambda s, x: relu(s.layer(relu(s.layer(x)))), layer=dense), **_no_fresh()),
    Case("the same bias twice in series", TiedBias, NOT_CERTIFIED),
    Case("tied autoencoder, smooth output", lambda: TiedWeight(True, False), (CERTIFIED,), theorem="T4"),
    Case("tied autoencoder, ReLU output with a bias of its own", lambda: TiedWeight(True, True), FRESH, theorem=T46),
    Case("tied autoencoder, ReLU output without bias", lambda: TiedWeight(False, True), **_no_fresh()),
    Case("ReLU of a ReLU through fixed weights",
         of(lambda s, x: relu(relu(s.layer(x)) @ torch.tensor([[1.0], [-1.0], [1.0]])), layer=dense), **_no_fresh()),
    Case("parallel ReLUs of opposite sign, one parameter apart",
         of(lambda s, x: relu(s.layer(x)) - relu(-s.layer(x) + s.b), layer=dense, b=[0.0] * 3), (CERTIFIED, *NOT_CERTIFIED)),
    Case("residual block", of(lambda s, x: relu((z := relu(s.a(x))) + s.b(z)), a=dense, b=dense), (CERTIFIED,), theorem="T4"),
    Case("residual block of ResNet, in place", Basic, (CERTIFIED,), image, "T6", layers=2),
    Case("two residual blocks", lambda: nn.Sequential(Basic(), Basic()), (CERTIFIED,), image, "T6", layers=4),
    Case("dense block", DenseBlock, (CERTIFIED,), theorem="T4", layers=3),
    Case("one bias per branch, added",
         of(lambda s, x: relu(s.a(x) + s.b(x)), a=dense, b=dense), (CERTIFIED,), theorem="T4|T6"),
    Case("a bias of an earlier group added again below a later ReLU",
         of(lambda s, x: relu(s.b(relu(x + s.p)) + s.p), b=unbiased, p=[0.0] * 3), NOT_CERTIFIED),
    Case("transformer layer with ReLU",
         lambda: nn.TransformerEncoderLayer(4, 2, 4, activation="relu", batch_first=True), (CERTIFIED,),
         lambda: (torch.ones(2, 3, 4),), "T6"),
    Case("transformer layer with GELU",
         lambda: nn.TransformerEncoderLayer(4, 2, 4, activation="gelu", batch_first=True), (SMOOTH,),
         lambda: (torch.ones(2, 3, 4),)),
    Case("mixture of experts with a softmax gate",
         of(lambda s, x: torch.softmax(s.g(x), 1)[:, :1] * relu(s.a(x)) + torch.softmax(s.g(x), 1)[:, 1:2] * relu(s.b(x)),
            g=dense, a=dense, b=dense), (CERTIFIED,), theorem="T4"),
    Case("weight penalty beside a ReLU", of(lambda s, x: (relu(s.layer(x)), s.layer.weight.abs().sum()), layer=dense),
         (CERTIFIED, RUNTIME), subdifferential="clarke"),
    Case("weight used in a gate and a ReLU", of(lambda s, x: relu(s.layer(x)) * relu(s.layer.weight).sum(), layer=dense),
         (CERTIFIED, *NOT_CERTIFIED)),
    Case("hypernetwork: a ReLU makes the next layer's bias",
         of(lambda s, x: relu(s.b(x) + relu(s.a(x))), a=dense, b=unbiased), NOT_CERTIFIED),
    Case("deep equilibrium by hand: three shared steps",
         of(lambda s, x: relu(s.layer(relu(s.layer(relu(s.layer(x)) + x)) + x)), layer=dense), **_no_fresh()),
    Case("plain MLP", stack(dense(), nn.ReLU(), dense(), nn.ReLU(), dense()), (CERTIFIED,), theorem="T4", layers=2),
)  # fmt: skip
