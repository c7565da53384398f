"""The errors that fxcheck raises on purpose: one sentence each, with a way out."""

from __future__ import annotations


class FxcheckError(Exception):
    """Something kept fxcheck from doing its work; the command line exits with status 2.

    Args:
        message: what was tried, where, and what happened, in one or two sentences.
        code: the FX6xx diagnostic code when the failure has one, else ``None``.
        hint: what the user can do about it.
    """

    code: str | None = None

    def __init__(self, message: str, *, code: str | None = None, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.code = code or type(self).code
        self.hint = hint

    def __str__(self) -> str:
        head = f"{self.code} {self.message}" if self.code else self.message
        return f"{head}\n  try: {self.hint}" if self.hint else head


class UsageError(FxcheckError):
    """A flag, an argument or a configuration value that cannot be used."""


class TargetError(FxcheckError):
    """The target names no model, too many, or one that cannot be built."""


class InputError(FxcheckError):
    """The example inputs are missing or do not fit the model."""


class CaptureError(FxcheckError):
    """``torch.export`` could not capture the model."""

    code = "FX601"


class ProxyError(FxcheckError):
    """Saved proxies cannot be read, or an operator cannot be measured."""


class NonFiniteError(FxcheckError):
    """A forward computed NaN or infinity: an error, never a verdict."""


class StepError(FxcheckError):
    """A checked module was used in a way that makes a step meaningless: nothing was decided."""


class UncoveredModel(FxcheckError):
    """No theorem covers the model, so its steps cannot be checked; the message lists the diagnostics."""


def explained(error: Exception) -> FxcheckError:
    """The error itself if it is one of ours, else one that says in a sentence what was not expected."""
    if isinstance(error, FxcheckError):
        return error
    sentence = " ".join(str(error).split())[:300]
    return FxcheckError(f"unexpected {type(error).__name__}: {sentence}", hint="the same command with --debug")
