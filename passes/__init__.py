"""Graph passes, one per file, imported as ``fxcheck.passes``: some only look, others return a new graph."""
