"""The `beamlit` command, and the composition root: the only code that may import both programs."""
