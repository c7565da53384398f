"""One network before and after the gate."""
