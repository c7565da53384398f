"""Why torch.export refused, in the user's words."""

from __future__ import annotations

import os
import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from fxcheck.capture.origin import user_line_of
from fxcheck.errors import CaptureError

_CAUSES = (
    (("type must be tuple of ints,but got FakeTensor",), "FX602",
     "a size is the value of a tensor, as the lengths of a packed sequence are",
     "give the recurrent layer the padded batch: it is the same function where all sequences have one length"),
    (("fake tensor in the exported program constant", "lifted_tensor"), "FX604",
     "a tensor is built from traced values outside the graph (.numpy(), torch.tensor(...), torch.autograd.grad, an attribute "
     "that keeps an activation)",
     "compute it with torch operators on the activations, use detach() where no gradient is wanted, and write derivatives out"),
    (("data-dependent", "DataDependentOutput", "GuardOnDataDependent", "Could not guard on", "Could not extract specialized",
      "unbacked"), "FX602",
     "the forward, or an operator in it, branches on values of tensors (.item(), bool(), a mask with an unknown number of "
     "entries)",
     "make the branch depend on shapes or on constructor arguments, or use torch.where"),
    (("Unsupported", "not supported", "Couldn't find symbolic meta", "DynamicOutputShape", "UnsupportedOperator",
      "does not support", "NotImplementedError"), "FX603", "an operator or Python construct cannot be exported",
     "replace it by a traceable form, or analyse the part of the model around it"),
)  # fmt: skip


_OPAQUE = (
    ("output", re.compile(r"Found <class '(.+?)'> in output, which is not a known type"), "return a tuple or a dict of tensors"),
    ("input", re.compile(r"Unsupported input type <class '(.+?)'>"), "give tensors in tuples, lists and dicts"),
)
_REGISTER = "or register the class with torch.export.register_dataclass or torch.utils._pytree.register_pytree_node"
_OVER_ALL_BATCHES = "float(self.num_batches_tracked)"
"""What torch's BatchNorm runs where it has no momentum."""
_OF_THE_LOSS = "raised by the loss, not by the model"


@contextmanager
def blaming_the_loss() -> Iterator[None]:
    """What is raised inside says so to ``explain_failure``."""
    try:
        yield
    except Exception as error:
        error.add_note(_OF_THE_LOSS)
        raise


def explain_failure(error: Exception) -> CaptureError:
    """The capture error to raise: its cause if it is a known one, the model's own exception, the user's line."""
    if isinstance(error, CaptureError):
        return error
    text = f"{type(error).__name__}: {error}"
    if own_words := _in_own_words(error, text):
        return own_words
    line = _where(error)
    place = f" at {line}" if line else ""
    own = f"{type(error).__name__}: {_first_line(_message(error))}"
    for signs, code, cause, hint in _CAUSES:
        if any(sign in text for sign in signs):
            return CaptureError(f"torch.export cannot capture the model{place}: {cause} ({own})", code=code, hint=hint)
    if _OF_THE_LOSS in getattr(error, "__notes__", ()):
        return CaptureError(
            f"the loss raised{place} while torch.export ran it on the model's output: {own}",
            hint="it is called as loss(output, target), or as loss(output) without a target (--target none); the target's "
            "shape and dtype have to fit the output (--target SHAPE[:dtype])",
        )
    return CaptureError(
        f"the model's forward raised{place} while torch.export ran it on fake tensors: {own}",
        hint="check the example inputs (--input SHAPE[:dtype]) and that the model runs on them",
    )


def _in_own_words(error: Exception, text: str) -> CaptureError | None:
    """What needs no words of torch's."""
    for what, pattern, instead in _OPAQUE:
        if found := pattern.search(text):
            return CaptureError(f"an {what} is of type {found[1]}, which torch.export cannot take apart", code="FX603",
                                hint=f"{instead}, {_REGISTER}")  # fmt: skip
    if any(_OVER_ALL_BATCHES in (frame.line or "") for frame in traceback.extract_tb(error.__traceback__)):
        return CaptureError(
            "torch.export cannot capture a BatchNorm with momentum=None, which reads the number of batches so far from a tensor",
            code="FX602", hint="give it a number, as momentum=0.1: in training it changes the running statistics alone",
        )  # fmt: skip
    return None


def _message(error: BaseException) -> str:
    """The exception's text, or that of the one it replaced when it has none."""
    earlier = error.__cause__ or error.__context__
    return str(error) or (_message(earlier) if earlier is not None else "")


def _first_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return (lines[0] if lines else "")[:300]


def _where(error: Exception) -> str:
    """The innermost line of the user's code, or of the package that the model comes from; never one of torch."""
    root = os.path.dirname(torch.__file__) + os.sep
    frames = traceback.extract_tb(error.__traceback__)
    location, source = user_line_of(f for f in frames if not f.filename.startswith(root))
    return f"{location} ({source})" if source else location
