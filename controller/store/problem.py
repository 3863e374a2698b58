"""What is wrong with a file, told so that an editor can jump there."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One fault: the file relative to the folder, its line (from 1), the field (empty for the whole) and the words."""

    file: str
    line: int
    field: str
    message: str

    def __str__(self) -> str:
        what = f"{self.field}: {self.message}" if self.field else self.message
        return f"{self.file}:{self.line}: {what}"
