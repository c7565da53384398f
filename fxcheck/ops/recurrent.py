"""Recurrent layers as one operator (theory 4.6: with a ReLU inside, later steps have no fresh parameters).

Those with a ReLU come from archives and from devices with fused kernels; ``capture.unroll`` opens the others.
"""

from __future__ import annotations

from fxcheck.ops.common import SMOOTH, aten
from fxcheck.ops.registry import constant_semantics
from fxcheck.records.semantics import Kind, OpSemantics

constant_semantics(
    aten("lstm.input lstm.data gru.input gru.data rnn_tanh.input rnn_tanh.data lstm_cell gru_cell rnn_tanh_cell"),
    SMOOTH,
)
constant_semantics(
    aten("rnn_relu.input rnn_relu.data"),
    OpSemantics(Kind.SHARED_WEIGHTS, note="a ReLU at every time step, with the same weights"),
)
constant_semantics(
    aten("rnn_relu_cell"), OpSemantics(Kind.SHARED_WEIGHTS, note="its ReLU is hidden inside the operator")
)
