"""Writing files that others watch."""

from __future__ import annotations

from pathlib import Path


def write_at_once(file: Path, text: str) -> None:
    """Write a file so that nobody reads half of it."""
    partial = file.with_name(f".{file.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(file)
