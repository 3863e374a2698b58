"""The `beamlit` command: it parses what is typed and prints what comes back; `controller.programs` do the work."""
