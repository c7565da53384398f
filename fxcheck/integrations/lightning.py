"""Lightning: check every optimizer step of a LightningModule that contains a checked module.

    self.net = fxcheck.instrument(net, (x,))                      # in the LightningModule
    trainer = Trainer(callbacks=[FxcheckCallback()])
"""

from __future__ import annotations

from typing import Any

try:
    from lightning.pytorch import Callback
except ImportError:
    try:
        from pytorch_lightning import Callback
    except ImportError as error:
        raise ImportError("fxcheck.integrations.lightning needs Lightning: pip install 'fxcheck[lightning]'") from error

from fxcheck.integrations.pooling import StepPool


class FxcheckCallback(Callback):
    """Pools the training forwards of an optimizer step, decides them before it, and logs the counts.

    Accumulated batches count together; validation counts for nothing. It works in automatic and in manual
    optimization, and with closures that run several times (LBFGS): each gradient that reaches the optimizer is one step.
    What to do with an uncertified step is the policy that the module was instrumented with.

    Args:
        prefix: of the names that are logged; with several checked modules their names follow it.
        gather: with several ranks, decide the rows of all of them together.
    """

    def __init__(self, *, prefix: str = "fxcheck/", gather: bool = True) -> None:
        self._prefix, self._gather = prefix, gather
        self._pool: StepPool | None = None

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Find the checked modules.

        Raises:
            UsageError: there is none, or an optimizer updates other parameters than its checks are about.
        """
        self._end()
        self._pool = StepPool(pl_module, trainer.optimizers, prefix=self._prefix, gather=self._gather)

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        """Decide the step: all its gradients are there, and no parameter has changed yet.

        Raises:
            StepError: the step is uncertified and the module was instrumented with ``on_uncertified="raise"``.
        """
        scalars = self._pool.close(optimizer) if self._pool is not None else {}
        if scalars:
            pl_module.log_dict(scalars, on_step=True, on_epoch=False)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Forget a step that never reached the optimizer."""
        self._end()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Forget the step that broke off."""
        self._end()

    def _end(self) -> None:
        if self._pool is not None:
            self._pool.detach()
        self._pool = None
