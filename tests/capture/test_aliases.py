"""In-place operations and views: every alias sees the new value, and nothing else does."""

from __future__ import annotations

import random

import pytest
import torch
from torch import nn

from fxcheck.capture.export import capture
from fxcheck.capture.lower import lower
from fxcheck.errors import CaptureError
from tests.capture.interpret import run


class Body(nn.Module):
    def __init__(self, body):
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.body = body

    def forward(self, x):
        return self.body(self.linear(x))


def _same_as_eager(body) -> None:
    torch.manual_seed(0)
    model, x = Body(body), torch.randn(4, 4)
    captured = capture(model, (x,))
    found = run(lower(captured), captured, (x,))
    wanted = model(x)
    wanted = wanted if isinstance(wanted, tuple) else (wanted,)
    assert len(found) == len(wanted)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b.detach())


def _graph(body):
    return lower(capture(Body(body), (torch.zeros(4, 4),)))


def _view_then_base(y):
    v = y[:, 1:3]
    y.relu_()
    return v * 2


def _base_through_view(y):
    y[:, 0].mul_(3)
    return y + 1


def _view_of_view(y):
    v = y[1:]
    w = v.t()[2]
    w.add_(5)
    return v + 0, y * 1


def _two_views(y):
    a, b = y.view(-1), y.t()
    a[3:9].relu_()
    return b * 1, a * 1


def _old_user_keeps_the_old_value(y):
    old = y * 1
    y.relu_()
    return old - y


def _transposed_reshape_copies(y):
    flat = y.t().reshape(-1)
    flat.relu_()
    return y + 0, flat * 1


def _to_with_copy(y):
    z = y.to(torch.float32, copy=True)
    z.relu_()
    return y + 0


def _contiguous_alias(y):
    y.contiguous().relu_()
    return y + 0


def _no_op_dropout(y):
    torch.nn.functional.dropout(y, 0.0).relu_()
    return y + 0


@pytest.mark.parametrize(
    "body",
    [
        _view_then_base, _base_through_view, _view_of_view, _two_views, _old_user_keeps_the_old_value,
        _transposed_reshape_copies, _to_with_copy, _contiguous_alias, _no_op_dropout,
    ],
)  # fmt: skip
def test_a_lowered_mutation_computes_what_eager_computes(body) -> None:
    _same_as_eager(body)


def _random_body(seed: int):
    choose = random.Random(seed)
    steps = [(choose.randrange(9), choose.random(), choose.random()) for _ in range(10)]

    def body(y):
        live = [y]
        for kind, a, b in steps:
            t, u = live[int(a * len(live))], live[int(b * len(live))]
            if kind == 0 and t.dim() > 1:
                live.append(t.t())
            elif kind == 1 and t.shape[-1] > 1:
                live.append(t[..., 1:])
            elif kind == 2 and t.dim() > 1:
                live.append(t[0])
            elif kind == 3:
                live.append(t * 1.5 - 0.1)
            elif kind == 4:
                t.relu_()
            elif kind == 5:
                t.mul_(1.25)
            elif kind == 6 and t.shape == u.shape:
                live.append(t + u)
            elif kind == 7 and t.shape == u.shape and t is not u:
                t.add_(u * 1)
            elif kind == 8:
                live.append(t.unsqueeze(0)[0])
        return tuple(t * 1 for t in live)

    return body


@pytest.mark.parametrize("seed", range(25))
def test_random_programs_of_views_and_mutations_compute_what_eager_computes(seed: int) -> None:
    _same_as_eager(_random_body(seed))


def test_an_in_place_relu_is_the_out_of_place_operator_and_says_how_it_was_called() -> None:
    graph = _graph(lambda y: y.relu_())
    node = next(n for n in graph.nodes if n.called_as)
    assert (node.op, node.called_as) == ("aten.relu.default", "aten.relu_.default")
    assert node.id in graph.live


def test_a_relu_written_through_a_broadcast_alias_is_alive() -> None:
    def body(y):
        alias, _ = torch.broadcast_tensors(y, y[0])
        alias[1:].relu_()
        return y + 1

    graph = _graph(body)
    assert any(n.op == "aten.relu.default" and n.id in graph.live for n in graph.nodes)


def test_writing_through_a_detached_alias_changes_the_original() -> None:
    def body(y):
        y.detach().relu_()
        return y * 1

    graph = _graph(body)
    live = {graph.nodes[i].op for i in graph.live}
    assert {"aten.relu.default", "aten.detach.default", "fxcheck.view_write"} <= live


def test_masked_assignment_reads_the_value_from_before() -> None:
    def body(y):
        y[y < 0] = 0
        return y * 1

    graph = _graph(body)
    put = next(n for n in graph.nodes if n.op == "aten.index_put.default")
    comparison = next(n for n in graph.nodes if n.op == "aten.lt.Scalar")
    assert put.id in graph.live
    assert put.arguments["self"] == comparison.arguments["self"]


def test_a_value_written_with_out_is_what_the_buffer_holds_afterwards() -> None:
    def body(y):
        kept = torch.empty(4, 4)
        with torch.no_grad():
            torch.mul(y, 2.0, out=kept)
        return kept + y

    graph = _graph(body)
    write = next(n for n in graph.nodes if n.called_as == "aten.mul.out")
    assert write.id in graph.live
    assert not write.grad_enabled
    assert (write.op, set(write.arguments)) == ("aten.mul.Tensor", {"self", "other"})


def test_batch_norm_statistics_do_not_disturb_the_outputs() -> None:
    model, x = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU(inplace=True)), torch.randn(4, 4)
    graph = lower(capture(model, (x,)))
    assert [graph.nodes[i].op for i in graph.outputs] == ["aten.relu.default"]


def test_a_constant_that_the_forward_writes_into_has_no_known_value() -> None:
    class Moving(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 4)
            self.level = torch.zeros(1)
            self.fixed = torch.ones(1)

        def forward(self, x):
            y = torch.where(x > self.level, self.linear(x), x) * self.fixed
            self.level.add_(1)
            return y

    graph = lower(capture(Moving(), (torch.zeros(4, 4),)))
    values = {n.arguments["name"]: n.arguments["value"] for n in graph.nodes if n.op == "fxcheck.constant"}
    assert values["level"] is None
    assert values["fixed"] == 1.0


def test_buffers_that_share_memory_may_not_be_written_to() -> None:
    class Twice(nn.Module):
        def __init__(self, writes):
            super().__init__()
            self.linear = nn.Linear(4, 4)
            memory = torch.zeros(8)
            self.register_buffer("a", memory[:4])
            self.register_buffer("b", memory[2:6])
            self.register_buffer("c", memory[6:])
            self.writes = writes

        def forward(self, x):
            y = self.linear(x)
            getattr(self, self.writes).copy_(y[0, : len(getattr(self, self.writes))])
            return torch.relu(self.b) + y

    for name in "ab":
        with pytest.raises(CaptureError, match="'a' and 'b' share"):
            lower(capture(Twice(name), (torch.zeros(4, 4),)))
    assert lower(capture(Twice("c"), (torch.zeros(4, 4),)))
