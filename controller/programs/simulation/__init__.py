"""Of what `beamlit simulate` is made: what it reads (`history`), what it plays (`replay`), what it shows (`shown`)."""
