"""The joint condition and the witnessed decomposition: what they certify, and the traps that they must not (theory 5)."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fxcheck
from fxcheck.lp.balance import balance
from fxcheck.lp.recheck import recheck
from fxcheck.lp.verify import mixes_to_zero
from fxcheck.records.system import Decision, LinearSystem, Outcome
from fxcheck.runtime import many_rows
from tests.runtime.models import CLAMP_PASSES, Scalars, step_of

ONE = torch.ones(1, dtype=torch.float64)
BY_CLAMP = "bouligand" if CLAMP_PASSES else "clarke"


def h(x: Tensor) -> Tensor:
    """ReLU whose proxy at 0 is 1."""
    return torch.where(x >= 0, x, 0 * x)


def widest(*values: Tensor) -> Tensor:
    return torch.stack(values).max(0).values


def in_place(x: Tensor) -> Tensor:
    """The absolute value, AD 0 at 0 where clamp splits."""
    return (1.0 * x).clamp_(min=-x)


def sizes(x: Tensor) -> Tensor:
    """The absolute value as a norm, AD 0 at 0."""
    return torch.linalg.vector_norm(torch.stack([x.sum(), 0.0 * x.sum()]), torch.inf)


RIGHT = {
    "max(2|t|, |u|) - |u| with AD at (0, -1)": (
        lambda s, x: torch.maximum(torch.maximum(2 * s.t, -2 * s.t), torch.maximum(s.u, -s.u)) - widest(s.u, -s.u),
        {"t": 0.0, "u": 0.0}, "clarke",
    ),
    "a layer used twice": (lambda s, x: F.relu(s.w * F.relu(s.w * x + s.b) + s.b), {"w": 1.0, "b": -1.0}, "bouligand"),
    "the same side at both depths": (lambda s, x: F.relu(-s.w * F.relu(s.w * x) + s.w), {"w": 0.0}, "bouligand"),
    "abs without a bias": (lambda s, x: (s.w * x).abs().sum(), {"w": [0.0, 0.0]}, "clarke"),
    "abs of sums": (lambda s, x: (s.w + s.v).abs() + (s.w - s.v).abs(), {"w": 0.0, "v": 0.0}, None),
    "amax of three": (lambda s, x: (s.w * x).amax(), {"w": [1.0, 1.0, 1.0]}, "clarke"),
    "amin": (lambda s, x: (s.w * x).amin(), {"w": [1.0, 1.0]}, "clarke"),
    "maximum and minimum": (lambda s, x: torch.maximum(s.w, s.v) + torch.minimum(s.w, 2 * s.v), {"w": 0.0, "v": 0.0}, "clarke"),
    "maximum of one value with itself": (lambda s, x: torch.maximum(s.w * x, s.w * x), {"w": 1.0}, "bouligand"),
    "clamp with a trainable bound": (lambda s, x: torch.clamp(s.w, min=s.v), {"w": 0.0, "v": 0.0}, BY_CLAMP),
    "clamp_ with a trainable bound": (lambda s, x: (s.w * x).clamp_(min=s.v), {"w": 0.0, "v": 0.0}, BY_CLAMP),
    "a norm of infinite order": (lambda s, x: torch.linalg.vector_norm(s.w * x, torch.inf), {"w": [1.0, -1.0]}, "clarke"),
    "the smallest size": (lambda s, x: (s.w * x).norm(p=-torch.inf), {"w": [1.0, 1.0]}, "clarke"),
    "a norm of infinite order at 0": (lambda s, x: torch.linalg.norm(s.w * x, torch.inf), {"w": [0.0, 0.0]}, "clarke"),
    "max in series over shared weights": (
        lambda s, x: torch.stack([s.w * torch.stack([s.w, s.v]).max(0).values, s.v]).max(0).values,
        {"w": 1.0, "v": 1.0}, "bouligand",
    ),
    "g + h - h": (lambda s, x: F.relu((s.w * x).reshape(1, 1)) + h(s.w * x) - h(s.w * x * 1.0), {"w": 0.0}, None),
    "max(2|t|, |u|) - |u| with first picks": (
        lambda s, x: widest(widest(2 * s.t, -2 * s.t), widest(s.u, -s.u)) - widest(s.u, -s.u), {"t": 0.0, "u": 0.0}, None,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_gradient_is_certified(name: str) -> None:
    function, parameters, kind = RIGHT[name]
    step = step_of(fxcheck.instrument(Scalars(function, **parameters), (ONE,)), ONE)
    assert step.verdict == "certified", step.text
    if kind is not None:
        assert (step.theorem, step.subdifferential) == ("joint", kind)


WRONG = {
    "relu(w) - relu(-w) through shared weights": lambda s, x: F.relu(s.w * x) - F.relu((-s.w * x).reshape(1, 1)),
    "h(-h(w))": lambda s, x: h(-h(s.w * x).reshape(1, 1)),
    "max(w, -w) - max(-w, w)": lambda s, x: widest(s.w, -s.w) - widest(-s.w, s.w),
    "|2w + |w|| - 2|w|": lambda s, x: torch.maximum(2 * s.w + torch.maximum(s.w, -s.w), -2 * s.w - torch.maximum(s.w, -s.w))
    - 2 * torch.maximum(s.w, -s.w),
    "|2w + |w|| - 2|w| as norms": lambda s, x: sizes(2 * s.w + sizes(s.w * x)) - 2 * sizes(s.w * x),
    "|2w + |w|| - 2|w| in place": lambda s, x: in_place(2 * s.w + in_place(s.w * x)) - 2 * in_place(s.w * x),
    "max(2|t|, |u|) - |u| with AD at (0, 1.5)": lambda s, x: torch.maximum(
        torch.maximum(2 * s.w, -2 * s.w), widest(s.u, -s.u)) - widest(-s.u, s.u),
    "a small wrong term beside a large right one": lambda s, x: 1e9 * (s.u * x).abs().sum()
    + F.relu(s.w * x) - F.relu((-s.w * x).reshape(1, 1)),
    "discharged touches count": lambda s, x: F.relu(s.w + s.u) + (s.w + F.relu(1 + s.u) - 1).clamp(max=0)
    + 0 * torch.maximum(s.w, 2 * s.w),
    "a wrong term beside an absolute value": lambda s, x: F.relu(s.w * x) - F.relu((-s.w * x).reshape(1, 1)) + (s.u * x).abs(),
}  # fmt: skip
RIGHT_WHERE_CLAMP_PASSES = ("|2w + |w|| - 2|w| in place", "discharged touches count")


@pytest.mark.parametrize("name", [n for n in WRONG if not (CLAMP_PASSES and n in RIGHT_WHERE_CLAMP_PASSES)])
def test_a_wrong_gradient_is_not_certified(name: str) -> None:
    model = Scalars(WRONG[name], w=0.0, u=0.0)
    step = step_of(fxcheck.instrument(model, (ONE,), allow_uncovered=True), ONE)
    assert step.verdict == "uncertified" and step.text


def test_two_forwards_of_a_step_are_mixed_together() -> None:
    """|w x| at x = 1 and -1: AD's 0 is a mixture; with |w| - relu(w) + relu(-w) over two forwards it is none."""
    model = Scalars(lambda s, x: torch.where(x > 0, F.relu(s.w * x), -F.relu(s.w * x)) + 0 * (s.w * x).abs(), w=0.0)
    checked = fxcheck.instrument(model, (ONE,))
    with checked.step() as step:
        checked(ONE).sum().backward()
        checked(-ONE).sum().backward()
    assert step.verdict == "uncertified"


def test_tied_functions_are_no_choice() -> None:
    model = Scalars(lambda s, x: (s.w * x).expand(4, 3).amax(1), w=1.0)
    step = step_of(fxcheck.instrument(model, (ONE,)), ONE)
    assert (step.verdict, step.subdifferential) == ("certified", "bouligand")


class Elman(nn.Module):
    """h_t = relu(W x_t + U h_{t-1} + b), unrolled by hand."""

    def __init__(self, bias: float = 0.3) -> None:
        super().__init__()
        self.read, self.carry, self.out = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2)
        with torch.no_grad():
            self.read.bias.fill_(bias)

    def forward(self, x: Tensor) -> Tensor:
        state = x.new_zeros(x.shape[0], 4)
        for t in range(x.shape[1]):
            state = F.relu(self.read(x[:, t]) + self.carry(state))
        return self.out(state)


def test_a_recurrent_network_is_checked_and_its_idle_steps_are_certified() -> None:
    torch.manual_seed(0)
    x = torch.randn(5, 6, 3)
    checked = fxcheck.instrument(Elman(), (x,))
    step = step_of(checked, x)
    assert (step.verdict, step.theorem, step.subdifferential) == ("certified", "joint", "bouligand")
    assert not any(layer.touched for layer in step.layers) and "replay" not in step.seconds


def test_a_recurrent_network_with_touches_at_every_time_step_is_certified() -> None:
    torch.manual_seed(0)
    model, x = Elman(0.0), torch.zeros(2, 4, 3)
    with torch.no_grad():
        model.carry.bias.zero_()
    step = step_of(fxcheck.instrument(model, (x,)), x)
    assert step.verdict == "certified", step.text
    assert sum(layer.touched for layer in step.layers) == 2 * 4 * 4
    assert sum(layer.constraints for layer in step.layers) == 2 * 4 * 4


def test_a_kinked_loss_is_part_of_what_is_decided() -> None:
    torch.manual_seed(0)
    model, x = nn.Linear(3, 3, bias=False), torch.randn(4, 3)
    target = model(x).detach().clone()
    target[0, 0] += 1.0
    checked = fxcheck.instrument(model, (x,), loss=F.l1_loss, target=target)
    with checked.step() as step:
        checked.loss(x, target=target).backward()
    assert (step.verdict, step.theorem, step.subdifferential) == ("certified", "joint", "clarke")
    assert step.up_to_rounding is True and sum(layer.touched for layer in step.layers) == 11


def test_a_single_part_is_ad_s_gradient_up_to_rounding() -> None:
    """relu(w) + h(w) - h(w), h of slope 1 at 0: no direction for AD's sides, and the gradient of w < 0 is AD's."""
    def h(y: Tensor) -> Tensor:
        return torch.where(y >= 0, y, 0 * y).sum()

    def same(s: Scalars, x: Tensor) -> Tensor:
        y = s.w * x
        return torch.relu(y).sum() + h(y.reshape(1, 1)) - h(y.reshape(1, 1, 1))

    step = step_of(fxcheck.instrument(Scalars(same, w=[0.0]), (ONE,)), ONE)
    assert (step.verdict, step.subdifferential, step.up_to_rounding) == ("certified", "bouligand", True)


def test_without_backward_inside_the_step_a_mixture_cannot_be_shown() -> None:
    checked = fxcheck.instrument(Scalars(lambda s, x: (s.w * x).abs(), w=0.0), (ONE,))
    with checked.step() as step:
        loss = checked(ONE).sum()
    loss.backward()
    assert step.verdict == "uncertified" and "backward()" in step.text


def test_a_second_look_settles_an_empty_p_and_can_be_switched_off() -> None:
    """Two outputs pick different entries of one tie: P_l is empty, and AD's gradient is a mixture all the same."""
    def picks(s: Scalars, x: Tensor) -> Tensor:
        return widest(s.w, s.v) + 2 * widest(s.v, s.w)

    reasons = {}
    for seconds in (0.0, 20.0):
        step = step_of(fxcheck.instrument(Scalars(picks, w=0.0, v=0.0), (ONE,), joint_seconds=seconds), ONE)
        reasons[seconds] = (step.verdict, step.reason, step.subdifferential)
    assert reasons == {0.0: ("uncertified", "infeasible", None), 20.0: ("certified", None, "clarke")}


def test_a_joint_certificate_is_confirmed_by_a_process_without_torch_and_refuted_when_tampered(tmp_path: Path) -> None:
    step = step_of(fxcheck.instrument(Scalars(RIGHT["amax of three"][0], w=[1.0, 1.0, 1.0]), (ONE,)), ONE)
    path = tmp_path / "certificate.json"
    step.certificate.save(path)
    claims = [b.claim for b in step.certificate.blocks]
    assert claims.count("mixture") == 1 and claims.count("direction") == len(claims) - 1 >= 2
    assert _verify(path) == 0
    document = path.read_text()
    (mixture,) = [b for b in step.certificate.blocks if b.claim == "mixture"]
    path.write_text(document.replace(float(mixture.weights[0]).hex(), (float(mixture.weights[0]) * 1.5).hex()))
    assert _verify(path) == 1


def _verify(path: Path) -> int:
    code = "import sys; sys.modules['torch'] = sys.modules['ortools'] = None\n" \
           "from fxcheck.cli import main; sys.argv = ['fxcheck', 'verify', sys.argv[1]]; main()"  # fmt: skip
    return subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, check=False).returncode


def test_parameters_and_buffers_are_as_they_were_after_a_second_look() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Dropout(0.5))
    x = torch.randn(6, 3)
    twin = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Dropout(0.5))
    twin.load_state_dict(model.state_dict())
    checked = fxcheck.instrument(model, (x,), loss=lambda o: o.abs().sum() + o.amax())
    states = []
    for module, run in ((twin, lambda: (lambda o: o.abs().sum() + o.amax())(twin(x))), (model, lambda: checked.loss(x))):
        torch.manual_seed(3)
        with checked.step() as step:
            run().backward()
        states.append([torch.get_rng_state(), *module.state_dict().values(), *(p.grad for p in module.parameters())])
    assert step.seconds["replay"] > 0 and all(torch.equal(a, b) for a, b in zip(*states, strict=True))


def test_weights_that_do_not_cancel_are_refused() -> None:
    rows, none = np.eye(2), np.zeros(2)
    assert mixes_to_zero(np.array([0.5, 0.5]), np.array([[1.0, 2.0], [-1.0, -2.0]]), rows, none)
    assert not mixes_to_zero(np.array([0.5, 0.5]), np.array([[1.0, 2.0], [-1.0, -2.001]]), rows, none)
    assert not mixes_to_zero(np.array([-1.0, -1.0]), np.array([[1.0, 2.0], [-1.0, -2.0]]), rows, none)
    assert not mixes_to_zero(np.array([0.0, 0.0]), np.array([[1.0, 2.0], [-1.0, -2.0]]), rows, none)


def test_a_large_term_that_cancels_hides_no_small_one() -> None:
    rows, error = np.eye(2), np.array([1e-5, 1e-5])
    assert not mixes_to_zero(np.array([0.5, 0.5]), np.array([[1e9, 1.0], [-1e9, 1.0]]), rows, error)


def test_weights_or_a_separating_direction() -> None:
    terms = LinearSystem(np.eye(3), np.zeros(3))
    around = np.array([[1.0, 0, 0], [0, 1.0, 0], [-1.0, -2.0, 0]])
    found = balance(around, terms).weights
    assert found is not None and np.allclose(found @ around, 0, atol=1e-12) and found.sum() == pytest.approx(1)
    aside = balance(np.array([[1.0, 0, 0], [0, 1.0, 0], [-1.0, 2.0, 1.0]]), terms)
    assert aside.weights is None and (np.array([[1.0, 0, 0], [0, 1.0, 0], [-1.0, 2.0, 1.0]]) @ aside.direction > 0).all()


@pytest.mark.parametrize("tokens", [2, 40])
def test_sparse_gradients_of_an_embedding_are_read(tokens: int) -> None:
    class Bag(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.layer = nn.Embedding(20, 4, sparse=True), nn.Linear(4, 4)
            nn.init.zeros_(self.table.weight)
            nn.init.zeros_(self.layer.bias)

        def forward(self, x: Tensor) -> Tensor:
            return F.relu(self.layer(F.relu(self.layer(self.table(x)))))

    x = torch.randint(0, 20, (tokens, 3))
    step = step_of(fxcheck.instrument(Bag(), (x,)), x)
    assert (step.verdict, step.theorem) == ("certified", "joint"), step.text
    assert sum(layer.touched for layer in step.layers) == 2 * tokens * 3 * 4


class Windows(nn.Module):
    """amax over windows that overlap, of a convolution: flat regions tie, and are equal functions there."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(1, 2, 1).double()
        with torch.no_grad():
            self.conv.weight.copy_(torch.tensor([1.0, -1.0]).reshape(2, 1, 1, 1))
            self.conv.bias.fill_(1.0)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(x)).unfold(2, 2, 1).unfold(3, 2, 1).amax((-1, -2))


def test_ties_of_equal_pixels_are_no_choice_and_other_ties_keep_their_share() -> None:
    flat = torch.zeros(2, 1, 4, 4, dtype=torch.float64)
    step = step_of(fxcheck.instrument(Windows(), (flat,)), flat)
    assert (step.verdict, step.subdifferential, step.layers[0].nontrivial) == ("certified", "bouligand", 0)
    model, x = Windows(), flat.clone()
    x[0, 0, 0, 0], x[0, 0, 0, 1] = 0.5, 0.25
    with torch.no_grad():
        model.conv.weight.zero_()  # all entries tie, and differ as functions where pixels do
    checked = fxcheck.instrument(model, (x,))
    step = step_of(checked, x)
    assert (step.verdict, step.subdifferential) == ("certified", "clarke"), step.text
    assert 0 < step.layers[0].nontrivial < 12


def test_shares_of_equal_entries_are_added_up() -> None:
    """One pixel of four differs: AD's gradient is the mixture of 1/4 and 3/4, and with lost shares it would be none."""
    model = Windows()
    x = torch.zeros(1, 1, 2, 2, dtype=torch.float64)
    x[0, 0, 0, 0] = 1.0
    with torch.no_grad():
        model.conv.weight.zero_()
    step = step_of(fxcheck.instrument(model, (x,)), x)
    (mixture,) = [b for b in step.certificate.blocks if b.claim == "mixture"]
    assert step.verdict == "certified" and len(mixture.weights) >= 2


@pytest.mark.parametrize(
    "largest",
    [lambda y: F.max_pool1d(y[None], 2), lambda y: y.amax(0), lambda y: y.max(0).values, lambda y: y.max()],
    ids=["max_pool1d", "amax", "max along a dimension", "max of all"],
)
def test_ties_at_the_flat_value_are_looked_at_where_touches_under_them_may_take_another_side(
    largest: Callable[[Tensor], Tensor]
) -> None:
    """|w| as a max over two ReLUs (docs/theory.md 5.10)."""
    def pooled(s: Scalars, x: Tensor) -> Tensor:
        return largest(F.relu(torch.cat([s.w * x, -s.w * x])))

    step = step_of(fxcheck.instrument(Scalars(pooled, w=0.0), (ONE,)), ONE)
    assert (step.verdict, step.subdifferential) == ("certified", "clarke") and recheck(step.certificate).confirmed


def test_ties_at_the_flat_value_do_not_certify_a_wrong_gradient() -> None:
    """max(relu(w), relu(w / 2)) - relu(-w) is w, and AD says 0."""
    def wrong(s: Scalars, x: Tensor) -> Tensor:
        return F.max_pool1d(F.relu(torch.cat([s.w * x, s.w * x / 2])[None]), 2) - F.relu(-s.w * x)

    step = step_of(fxcheck.instrument(Scalars(wrong, w=0.0), (ONE,)), ONE)
    assert step.verdict == "uncertified"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_gradients_that_are_not_known_well_cancel_each_by_itself(dtype: torch.dtype) -> None:
    """In low precision a sum that has to vanish shows nothing; the search goes on without a direction that it would give."""
    def function(s: Scalars, x: Tensor) -> Tensor:
        return (s.w + 2 * s.v).abs() + (s.w - 3 * s.v).abs() + (3 * s.w + s.v).abs() + F.relu(s.w * x) + F.relu(s.v * x)

    model = Scalars(function, w=[0.0], v=[0.0]).to(dtype)
    step = step_of(fxcheck.instrument(model, (ONE.to(dtype),)), ONE.to(dtype))
    assert sum(layer.touched for layer in step.layers) == 5 and step.verdict is not None


def test_multipliers_too_large_for_a_float_still_name_the_next_vector(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are exact numbers; VGG11 on channels_last images once had such ones."""
    huge = Decision(Outcome.INFEASIBLE, multipliers=(Fraction(10) ** 400, Fraction(10) ** 399))
    monkeypatch.setattr(many_rows, "decide", lambda systems: [huge])
    _, decision, wanted = many_rows._decided(np.array([[1.0], [-10.0]]), np.zeros(2))
    assert decision is huge and wanted is not None and wanted.tolist() == [1.0, 0.1]
