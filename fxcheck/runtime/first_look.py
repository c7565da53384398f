"""The joint condition for one forward, right after it has run, while its graph lives (theory 5.2).

It does not have to be run again then. One row asks for no gradient at all; several are looked at along a few vectors of the
coordinates that are cheapest to differentiate by.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor

from fxcheck.errors import FxcheckError
from fxcheck.records.system import Outcome
from fxcheck.runtime import dense_rows
from fxcheck.runtime.joint_rows import Rows, rows_of_forward
from fxcheck.runtime.many_rows import FEW_PROBES, ManyRows, Subspace, Unclear
from fxcheck.runtime.observed import Observed
from fxcheck.runtime.replay import Forward
from fxcheck.runtime.scene import Budget, Spent

_ROWS_A_VECTOR = 8
"""More vectors than one for so many rows are not tried."""
_NEAR = 3
"""Operations between what rows read and a bias that counts as near."""


def look_at(observed: Observed, parameters: Sequence[Tensor], until: float) -> Subspace | None:
    """Look for a direction on which all rows of a forward are positive.

    Args:
        observed: what its checks saw, which is not nothing.
        parameters: gradients are by these.
        until: of ``time.perf_counter``: no more time may be taken.

    Returns:
        A feasible subspace; None where none was found, which shows nothing.
    """
    rows = rows_of_forward(observed)
    if rows is None:
        return None
    most = 2 + len(rows) // _ROWS_A_VECTOR
    for coordinates in _coordinates(rows, parameters):
        try:
            found = dense_rows.look_at(rows, coordinates) or ManyRows(
                rows, parameters, Budget(until), coordinates=coordinates, probes=FEW_PROBES, most=most
            ).decide()  # fmt: skip
        except Spent:
            return None
        except (Unclear, FxcheckError, RuntimeError):  # an operation without a second derivative, or no memory left
            continue
        if found.decision.outcome is Outcome.FEASIBLE:
            return found
    return None


def _coordinates(rows: Rows, parameters: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Biases near to what the rows read, or all vectors, whose gradients are sums that a backward pass has at hand; then all."""
    thin = [p for p in parameters if p.dim() <= 1]
    near = _biases_near(rows, thin)
    few = near or thin
    if len(rows) <= sum(p.numel() for p in few) and len(few) < len(parameters):
        yield few
    yield list(parameters)


def _biases_near(rows: Rows, thin: Sequence[Tensor]) -> list[Tensor]:
    """For each operand one that it adds up, as far as it is found a few operations before; a pass by these alone is short."""
    found: set[int] = set()
    wanted = {id(p) for p in thin}
    for reading in rows.readings:
        nodes = [reading.group.edge.node]
        for _ in range(_NEAR):
            nodes = [n for node in nodes for n, _ in node.next_functions if n is not None]
            known = (id(getattr(n, "variable", None)) for n in nodes)
            bias = next((k for k in known if k in wanted), None)
            if bias is not None:
                found.add(bias)
                break
        else:
            return []
    return [p for p in thin if id(p) in found]


def settled_by_first_looks(forwards: Sequence[Forward]) -> Subspace | None:
    """What the first looks at the forwards of a step show together.

    Returns:
        The rows of the only forward that has any; None where one was left open, or where several have rows, which one direction
        has to serve.

    Raises:
        NotReproduced: inputs or parameters were overwritten since.
    """
    looks = [f.first_look for f in forwards]
    found = [x for x in looks if x is not None]
    if len(found) < len(looks) or sum(bool(x.layers) for x in found) > 1:
        return None
    for forward in forwards:
        forward.refuse_changes()
    with_rows = next((x for x in found if x.layers), found[0])
    return Subspace(with_rows.decision, with_rows.system, with_rows.layers, sum(x.dropped for x in found))
