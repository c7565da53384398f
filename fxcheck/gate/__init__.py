"""The CI gate: configuration, baseline and ignores; from reports to what counts against a model."""
