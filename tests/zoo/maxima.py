"""Maxima and order statistics (theory 4.2, 4.5): one-hot, split, trivial, fused groups."""

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
    after,
    conv,
    dense,
    image,
    of,
    sequence,
    signal,
    tokens,
    unbiased,
    unbiased_conv,
)  # fmt: skip

relu = torch.relu
ONE_HOT = {
    "max(dim)": lambda y: y.max(1).values, "min(dim)": lambda y: y.min(1).values, "max_pool1d": lambda y: F.max_pool1d(y, 2, 1),
    "adaptive_max_pool1d": lambda y: F.adaptive_max_pool1d(y, 1), "cummax": lambda y: y.cummax(1).values,
    "cummin": lambda y: y.cummin(1).values, "-max_pool(-y)": lambda y: -F.max_pool1d(-y, 2),
    "maxout": lambda y: torch.stack([y, y.flip(1)], 2).max(2).values,
}  # fmt: skip
SPLIT = {
    "amax": lambda y: y.amax(1), "amin": lambda y: y.amin(1), "max()": lambda y: y.max(), "min()": lambda y: y.min(),
    "aminmax": lambda y: y.aminmax(dim=1).max, "maximum": lambda y: torch.maximum(y, y.flip(1)),
    "minimum": lambda y: torch.minimum(y, y.flip(1)), "fmax": lambda y: torch.fmax(y, y.flip(1)),
    "fmin": lambda y: torch.fmin(y, y.flip(1)), "max(a, b)": lambda y: torch.max(y, y.flip(1)),
    "scatter_reduce amax": lambda y: torch.zeros(4, 3).scatter_reduce(1, torch.zeros(4, 3, dtype=torch.long), y, "amax", include_self=False),
    "index_reduce amax": lambda y: torch.zeros(4, 3).index_reduce(1, torch.zeros(3, dtype=torch.long), y, "amax", include_self=False),
}  # fmt: skip
ORDER = {
    "sort": lambda y: y.sort(1).values, "topk": lambda y: y.topk(2, 1).values, "kthvalue": lambda y: y.kthvalue(2, 1).values,
    "median()": lambda y: y.median(), "median(dim)": lambda y: y.median(1).values, "nanmedian": lambda y: y.nanmedian(),
    "mode": lambda y: y.mode(1).values, "quantile": lambda y: y.quantile(0.5, 1), "msort": lambda y: torch.msort(y),
    "sort + max of a tied pair": lambda y: y.sort(1).values[:, -1] + y.max(1).values,
}  # fmt: skip


class EmbeddingMax(nn.Module):
    """A bag of embeddings, the largest per coordinate."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(5, 3, mode=mode)

    def forward(self, ids: Tensor) -> Tensor:
        return self.bag(ids)


def _block(function) -> Case:
    return after(conv, function)


CASES = (
    *(Case("one-hot: " + n, after(dense, f), (RUNTIME,), theorem="T8", codes=("FX301",), layers=1) for n, f in ONE_HOT.items()),
    *(Case("split: " + n, after(dense, f), (UNCOVERED if n == "aminmax" or "reduce" in n else RUNTIME,), codes=("FX3|FX6",))
      for n, f in SPLIT.items()),
    *(Case("order statistic: " + n, after(dense, f), (UNCOVERED,), codes=("FX3|FX4",)) for n, f in ORDER.items()),
    Case("median of (w, 2w, 4w)", of(lambda s, x: torch.stack([s.w, 2 * s.w, 4 * s.w]).median(), w=0.0), (UNCOVERED,), codes=("FX303",)),
    Case("bag of embeddings by max", lambda: EmbeddingMax("max"), (RUNTIME, UNCOVERED), tokens),
    Case("bag of embeddings by sum", lambda: EmbeddingMax("sum"), (SMOOTH,), tokens),
    Case("max over a dimension of size one", after(dense, lambda y: y.unsqueeze(1).max(1).values), (SMOOTH, CERTIFIED)),
    Case("max pool with kernel one", after(conv, lambda y: F.max_pool2d(relu(y), 1)), (CERTIFIED,), image, "T6"),
    Case("strided max pool with kernel one", after(conv, lambda y: F.max_pool2d(relu(y), 1, 2)), (CERTIFIED,), image, "T6"),
    Case("amax over a dimension of size one", after(dense, lambda y: y.unsqueeze(1).amax(1)), (SMOOTH, CERTIFIED, UNCOVERED)),
    Case("kernel one with padding is a max with nothing", after(conv, lambda y: F.max_pool2d(relu(y), 2, 2, padding=1)), (RUNTIME,), image),
    Case("ReLU, max pool", _block(lambda y: F.max_pool2d(relu(y), 2)), (RUNTIME,), image, "T8", ("FX301",), layers=1),
    Case("max pool, ReLU", _block(lambda y: relu(F.max_pool2d(y, 2))), (RUNTIME,), image, "T8", ("FX301",), layers=1),
    Case("max pool of a smooth layer", _block(lambda y: F.max_pool2d(torch.tanh(y), 2)), (RUNTIME,), image, "T8", layers=1),
    Case("max pool of a linear layer", _block(lambda y: F.max_pool2d(y, 2)), (RUNTIME,), image, "T8", ("FX301",), layers=1),
    Case("max pool of the layer, no biases", after(unbiased_conv, lambda y: F.max_pool2d(relu(y), 2)), (RUNTIME,), image, "T8"),
    Case("max of max", _block(lambda y: F.max_pool2d(F.max_pool2d(relu(y), 3, 1), 2)), (RUNTIME,), image, "T8"),
    Case("max of max, inner used twice", _block(lambda y: F.max_pool2d(m := F.max_pool2d(relu(y), 3, 1), 2).sum() + m.sum()),
         NOT_CERTIFIED, image, "T8"),
    Case("max over rows, then columns", _block(lambda y: y.max(3).values.max(2).values), (RUNTIME,), image, "T8"),
    Case("ReLU with a residual use beside a max pool", _block(lambda y: F.max_pool2d(z := relu(y), 2).sum() + z.sum()), NOT_CERTIFIED,
         image, "T8"),
    Case("ReLUs joined by cat, then a max pool",
         of(lambda s, x: F.max_pool2d(torch.cat([relu(s.a(x)), relu(s.b(x))], 1), 2), a=conv, b=conv), (RUNTIME,), image, "T8"),
    Case("max across branches", of(lambda s, x: torch.stack([s.a(x), s.b(x)]).max(0).values, a=dense, b=dense), (RUNTIME,), theorem="T8"),
    Case("max pool between certified layers",
         lambda: nn.Sequential(conv(), nn.ReLU(), conv(), nn.ReLU(), nn.MaxPool2d(2), conv(), nn.ReLU()), (RUNTIME,), image, "T8", layers=3),
    Case("max with its own skip", _block(lambda y: F.max_pool2d(y, 3, 1, 1) - y), NOT_CERTIFIED, image, "T8"),
    Case("max pool of shared weights in series",
         of(lambda s, x: F.max_pool2d(s.a(F.max_pool2d(s.a(x), 3, 1, 1)), 2), a=conv), (RUNTIME,), image, codes=("FX103",)),
    Case("max pool with indices, unpooled by them",
         _block(lambda y: F.max_unpool2d(*F.max_pool2d(y, 2, return_indices=True), 2)), (UNCOVERED,), image),
    Case("max pool of a fixed gather", after(lambda: nn.Conv1d(2, 2, 3), lambda y: F.max_pool1d(y[..., [0, 0, 1, 1, 2, 2]], 2)),
         NOT_CERTIFIED, signal),
    Case("log-sum-exp pooling", after(dense, lambda y: torch.logsumexp(y, 1)), (SMOOTH,), sequence),
    Case("average pooling", _block(lambda y: F.avg_pool2d(relu(y), 2)), (CERTIFIED,), image, "T6"),
    Case("argmax routing", after(dense, lambda y: y.gather(1, y.argmax(1, keepdim=True))), (UNCOVERED,), codes=("FX4",)),
    Case("max's own index routes another layer",
         of(lambda s, x: s.b(x).gather(1, s.a(x).max(1, keepdim=True).indices), a=dense, b=dense), (UNCOVERED,), codes=("FX4",)),
    Case("one_hot of an argmax", after(dense, lambda y: y * F.one_hot(y.argmax(1), 3)), (UNCOVERED,), codes=("FX4",)),
    Case("top-2 routing of experts",
         of(lambda s, x: (lambda t: (torch.softmax(t.values, 1) * s.e(x).gather(1, t.indices)).sum(1))(s.g(x).topk(2, 1)), g=dense, e=dense),
         (UNCOVERED,), codes=("FX3|FX4",)),
    Case("searchsorted on a layer", after(dense, lambda y: y * torch.bucketize(y, torch.tensor([0.0, 1.0]))), (UNCOVERED,)),
    Case("index by a rounded value", after(dense, lambda y: torch.arange(9.0)[y.round().long().clamp(0, 8)] + y), (UNCOVERED,)),
    Case("grid_sample at positions from a layer",
         of(lambda s, x: F.grid_sample(x.reshape(4, 1, 1, 3), torch.tanh(s.a(x))[:, :2].reshape(4, 1, 1, 2), align_corners=False), a=unbiased),
         NOT_CERTIFIED),
    Case("grid_sample of a layer at fixed positions",
         _block(lambda y: relu(F.grid_sample(y, torch.zeros(2, 3, 3, 2), align_corners=False))), (CERTIFIED, *NOT_CERTIFIED), image),
    Case("stack of one entry, max", after(unbiased, lambda y: torch.stack([y]).max(0).values), (SMOOTH, CERTIFIED)),
)  # fmt: skip
