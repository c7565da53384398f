"""The document ``fxcheck/certificate/1``: rows, and the witnesses that prove or refute that a direction exists."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from fxcheck.errors import FxcheckError
from fxcheck.records import numbers

SCHEMA = "fxcheck/certificate/1"
WITNESSES = {
    "direction": "direction", "multipliers": "multipliers", "independent columns": "left_inverse", "mixture": "weights",
}  # fmt: skip
"""Each claim a block can make, and the field that holds its witness."""
VERDICTS = ("certified", "uncertified")
_HINT = "save one with step.certificate.save(path)"


@dataclass(frozen=True, eq=False)
class Block:
    """One independent block of one layer: a claim about its rows, with the witness.

    Raises:
        FxcheckError: the claim is unknown, its witness is missing, or shapes or values do not fit.
    """

    layer: str
    group: int
    claim: str
    """``direction``: one direction is positive on every row. ``multipliers``: a combination of the rows with
    coefficients >= 0 vanishes, so there is none. ``independent columns``: the rows are linearly independent.
    ``mixture``: weights of the parts of a gradient with which their differences from AD's gradient cancel."""
    coordinates: tuple[str, ...]
    """What the columns of the rows stand for, as ``conv1.weight[3]``; may be empty."""
    rows: np.ndarray
    """(K, D) float64; for ``independent columns`` the K columns of Z (D, K), one a row."""
    row_error: np.ndarray
    """(K,) float64 >= 0, as in ``LinearSystem``; 0 for ``independent columns``."""
    direction: np.ndarray | None = None
    """(D,) float64."""
    multipliers: tuple[Fraction, ...] | None = None
    """(K,)."""
    left_inverse: np.ndarray | None = None
    """(K, D) float64, R with R Z close to the identity."""
    weights: np.ndarray | None = None
    """(M,) float64 >= 0, of the parts."""
    coefficients: np.ndarray | None = None
    """(M, K) float64: part i differs from AD's gradient by the sum of coefficients[i, k] times row k."""

    def __post_init__(self) -> None:
        fault = self._fault()
        if fault:
            raise FxcheckError(f"the certificate's block for {self.layer!r} {fault}", hint=_HINT)

    def _fault(self) -> str:
        if self.claim not in WITNESSES:
            return f"makes no known claim: {self.claim!r}"
        if getattr(self, WITNESSES[self.claim]) is None:
            return f"claims {self.claim!r} and holds no {WITNESSES[self.claim]!r}"
        if self.rows.ndim != 2 or any(a is not None and a.shape != shape for a, shape in self._shapes()):
            return "has rows and witnesses whose shapes do not fit"
        if not all(np.isfinite(a).all() for a, _ in [(self.rows, ()), *self._shapes()] if a is not None):
            return "holds nan or infinity"
        if self.claim == "mixture" and not self._mixes():
            return "has weights and coefficients whose shapes do not fit"
        if self.multipliers is not None and len(self.multipliers) != len(self.rows):
            return f"has {len(self.rows)} rows and {len(self.multipliers)} multipliers"
        if (self.row_error < 0).any() or (self.claim == "independent columns" and self.row_error.any()):
            return "has row errors that its claim cannot have"
        return ""

    def _mixes(self) -> bool:
        w, c = self.weights, self.coefficients
        fits = w is not None and c is not None and w.ndim == 1 and c.shape == (len(w), len(self.rows))
        return fits and bool(np.isfinite(w).all() and np.isfinite(c).all())  # type: ignore[arg-type]

    def _shapes(self) -> list[tuple[np.ndarray | None, tuple[int, ...]]]:
        count, width = self.rows.shape
        return [(self.row_error, (count,)), (self.direction, (width,)), (self.left_inverse, (count, width))]

    def to_dict(self) -> dict[str, Any]:
        """JSON values; witnesses that the claim does not need are left out."""
        out: dict[str, Any] = {
            "layer": self.layer, "group": self.group, "claim": self.claim, "coordinates": list(self.coordinates),
            "columns": self.rows.shape[1], "rows": [numbers.to_hex(row) for row in self.rows],
            "row_error": numbers.to_hex(self.row_error),
        }  # fmt: skip
        if self.claim == "direction" and self.direction is not None:
            out["direction"] = numbers.to_hex(self.direction)
        if self.claim == "multipliers" and self.multipliers is not None:
            out["multipliers"] = [numbers.fraction_text(y) for y in self.multipliers]
        if self.claim == "independent columns" and self.left_inverse is not None:
            out["left_inverse"] = [numbers.to_hex(row) for row in self.left_inverse]
        if self.claim == "mixture" and self.weights is not None and self.coefficients is not None:
            out["weights"] = numbers.to_hex(self.weights)
            out["coefficients"] = [numbers.to_hex(row) for row in self.coefficients]
        return out

    @classmethod
    def from_dict(cls, document: Any, where: str) -> Block:
        """Read one block of a parsed document; ``where`` is for messages.

        Raises:
            FxcheckError: something is missing or malformed.
        """
        read = numbers.Reader(document, where, _HINT)
        claim, width = read.text("claim"), read.whole("columns")
        return cls(
            read.text("layer"), read.whole("group"), claim, read.texts("coordinates"), read.matrix("rows", width),
            read.vector("row_error"),
            read.vector("direction") if claim == "direction" else None,
            read.fractions("multipliers") if claim == "multipliers" else None,
            read.matrix("left_inverse", width) if claim == "independent columns" else None,
            read.vector("weights") if claim == "mixture" else None,
            read.matrix("coefficients", len(read.items("rows"))) if claim == "mixture" else None,
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Certificate:
    """What one training step's verdict rests on."""

    verdict: str
    """``certified`` or ``uncertified``."""
    torch: str
    digest: str
    """Of the inputs and weights of the step."""
    blocks: tuple[Block, ...]
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return {**self._head(), "blocks": [block.to_dict() for block in self.blocks]}

    def _head(self) -> dict[str, Any]:
        return {"schema": SCHEMA, "verdict": self.verdict, "torch": self.torch, "digest": self.digest,
                "notes": list(self.notes)}  # fmt: skip

    @classmethod
    def from_dict(cls, document: Any, where: str = "the certificate") -> Certificate:
        """Read a parsed JSON document.

        Args:
            document: what ``to_dict`` returned, after JSON.
            where: the file, for messages.

        Raises:
            FxcheckError: it is not a certificate that this version understands; the message names the first fault.
        """
        read = numbers.Reader(document, where, _HINT)
        if read.text("schema") != SCHEMA:
            raise FxcheckError(f"{where} has schema {document['schema'][:80]!r}, wanted {SCHEMA!r}", hint=_HINT)
        if read.text("verdict") not in VERDICTS:
            raise FxcheckError(f"{where} has an unknown verdict: {document['verdict'][:80]!r}", hint=_HINT)
        blocks = [Block.from_dict(b, f"{where}, block {i}") for i, b in enumerate(read.items("blocks"))]
        return cls(document["verdict"], read.text("torch"), read.text("digest"), tuple(blocks), read.texts("notes"))

    def save(self, path: str | Path) -> None:
        """Write to a file, one block a line; the file is there whole or not at all.

        Raises:
            FxcheckError: the file cannot be written.
        """
        target = Path(os.path.realpath(path))
        draft = target.with_name(f".{target.name}.{secrets.token_hex(6)}")
        try:
            try:
                with open(draft, "x", encoding="utf-8") as file:
                    file.writelines(self._lines())
                os.replace(draft, target)
            finally:
                draft.unlink(missing_ok=True)
        except OSError as error:
            raise FxcheckError(
                f"cannot write the certificate {path}: {error.strerror or error}",
                hint="give a file in a folder that exists",
            ) from error

    def _lines(self) -> Iterator[str]:
        yield json.dumps(self._head())[:-1] + ',\n "blocks": ['
        for index, block in enumerate(self.blocks):
            yield (",\n  " if index else "\n  ") + json.dumps(block.to_dict())
        yield "]}\n"

    @classmethod
    def load(cls, path: str | Path) -> Certificate:
        """Read a saved certificate.

        Raises:
            FxcheckError: the file cannot be read, is not JSON, or is not a certificate.
        """
        try:
            document = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise FxcheckError(f"cannot read the certificate {path}: {error.strerror or error}", hint=_HINT) from error
        except (ValueError, RecursionError) as error:
            raise FxcheckError(f"{path} is not JSON: {error}", hint=_HINT) from error
        return cls.from_dict(document, str(path))
