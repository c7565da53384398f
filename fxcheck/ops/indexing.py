"""Selecting and writing entries by index or mask (theory 4.3: fixed ones are structure, others jump)."""

from __future__ import annotations

from dataclasses import replace

from fxcheck.ops.common import (
    CONSTANT,
    KEEP,
    LINEAR,
    PAD,
    all_constant,
    aten,
    breaking,
    discontinuous,
    refs_of,
    unknown,
)
from fxcheck.ops.registry import constant_semantics, semantics_for
from fxcheck.records.graph import Ref
from fxcheck.records.semantics import Call, Kind, OpSemantics

_MASKS = ("bool", "uint8")
_REPEATED = breaking("FX507", "where an index repeats, entries that are overwritten get gradient too")


def _moved(elementwise: bool = False) -> OpSemantics:
    return discontinuous("its index or mask depends on trainable parameters", code="FX404", elementwise=elementwise)


@semantics_for(
    *aten(
        "gather index_select index.Tensor index.Tensor_hacked_twin _unsafe_index.Tensor take take_along_dim "
        "masked_select"
    )
)
def read(call: Call) -> OpSemantics:
    return KEEP if all_constant(call, "index", "indices", "mask") else _moved()


def _may_repeat(call: Call, name: str) -> bool:
    """False for masks and for a single position; an integer index of several entries may repeat one."""
    entries = [call.shapes.get(r) for r in refs_of(call, name) if call.dtypes.get(r) not in _MASKS]
    return any(shape is None or any(size != 1 for size in shape) for shape in entries)


def _written(call: Call, index: str, source: str, semantics: OpSemantics = KEEP) -> OpSemantics:
    """Entries of ``self`` replaced by entries of ``source``."""
    if not all_constant(call, index):
        return _moved()
    return semantics if call.is_constant(source) or not _may_repeat(call, index) else _REPEATED


def _added(call: Call, index: str) -> OpSemantics:
    return LINEAR if all_constant(call, index) else _moved()


@semantics_for(*aten("index_put index_put.hacked_twin _unsafe_index_put _index_put_impl"))
def index_put(call: Call) -> OpSemantics:
    if call.arg("accumulate"):
        return _added(call, "indices")
    if not all_constant(call, "indices"):
        return _moved(elementwise=len(call.arg("indices") or ()) == 1)
    return _written(call, "indices", "values")


@semantics_for(*aten("put"))
def put(call: Call) -> OpSemantics:
    return _added(call, "index") if call.arg("accumulate") else _written(call, "index", "source")


@semantics_for(*aten("scatter.src"))
def scatter(call: Call) -> OpSemantics:
    return _written(call, "index", "src")


@semantics_for(*aten("index_copy"))
def index_copy(call: Call) -> OpSemantics:
    return _written(call, "index", "source")


@semantics_for(*aten("index_fill.int_Tensor"))
def index_fill(call: Call) -> OpSemantics:
    return _written(call, "index", "value")


@semantics_for(*aten("scatter.value index_fill.int_Scalar"))
def write_number(call: Call) -> OpSemantics:
    return PAD if all_constant(call, "index") else _moved()


@semantics_for(*aten("scatter_add index_add"))
def add_at(call: Call) -> OpSemantics:
    return _added(call, "index")


@semantics_for(*aten("scatter.reduce scatter.value_reduce scatter_reduce.two index_reduce"))
def reduce_at(call: Call) -> OpSemantics:
    """Sums and means are linear; how ties and products are differentiated varies by reduction."""
    if not all_constant(call, "index"):
        return _moved()
    return LINEAR if call.arg("reduce") in ("sum", "add", "mean") else unknown("a scatter that is not a sum or a mean")


@semantics_for(*aten("masked_scatter"))
def masked_scatter(call: Call) -> OpSemantics:
    return KEEP if call.is_constant("mask") else _moved()


@semantics_for(*aten("masked_fill.Scalar masked_fill.Tensor"))
def masked_fill(call: Call) -> OpSemantics:
    if not call.is_constant("mask"):
        return _moved(elementwise=True)
    return replace(KEEP if isinstance(call.arg("value"), Ref) else PAD, elementwise=True)


@semantics_for(*aten("where.self where.ScalarOther where.ScalarSelf where.Scalar"))
def where(call: Call) -> OpSemantics:
    """A fixed choice between entries; a negative number as one branch is not the zero that PAD stands for."""
    if not call.is_constant("condition"):
        return _moved(elementwise=True)
    numbers = [v for v in (call.arg("self"), call.arg("other")) if not isinstance(v, Ref)]
    if len(numbers) == 2:
        return CONSTANT
    if not numbers:
        return replace(KEEP, elementwise=True)
    at_least_zero = isinstance(numbers[0], (int, float)) and numbers[0] >= 0
    return replace(PAD if at_least_zero else OpSemantics(Kind.STRUCTURAL), elementwise=True)


constant_semantics(aten("segment_reduce"), unknown("its reduction may be a maximum with ties"))
