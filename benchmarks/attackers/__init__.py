"""Who attacks a server in a benchmark."""
