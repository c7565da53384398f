"""What a step says: verdicts, reasons, layers, certificates, totals, policies."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import fxcheck
from fxcheck.errors import StepError
from fxcheck.lp.recheck import recheck
from fxcheck.records.certificate import Certificate
from fxcheck.records.step import StepResult
from tests.runtime.models import CLAMP_PASSES, Scalars, flat_images, one_step, small_cnn, step_of

ONE = torch.ones(1, 1, dtype=torch.float64)


def lemma_2() -> nn.Module:
    return Scalars(lambda s, x: torch.relu(s.w * x) - torch.relu(-s.w * x), w=0.0)


def right_though_touched() -> nn.Module:
    return Scalars(lambda s, x: torch.relu(s.w * x) - torch.relu(2 * s.w * x), w=0.0)


def test_an_infeasible_step_names_its_reason_and_holds_gordan_multipliers() -> None:
    step = one_step(lemma_2(), ONE)
    assert (step.verdict, step.reason, step.theorem) == ("uncertified", "infeasible", None)
    assert "multipliers" in step.text and [layer.verdict for layer in step.layers] == ["infeasible", "infeasible"]
    block, _ = step.certificate.blocks  # of the layer, and of all layers together
    assert block.claim == "multipliers" and block.rows.tolist() in ([[-1.0], [1.0]], [[1.0], [-1.0]])
    assert recheck(step.certificate).confirmed


def test_a_certified_step_holds_a_direction_per_layer() -> None:
    step = one_step(right_though_touched(), ONE)
    assert (step.verdict, step.theorem, step.subdifferential, step.reason) == ("certified", "T8", "bouligand", None)
    (block,) = step.certificate.blocks
    assert block.claim == "direction" and bool((block.rows @ block.direction > 0).all())
    assert step.up_to_rounding is None and step.assumptions[0] == "smooth criterion"


def test_a_saved_certificate_is_confirmed_and_a_tampered_one_refuted(tmp_path: Path) -> None:
    path = tmp_path / "step.json"
    one_step(right_though_touched(), ONE).certificate.save(path)
    assert _verify(path) == 0
    document = json.loads(path.read_text())
    document["blocks"][0]["direction"] = [(-float.fromhex(v)).hex() for v in document["blocks"][0]["direction"]]
    path.write_text(json.dumps(document))
    assert _verify(path) == 1
    assert Certificate.load(path).torch == torch.__version__


def _verify(path: Path) -> int:
    return subprocess.run([sys.executable, "-m", "fxcheck", "verify", str(path)], capture_output=True).returncode


def test_the_digest_tells_steps_apart() -> None:
    model = right_though_touched()
    checked = fxcheck.instrument(model, (ONE,))
    first, again = step_of(checked, ONE), step_of(checked, ONE)
    other = step_of(checked, ONE * 2)
    assert first.certificate.digest == again.certificate.digest != other.certificate.digest


def test_rows_of_all_forwards_are_decided_together() -> None:
    """Together the forwards make -|w|: no direction shows AD's 0, but it is the mean of both slopes."""
    for seconds, reason, theorem in ((0.0, "infeasible", None), (20.0, None, "joint")):
        checked = fxcheck.instrument(right_though_touched(), (ONE,), joint_seconds=seconds)
        with checked.step() as step:
            checked(ONE).sum().backward()
            checked(-ONE).sum().backward()
        assert (step.forwards, step.samples, step.reason, step.theorem) == (2, 2, reason, theorem)
    assert step_of(checked, ONE).verdict == step_of(checked, -ONE).verdict == "certified"


def test_looks_that_settle_nothing_come_to_an_end() -> None:
    checked = fxcheck.instrument(lemma_2(), (ONE,), joint_seconds=0.5)
    assert "no one direction" in step_of(checked, ONE).text and checked._patience.spent > 0
    checked._patience.spent = 1.0
    step = step_of(checked, ONE)
    assert step.reason == "infeasible"
    assert "was not looked at: looks that settled nothing have taken 1.0 s of this run" in step.text
    checked._patience.began -= 20.0  # a tenth of a run that long is more
    assert "no one direction" in step_of(checked, ONE).text


def test_looks_that_settle_a_step_cost_no_patience() -> None:
    checked = fxcheck.instrument(right_though_touched(), (ONE,), joint_seconds=0.5)
    with checked.step() as step:
        checked(ONE).sum().backward()
        checked(-ONE).sum().backward()
    assert step.theorem == "joint" and checked._patience.spent == 0


def test_lemma_3_as_one_minibatch_and_as_two_micro_batches_of_one() -> None:
    model = Scalars(lambda s, x: nn.functional.hardsigmoid(3 * x + s.w), w=0.0)
    up, down = ONE, -ONE
    for batch_size in (None, 1):
        checked = fxcheck.instrument(model, (up,), batch_size=batch_size)
        assert step_of(checked, up).verdict == step_of(checked, down).verdict == "certified"
        assert (step_of(checked, up).theorem == "T1") == (batch_size == 1)
        with checked.step() as step:
            checked(up).sum().backward()
            checked(down).sum().backward()
        assert (step.verdict, step.reason) == ("uncertified", "infeasible")
    both = fxcheck.instrument(model, (torch.cat([up, down]),))
    assert step_of(both, torch.cat([up, down])).reason == "infeasible"


@pytest.mark.skipif(CLAMP_PASSES, reason="relu and clamp take the same side at 0 in this release")
@pytest.mark.parametrize("swapped", [(0, 1), (1, 0)])
def test_forwards_of_other_sizes_must_ask_the_same_of_each_bias_entry(swapped: tuple[int, int]) -> None:
    """Each size is certified by itself; together relu(b + 0) - relu(-b - 0) with opposite sides is not."""

    class Halves(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.b = nn.Parameter(torch.zeros(2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            a, c = (x + self.b).chunk(2, 1)
            if len(x) == swapped[0] + 2:
                a, c = c, a
            return torch.relu(a) + c.clamp(max=0)

    checked = fxcheck.instrument(Halves(), (torch.zeros(2, 2),))
    for size in (2, 3):
        assert step_of(checked, torch.zeros(size, 2)).verdict == "certified"
    with checked.step() as step:
        for size in (2, 3):
            checked(torch.zeros(size, 2)).sum().backward()
    assert step.verdict == "uncertified"


def test_an_input_computed_with_gradients_is_undecided() -> None:
    checked = fxcheck.instrument(Scalars(lambda s, x: torch.relu(s.w * x + s.b), w=1.0, b=0.0), (ONE,))
    with checked.step() as step:
        checked(checked(ONE)).sum().backward()
    assert (step.verdict, step.reason) == ("uncertified", "undecided") and "detach" in step.text


class _Memory(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.register_buffer("memory", torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.linear(x) + self.memory)
        with torch.no_grad():
            self.memory.copy_(y.mean(0))
        return y


def test_a_buffer_that_carries_activations_spoils_steps_of_several_forwards() -> None:
    x = torch.randn(4, 3)
    checked = fxcheck.instrument(_Memory(), (x,))
    assert step_of(checked, x).verdict == "certified"
    step = step_of(checked, x, forwards=2)
    assert (step.verdict, step.reason) == ("uncertified", "undecided") and "buffer memory carries" in step.text
    assert step_of(fxcheck.instrument(small_cnn(norm=True), (flat_images(),)), flat_images(), forwards=2).reason != "undecided"


def test_a_buffer_that_scales_a_normalisation_carries_activations_too() -> None:
    class Scaled(_Memory):
        def forward(self, x: Tensor) -> Tensor:
            y = torch.relu(self.linear(nn.functional.batch_norm(x, None, None, self.memory, training=True)))
            with torch.no_grad():
                self.memory.copy_(y.mean(0))
            return y

    x = torch.randn(4, 3)
    step = step_of(fxcheck.instrument(Scaled(), (x,)), x, forwards=2)
    assert (step.verdict, step.reason) == ("uncertified", "undecided") and "buffer memory carries" in step.text


def test_layers_count_touches_ties_and_constraints() -> None:
    checked = fxcheck.instrument(small_cnn(), (flat_images(),), exact_ties=True)
    step = step_of(checked, flat_images())
    first = step.layers[0]
    assert (first.name, first.max_outputs, first.verdict) == ("1", 4 * 4 * 4 * 4, "certified")
    assert first.ties > 0 and first.nontrivial <= first.constraints


def test_totals_have_the_columns_of_table_2() -> None:
    checked = fxcheck.instrument(small_cnn(), (flat_images(),))
    for seed in range(3):
        step_of(checked, flat_images(seed=seed))
    summary = checked.summary()
    assert (summary.steps, summary.certified) == (3, 3)
    totals = summary.layers["1"]
    assert totals.max_outputs == 3 * 256 and totals.tied_share == totals.ties / totals.max_outputs
    document = summary.to_dict()
    assert document["layers"][0]["tied_share"] == totals.tied_share
    assert set(document["seconds"]) >= {"observation", "rows", "lp", "other"} - {"lp"}
    assert all(isinstance(v, float) for v in {**summary.scalars(), **checked.last_step.scalars()}.values())
    assert "3 of 3 steps certified" in str(summary)


def test_policies() -> None:
    seen: list[StepResult] = []
    checked = fxcheck.instrument(lemma_2(), (ONE,), on_uncertified=seen.append)
    assert seen == [] and step_of(checked, ONE) is seen[0]
    with pytest.raises(StepError, match="uncertified \\(infeasible\\)"):
        one_step(lemma_2(), ONE, on_uncertified="raise")
    with pytest.warns(UserWarning, match="uncertified"):
        one_step(lemma_2(), ONE, on_uncertified="warn")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one_step(lemma_2(), ONE)


def test_a_forward_outside_a_step_is_a_step_of_its_own() -> None:
    checked = fxcheck.instrument(lemma_2(), (ONE,))
    checked(ONE).sum().backward()
    assert checked.last_step.reason == "infeasible" and checked.summary().steps == 1


def test_kinks_of_the_loss_count_through_checked_loss() -> None:
    model = Scalars(lambda s, x: s.w * x, w=0.0)

    def loss(y: Tensor) -> Tensor:
        return torch.relu(y).sum() - torch.relu(-y).sum()

    checked = fxcheck.instrument(model, (ONE,), loss=loss)
    with checked.step() as step:
        checked.loss(ONE).backward()
    assert (step.verdict, step.reason) == ("uncertified", "infeasible")
    assert "smooth criterion" not in step.assumptions


def test_kinks_inside_a_composite_loss_are_observed() -> None:
    target = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    model = Scalars(lambda s, x: s.w * x, w=0.0)
    criterion = nn.MarginRankingLoss(margin=0.0)
    checked = fxcheck.instrument(
        model, (torch.ones(2, 1, dtype=torch.float64),), loss=lambda y, t: criterion(y, -y, t), target=target
    )
    with checked.step() as step:
        value = checked.loss(torch.ones(2, 1, dtype=torch.float64), target=target)
        value.backward()
    assert torch.equal(value, criterion(model(torch.ones(2, 1)), -model(torch.ones(2, 1)), target))
    assert sum(layer.touched for layer in step.layers) == 2


def test_wrt_leaves_frozen_coordinates_out() -> None:
    """relu(w+b1) - relu(b2-w) is right over all three parameters and wrong over w alone (theory 4.4)."""
    model = Scalars(lambda s, x: (torch.relu(s.w + s.b1) - torch.relu(s.b2 - s.w)) * x, w=0.0, b1=0.0, b2=0.0)
    assert one_step(model, ONE).verdict == "certified"
    assert one_step(model, ONE, wrt=[model.w]).verdict == "uncertified"
    optimizer = torch.optim.SGD([model.w], lr=0.1)
    assert one_step(model, ONE, wrt=optimizer).reason == "infeasible"
