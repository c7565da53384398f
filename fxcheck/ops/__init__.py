"""What each ATen operator is (one file per family), the registry, and proxy measurement.

Importing a family fills the registry; the families are written out below, there is no discovery.
"""

from fxcheck.ops import (  # noqa: F401
    arithmetic,
    attention,
    comparison,
    creation,
    gradient_breaking,
    indexing,
    linalg,
    linear,
    loss,
    maxima,
    normalization,
    norms,
    pointwise,
    pooling,
    recurrent,
    reduction,
    sampling,
    smooth,
    stochastic,
    structural,
)
