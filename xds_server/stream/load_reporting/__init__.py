"""Load reporting (LRS)."""
