"""Hugging Face Trainer: check every optimizer step of a model that was instrumented.

    checked = fxcheck.instrument(model, (), batch)
    trainer = Trainer(model=checked, args=arguments, callbacks=[FxcheckCallback()])
"""

from __future__ import annotations

from typing import Any

try:
    from transformers import TrainerCallback
except ImportError as error:
    raise ImportError("fxcheck.integrations.huggingface needs transformers: pip install 'fxcheck[transformers]'") from error

from fxcheck.integrations.pooling import StepPool


class FxcheckCallback(TrainerCallback):
    """Pools the training forwards of an optimizer step, decides them before it, and adds the counts to the log.

    The counts of all steps since the last log are added up (``certified`` is their certified share). The trainer writes
    its history before callbacks see it, so they are added to ``state.log_history`` too; a reporter sees them if it
    comes after this callback. What to do with an uncertified step is the policy that the model was instrumented with.

    Args:
        prefix: of the names that are logged.
        gather: with several ranks, decide the rows of all of them together.
    """

    def __init__(self, *, prefix: str = "fxcheck/", gather: bool = True) -> None:
        self._prefix, self._gather = prefix, gather
        self._pool: StepPool | None = None
        self._steps: list[dict[str, float]] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Find the checked model.

        Raises:
            UsageError: the model was not instrumented, or the optimizer updates other parameters than its checks are about.
        """
        self.detach()
        self._pool = StepPool(kwargs["model"], [kwargs["optimizer"]], prefix=self._prefix, gather=self._gather)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Decide the step: all its gradients are there, and no parameter has changed yet.

        Raises:
            StepError: the step is uncertified and the model was instrumented with ``on_uncertified="raise"``.
        """
        scalars = self._pool.close(kwargs["optimizer"]) if self._pool is not None else {}
        if scalars:
            self._steps.append(scalars)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Add the counts since the last log."""
        if self._steps:
            counts = _added_up(self._steps)
            self._steps = []
            for log in (logs, state.log_history[-1] if state.log_history else None):
                if log is not None:
                    log.update(counts)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Forget a step that never reached the optimizer."""
        self.detach()

    def detach(self) -> None:
        """Give the model back; the trainer tells nobody when an exception ends it, so call this then."""
        if self._pool is not None:
            self._pool.detach()
        self._pool = None


def _added_up(steps: list[dict[str, float]]) -> dict[str, float]:
    """Sums, but the mean of ``certified``."""
    found = {name: sum(step.get(name, 0.0) for step in steps) for name in steps[-1]}
    return {name: v / len(steps) if name.endswith("certified") else v for name, v in found.items()}
