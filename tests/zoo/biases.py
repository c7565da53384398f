"""Bias certificates (theory 4.7): what keeps one, what loses it, distinct against shared."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import stochastic_depth

from tests.zoo.case import (
    CERTIFIED,
    NOT_CERTIFIED,
    RUNTIME,
    UNCOVERED,
    Case,
    Of,
    after,
    conv,
    dense,
    flat,
    image,
    of,
    sequence,
    stack,
    tokens,
    unbiased,
    unbiased_conv,
)  # fmt: skip

relu = torch.relu
KEPT = (CERTIFIED, RUNTIME)
T46 = "T4|T6"


def _conv_relu(function):
    return after(conv, lambda y: relu(function(y)))


def _dense_relu(function):
    return after(dense, lambda y: relu(function(y)))


def _frozen(module: nn.Module, *names: str) -> nn.Module:
    for name in names:
        module.get_parameter(name).requires_grad_(False)
    return module


KINDS = (
    Case("linear on (B, N): distinct", stack(dense(), nn.ReLU()), (CERTIFIED,), theorem="T4", bias="distinct",
         subdifferential="bouligand"),
    Case("linear on (B, T, N): shared", stack(dense(), nn.ReLU()), (CERTIFIED,), sequence, "T6", bias="shared"),
    Case("conv: shared", stack(conv(), nn.ReLU()), (CERTIFIED,), image, "T6", bias="shared"),
    Case("one bias entry for all neurons behind a sum over samples: shared",
         of(lambda s, x: relu(x.sum(0) * s.w + s.b), w=[1.0] * 3, b=[0.0]), (CERTIFIED,), theorem="T6", bias="shared"),
    Case("one bias entry for all neurons of one sample: shared", of(lambda s, x: relu(x[:1] * s.w + s.b), w=[1.0] * 3, b=[0.0]),
         (CERTIFIED,), theorem="T6", bias="shared"),
    Case("a bias entry for each neuron behind a sum over samples: distinct",
         of(lambda s, x: relu(x.sum(0) * s.w + s.b), w=[1.0] * 3, b=[0.0] * 3), (CERTIFIED,), theorem="T4", bias="distinct"),
    Case("conv with one output position", stack(nn.Conv2d(2, 2, 6), nn.ReLU()), (CERTIFIED,), image, T46),
    Case("transposed conv bias", stack(nn.ConvTranspose2d(2, 2, 2, 2), nn.ReLU()), (CERTIFIED,), image, "T6", bias="shared"),
    Case("depthwise conv bias", stack(nn.Conv2d(2, 4, 3, groups=2), nn.ReLU()), (CERTIFIED,), image, "T6"),
    Case("no bias", stack(unbiased(), nn.ReLU()), (RUNTIME,), theorem="T5|T8", codes=("FX101",), bias="none"),
    Case("conv without bias", stack(unbiased_conv(), nn.ReLU()), (RUNTIME,), image, "T8", ("FX101",), bias="none"),
    Case("frozen bias", lambda: _frozen(nn.Sequential(dense(), nn.ReLU()), "0.bias"), (RUNTIME,), theorem="T5|T8",
         codes=("FX105|FX101",), bias="none"),
    Case("bias left out of wrt", stack(dense(), nn.ReLU()), (RUNTIME,), theorem="T5|T8", codes=("FX105|FX101",),
         wrt=lambda m: [m[0].weight]),
    Case("only the bias in wrt", stack(dense(), nn.ReLU()), (CERTIFIED,), theorem="T4", wrt=lambda m: [m[0].bias]),
    Case("only the second layer in wrt: the first is constant", stack(dense(), nn.ReLU(), dense()), ("smooth",),
         wrt=lambda m: list(m[2].parameters()), layers=0),
    Case("conv, BatchNorm, ReLU without conv bias", stack(unbiased_conv(), nn.BatchNorm2d(2), nn.ReLU()), (CERTIFIED,), image,
         "T6", bias="shared"),
    Case("BatchNorm on (B, N)", stack(unbiased(), nn.BatchNorm1d(3), nn.ReLU()), (CERTIFIED,), theorem=T46),
    Case("BatchNorm without affine after a bias", stack(conv(), nn.BatchNorm2d(2, affine=False), nn.ReLU()), (RUNTIME,),
         image, "T8", ("FX101|FX102",)),
    Case("BatchNorm with frozen beta after a bias",
         lambda: _frozen(nn.Sequential(conv(), nn.BatchNorm2d(2), nn.ReLU()), "1.bias"), (RUNTIME,), image, "T8"),
    Case("eval BatchNorm without affine keeps a bias", stack(conv(), nn.BatchNorm2d(2, affine=False), nn.ReLU()),
         KEPT, image, "T6", options={"mode": "eval"}),
    Case("eval BatchNorm multiplies by a gamma of unknown sign",
         lambda: _frozen(nn.Sequential(conv(), nn.BatchNorm2d(2), nn.ReLU()), "1.bias"), (RUNTIME,), image, "T8",
         options={"mode": "eval"}),
    Case("eval BatchNorm that keeps no statistics still normalises",
         stack(conv(), nn.BatchNorm2d(2, affine=False, track_running_stats=False), nn.ReLU()), (RUNTIME,), image, "T8",
         options={"mode": "eval"}),
    Case("GroupNorm beta", stack(unbiased_conv(), nn.GroupNorm(1, 2), nn.ReLU()), (CERTIFIED,), image, "T6"),
    Case("GroupNorm without affine after a bias", stack(conv(), nn.GroupNorm(1, 2, affine=False), nn.ReLU()), (RUNTIME,),
         image, "T8"),
    Case("InstanceNorm beta", stack(conv(), nn.InstanceNorm2d(2, affine=True), nn.ReLU()), (CERTIFIED,), image, "T6"),
    Case("InstanceNorm without affine after a bias", stack(conv(), nn.InstanceNorm2d(2), nn.ReLU()), (RUNTIME,), image, "T8"),
    Case("LayerNorm beta", stack(unbiased(), nn.LayerNorm(3), nn.ReLU()), (CERTIFIED,), theorem="T4", bias="distinct"),
    Case("LayerNorm of a bias", stack(dense(), nn.LayerNorm(3, elementwise_affine=False), nn.ReLU()), (RUNTIME,), theorem="T8",
         codes=("FX101|FX102",)),
    Case("LayerNorm with weight only", stack(dense(), nn.LayerNorm(3, bias=False), nn.ReLU()), (RUNTIME,), theorem="T8"),
    Case("RMSNorm of a bias", stack(dense(), nn.RMSNorm(3), nn.ReLU()), NOT_CERTIFIED),
    Case("softmax of a bias", _dense_relu(lambda y: torch.softmax(y, 1) - 0.25), (RUNTIME,), theorem="T8"),
    Case("bilinear layer bias", of(lambda s, x: relu(s.layer(x, x)), layer=lambda: nn.Bilinear(3, 3, 2)), KEPT, theorem=T46),
)  # fmt: skip

KEPT_BY = (
    Case("through an average pool", _conv_relu(lambda y: F.avg_pool2d(y, 3, 1, 1)), KEPT, image, "T6"),
    Case("through a global average", _conv_relu(lambda y: F.adaptive_avg_pool2d(y, 1)), KEPT, image, T46),
    Case("through mean over positions", _conv_relu(lambda y: y.mean((2, 3))), KEPT, image, T46),
    Case("through nearest upsampling", _conv_relu(lambda y: F.interpolate(y, scale_factor=2.0)), KEPT, image, "T6"),
    Case("through bilinear upsampling",
         _conv_relu(lambda y: F.interpolate(y, size=(9, 9), mode="bilinear", align_corners=False)), KEPT, image, "T6"),
    Case("through bicubic upsampling", _conv_relu(lambda y: F.interpolate(y, size=(9, 9), mode="bicubic")), KEPT, image, "T6"),
    Case("through a negative scale", _dense_relu(lambda y: -2 * y), KEPT, theorem=T46),
    Case("through division by a number", _dense_relu(lambda y: y / 3.0), KEPT, theorem=T46),
    Case("through an exponential scale", of(lambda s, x: relu(s.layer(x) * s.s.exp()), layer=dense, s=[0.0] * 3), KEPT,
         theorem=T46),
    Case("through a sigmoid gate of another layer",
         of(lambda s, x: relu(s.layer(x) * torch.sigmoid(s.gate(x))), layer=dense, gate=dense), KEPT, theorem=T46),
    Case("through cat and split",
         of(lambda s, x: sum(relu(p) for p in torch.cat([s.a(x), s.b(x)], 1).split(2, 1)), a=dense, b=dense), KEPT, theorem=T46),
    Case("through permute and reshape", _conv_relu(lambda y: y.permute(0, 2, 3, 1).reshape(2, -1)), KEPT, image, "T6"),
    Case("through gather by data", of(lambda s, x: relu(s.layer(x).gather(1, (x > 0).long())), layer=dense), KEPT, theorem=T46),
    Case("through gather by data in the shape of what is read",
         of(lambda s, x: (lambda y: relu(y.gather(1, (x[:, :1] > 0).long().expand_as(y))))(s.layer(x)), layer=dense), KEPT, theorem=T46),
    Case("through index_select", _dense_relu(lambda y: y.index_select(1, torch.tensor([2, 0, 0]))), KEPT, theorem=T46),
    Case("through zero padding", _conv_relu(lambda y: F.pad(y, (1, 1, 1, 1))), (CERTIFIED,), image, "T6"),
    Case("through constant padding by -1", _conv_relu(lambda y: F.pad(y, (1, 1), value=-1.0)), (CERTIFIED,), image, "T6"),
    Case("through reflection padding", _conv_relu(lambda y: F.pad(y, (1, 1, 1, 1), mode="reflect")), KEPT, image, "T6"),
    Case("through replication padding", _conv_relu(lambda y: F.pad(y, (1, 1, 1, 1), mode="replicate")), KEPT, image, "T6"),
    Case("through circular padding", _conv_relu(lambda y: F.pad(y, (1, 1, 1, 1), mode="circular")), KEPT, image, "T6"),
    Case("through dropout", stack(dense(), nn.Dropout(0.5), nn.ReLU()), KEPT, theorem=T46),
    Case("through channel dropout", stack(conv(), nn.Dropout2d(0.5), nn.ReLU()), KEPT, image, "T6"),
    Case("through a sum over features", _dense_relu(lambda y: y.sum(1)), KEPT, theorem=T46),
    Case("through a sum with its mirror image", _dense_relu(lambda y: y + y.flip(1)), KEPT, theorem="T6"),
    Case("through a cumulative sum", _dense_relu(lambda y: y.cumsum(1)), KEPT),
    Case("through a mask of data", of(lambda s, x: relu(torch.where(x > 0, s.layer(x), 0.0)), layer=dense), KEPT, theorem=T46),
    Case("either of two layers by a mask of data",
         of(lambda s, x: relu(torch.where(x > 0, s.a(x), s.b(x))), a=dense, b=dense), KEPT),
    Case("added to a skip", of(lambda s, x: relu(x + s.layer(x)), layer=dense), (CERTIFIED,), theorem="T4"),
    Case("position embedding", of(lambda s, x: relu(s.layer(x) + s.p), layer=unbiased, p=[[0.0] * 3] * 4), KEPT, sequence, T46),
    Case("embedding entries are their own biases", stack(nn.Embedding(5, 3), nn.ReLU()), (CERTIFIED, RUNTIME), tokens, T46),
    Case("fixed buffer of mixed signs, distinct bias",
         of(lambda s, x: relu(s.layer(x) * torch.tensor([1.0, -1.0, 2.0])), layer=dense), KEPT),
    Case("monotone function of a bias", _dense_relu(lambda y: torch.sigmoid(y) - 0.5), KEPT),
)  # fmt: skip


def _skip_and_drop(s: Of, x: Tensor) -> Tensor:
    return relu(s.skip(x) + stochastic_depth(s.layer(x), 0.5, "row", training=True))


LOST_BY = (
    Case("stochastic depth beside a trainable skip", of(_skip_and_drop, skip=unbiased, layer=dense), NOT_CERTIFIED),
    Case("dropout beside a trainable skip",
         of(lambda s, x: relu(s.skip(x) + F.dropout(s.layer(x), 0.5, True)), skip=unbiased, layer=dense), NOT_CERTIFIED),
    Case("dropout beside a constant skip", of(lambda s, x: relu(x + F.dropout(s.layer(x), 0.5, True)), layer=dense),
         (CERTIFIED, RUNTIME)),
    Case("mask of data beside a trainable skip",
         of(lambda s, x: relu(s.skip(x) + s.layer(x) * (x > 0)), skip=unbiased, layer=dense), NOT_CERTIFIED),
    Case("zero padding beside a trainable skip",
         of(lambda s, x: relu(s.skip(x) + F.pad(s.layer(x), (1, 0))), skip=unbiased, layer=lambda: nn.Linear(3, 2)), NOT_CERTIFIED),
    Case("a scale of unknown sign", of(lambda s, x: relu(s.layer(x) * s.s), layer=dense, s=[1.0] * 3), (RUNTIME,), theorem="T8"),
    Case("a product with data", of(lambda s, x: relu(s.layer(x) * x), layer=dense), (RUNTIME,), theorem="T8|T5"),
    Case("a gate that depends on it", _dense_relu(lambda y: torch.sigmoid(y) * y), (CERTIFIED, *NOT_CERTIFIED)),
    Case("minus its mean over features", _dense_relu(lambda y: y - y.mean(1, keepdim=True)), NOT_CERTIFIED),
    Case("minus its mean over the batch", _dense_relu(lambda y: y - y.mean(0)), NOT_CERTIFIED),
    Case("minus its mirror image", _dense_relu(lambda y: y - y.flip(1)), NOT_CERTIFIED),
    Case("minus its neighbour", _dense_relu(lambda y: y[:, 1:] - y[:, :-1]), (CERTIFIED, *NOT_CERTIFIED)),
    Case("minus itself shifted by roll", _dense_relu(lambda y: y - y.roll(1, 1)), NOT_CERTIFIED),
    Case("a product of two layers", of(lambda s, x: relu(s.a(x) * s.b(x)), a=dense, b=dense), NOT_CERTIFIED, theorem="T8"),
    Case("a quotient of two layers", of(lambda s, x: relu(s.a(x) / (1 + s.b(x) ** 2) - s.b(x)), a=dense, b=dense),
         (CERTIFIED, *NOT_CERTIFIED)),
    Case("a dense layer without bias on top", stack(dense(), unbiased(), nn.ReLU()), NOT_CERTIFIED),
    Case("padding, then a conv without bias", stack(conv(), nn.ZeroPad2d(1), nn.Conv2d(2, 2, 3, bias=False), nn.ReLU()),
         NOT_CERTIFIED, image, "T8"),
    Case("negated on half of the positions",
         of(lambda s, x: relu(torch.cat([y := s.layer(x), -y], 2)), layer=conv), NOT_CERTIFIED, image),
    Case("one neuron on both sides by a gather",
         _dense_relu(lambda y: torch.cat([y, -y], 1)[:, [0, 4]]), (CERTIFIED, *NOT_CERTIFIED)),
    Case("the same neuron on both sides by a gather",
         _dense_relu(lambda y: torch.cat([y, -y], 1)[:, [0, 3]]), NOT_CERTIFIED),
    Case("the mean of both signs", _dense_relu(lambda y: F.avg_pool1d(torch.stack([y, -y], 1).flatten(1), 3)), NOT_CERTIFIED),
    Case("position embedding taken away again",
         of(lambda s, x: relu(s.layer(x) + s.p - s.p.mean(0)), layer=unbiased, p=[[0.0] * 3] * 4), NOT_CERTIFIED, sequence),
    Case("bicubic weights of a position bias sum to 1, but some are negative",
         of(lambda s, x: relu(F.interpolate((x * 0 + s.p), size=(9, 9), mode="bicubic")), p=[[0.0] * 6] * 6),
         (CERTIFIED, *NOT_CERTIFIED), image),
)  # fmt: skip

THEOREMS = (
    Case("T1: hardtanh, distinct biases, one sample", stack(dense(), nn.Hardtanh()), (CERTIFIED,), lambda: (torch.ones(1, 3),),
         "T1", options={"batch_size": 1}, bias="distinct"),
    Case("T1 is not named without batch_size", stack(dense(), nn.Hardtanh()), (RUNTIME,), lambda: (torch.ones(1, 3),), "T5|T8",
         ("FX201",)),
    Case("T1 needs distinct biases: sequence of one sample", stack(dense(), nn.Hardtanh()), (RUNTIME,),
         lambda: (torch.ones(1, 4, 3),), "T5|T8", options={"batch_size": 1}),
    Case("T1 needs distinct biases: conv on one sample", stack(conv(), nn.Hardtanh()), (RUNTIME,),
         lambda: (torch.ones(1, 2, 6, 6),), "T8", options={"batch_size": 1}),
    Case("T1 through a mean over positions is not distinct",
         of(lambda s, x: F.hardtanh(s.layer(x)).mean(1), layer=dense), (RUNTIME,), lambda: (torch.ones(1, 4, 3),), "T5|T8",
         options={"batch_size": 1}),
    Case("T1 with abs", of(lambda s, x: s.b(F.hardtanh(s.a(x)).abs()).abs(), a=dense, b=dense),
         (CERTIFIED, RUNTIME, UNCOVERED), lambda: (torch.ones(1, 3),), options={"batch_size": 1}),
    Case("T1 does not excuse a missing bias", stack(unbiased(), nn.ReLU()), (RUNTIME,), lambda: (torch.ones(1, 3),), "T5|T8",
         options={"batch_size": 1}),
    Case("T1 does not cover a max", stack(dense(), nn.ReLU(), nn.MaxPool1d(3)), (RUNTIME,), lambda: (torch.ones(1, 3),), "T8",
         options={"batch_size": 1}),
    Case("T1 does not cover one bias under two neurons",
         of(lambda s, x: F.hardtanh(torch.cat([y := s.layer(x), y + 2], 1)), layer=dense), (RUNTIME, UNCOVERED),
         lambda: (torch.ones(1, 3),), options={"batch_size": 1}),
    Case("T1 does not cover one bias under two neurons by a sum of calls",
         of(lambda s, x: F.hardtanh(y := s.layer(x)) + F.hardtanh(y + 2), layer=dense), (RUNTIME, UNCOVERED),
         lambda: (torch.ones(1, 3),), options={"batch_size": 1}),
    Case("T1 does not cover one bias under two neurons by repeat",
         of(lambda s, x: F.hardtanh(s.layer(x).repeat(1, 2) + x.repeat(1, 2)), layer=dense), (RUNTIME, UNCOVERED),
         lambda: (torch.ones(1, 3),), options={"batch_size": 1}),
    Case("T1 does not cover one bias under two neurons by a gather",
         of(lambda s, x: F.hardtanh(s.layer(x)[:, [0, 0, 1]] * torch.tensor([1.0, 2.0, 1.0])), layer=dense), (RUNTIME, UNCOVERED),
         lambda: (torch.ones(1, 3),), options={"batch_size": 1}),
    Case("T1 does not cover siamese branches",
         of(lambda s, a, b: F.hardtanh(s.layer(a)) - F.hardtanh(s.layer(b)), layer=dense), (RUNTIME, UNCOVERED),
         lambda: (torch.ones(1, 3), torch.ones(1, 3)), options={"batch_size": 1}),
    Case("T1 does not cover an upsampled bias",
         of(lambda s, x: F.hardtanh(F.interpolate(s.layer(x)[:, None], size=6)), layer=dense), (RUNTIME, UNCOVERED),
         lambda: (torch.ones(1, 3),), options={"batch_size": 1}),
    Case("T5: 784-256-64 with ReLU6", stack(nn.Linear(784, 256), nn.ReLU6(), nn.Linear(256, 64), nn.ReLU6()), (RUNTIME,),
         lambda: (torch.ones(4, 784),), "T5", ("FX201",), guard=False),
    Case("T5: no biases at all", stack(unbiased(), nn.ReLU(), unbiased(), nn.ReLU()), (RUNTIME,), theorem="T5"),
    Case("not T5 with a residual",
         of(lambda s, x: F.relu6((z := F.relu6(s.a(x))) + s.b(z)), a=dense, b=dense), (RUNTIME,), theorem="T8"),
    Case("not T5 with BatchNorm", stack(dense(), nn.BatchNorm1d(3), nn.ReLU6()), (RUNTIME,), theorem="T8"),
    Case("not T5 with LayerNorm", stack(dense(), nn.LayerNorm(3), nn.ReLU6()), (RUNTIME,), theorem="T8"),
    Case("not T5 when one layer is a conv", stack(conv(), nn.ReLU6(), nn.Flatten(), nn.Linear(72, 3), nn.ReLU6()), (RUNTIME,),
         image, "T8"),
    Case("T5 with a tied weight is not T5",
         of(lambda s, x: F.relu6(s.a(F.relu6(s.a(x)))), a=dense), (RUNTIME,), codes=("FX103",)),
    Case("T5 allows abs", of(lambda s, x: s.b(s.a(x).abs()).abs(), a=unbiased, b=unbiased), (RUNTIME,), theorem="T5",
         subdifferential="clarke"),
    Case("certified below, checked above", stack(dense(), nn.ReLU(), dense(), nn.Hardtanh()), (RUNTIME,), flat, "T5|T8"),
    Case("abs with a bias is Clarke", after(dense, torch.abs), (CERTIFIED,), theorem=T46, subdifferential="clarke"),
    Case("abs without a bias cannot be checked by T8", after(unbiased_conv, torch.abs), (RUNTIME,), image, codes=("FX2|FX1",)),
    Case("abs blocks T8 for a max", of(lambda s, x: F.max_pool2d(s.b(s.a(x).abs()), 2), a=conv, b=conv), (RUNTIME,), image,
         codes=("FX203",)),
    Case("abs and relu on neurons of their own",
         after(dense, lambda y: torch.cat([y[:, :1].abs(), relu(y[:, 1:])], 1)), (CERTIFIED, RUNTIME), theorem=T46,
         subdifferential="clarke"),
)  # fmt: skip

CASES = KINDS + KEPT_BY + LOST_BY + THEOREMS
