"""What each ATen operator is (one file per family), the registry, and proxy measurement."""

from fxcheck.ops import bootstrap, pointwise

FAMILIES = (pointwise,)
"""Every family that fills the registry; written out, no discovery."""
