"""The table of operator semantics and its lookup. The families fill it; a missing operator is UNKNOWN."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from fxcheck.records.graph import refs_in
from fxcheck.records.semantics import Call, Kind, OpSemantics

Rule = Callable[[Call], OpSemantics]

_RULES: dict[str, tuple[Rule, str]] = {}
_SPEAK_OF_COMPLEX: set[str] = set()
"""Overloads whose rules are about complex operands too."""


class DuplicateOperator(Exception):
    """Two families claim one overload."""


def semantics_for(*ops: str, over_complex: bool = False) -> Callable[[Rule], Rule]:
    """Register one rule for the named overloads (``aten.relu.default``).

    Args:
        ops: the overloads.
        over_complex: the rule speaks of complex operands too; of what other rules say only linearity holds of them.

    Raises:
        DuplicateOperator: an overload already has a rule.
    """

    def register(rule: Rule) -> Rule:
        owner = f"{rule.__module__}.{rule.__qualname__}"
        for op in ops:
            if op in _RULES:
                raise DuplicateOperator(f"{op} is already described by {_RULES[op][1]}; {owner} describes it again")
            _RULES[op] = (rule, owner)
        _SPEAK_OF_COMPLEX.update(ops if over_complex else ())
        return rule

    return register


def constant_semantics(ops: Iterable[str], semantics: OpSemantics) -> None:
    """Register the same facts, independent of arguments, for several overloads."""
    semantics_for(*ops)(lambda call: semantics)


def registered() -> tuple[str, ...]:
    """Every overload with a rule, sorted."""
    return tuple(sorted(_RULES))


def out_of_place(op: str) -> str:
    """``aten.relu_.default`` -> ``aten.relu.default``; other names unchanged."""
    parts = op.split(".")
    if len(parts) == 3 and parts[1].endswith("_") and not parts[1].startswith("_"):
        return f"{parts[0]}.{parts[1][:-1]}.{parts[2]}"
    return op


def lookup(call: Call) -> OpSemantics:
    """The semantics of a call; UNKNOWN, with a note, for an operator that nobody described."""
    entry = _RULES.get(call.op) or _RULES.get(out_of_place(call.op))
    if entry is None:
        return OpSemantics(Kind.UNKNOWN, note=f"{call.op} is not in the operator table")
    found = entry[0](call)
    if call.op not in _SPEAK_OF_COMPLEX and _touches_complex(call):
        return _over_complex(found)
    return _in_coarse_steps(call) or found


_ANY_NUMBERS = (Kind.CONSTANT, Kind.DISCONTINUOUS, Kind.BREAKING, Kind.UNKNOWN)
_COARSE = ("float8", "float4")
_REAL_LINEAR = (Kind.LINEAR, Kind.STRUCTURAL)


def _in_coarse_steps(call: Call) -> OpSemantics | None:
    """What an operator is that turns real numbers into floats of 8 bits or fewer, whatever else it does."""
    if not (call.dtype or "").startswith(_COARSE):
        return None
    before = [call.dtypes.get(r) or "" for r in refs_in(dict(call.arguments)) if r not in call.constants]
    if not all(b.startswith(_COARSE) for b in before):
        return OpSemantics(Kind.BREAKING, singular_code="FX507", note="so few bits round in steps, which backward does not see")
    return None


def _touches_complex(call: Call) -> bool:
    dtypes = [call.dtype, *(call.dtypes.get(r) for r in refs_in(dict(call.arguments)))]
    return any((dtype or "").startswith("complex") for dtype in dtypes)


def _over_complex(found: OpSemantics) -> OpSemantics:
    """Facts are about real numbers: of complex ones only linearity survives (log, sqrt and powers have branch cuts)."""
    if found.kind in _ANY_NUMBERS:
        return found
    if found.kind in _REAL_LINEAR:
        return OpSemantics(found.kind, note=found.note)
    return OpSemantics(Kind.UNKNOWN, note="its operand is complex")
