"""What is wrong with a field of an object, in words that name the field."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class FieldError:
    """One fault: `path` leads from the object's root to the field (keys and list indices)."""

    path: Path
    message: str

    @property
    def dotted(self) -> str:
        """The path as kubectl writes it: `spec.metrics[0].type`."""
        text = ""
        for step in self.path:
            if isinstance(step, int):
                text += f"[{step}]"
            else:
                text += f".{step}" if text else step
        return text

    def __str__(self) -> str:
        return f"{self.dotted}: {self.message}" if self.path else self.message


class FieldFaultError(ValueError):
    """What the validator of a whole value raises: which of its fields is at fault, seen from that value."""

    def __init__(self, path: Path, message: str) -> None:
        super().__init__(message)
        self.path = path


class InvalidObjectError(Exception):
    """An object that does not fit its schema; `errors` names every field at fault."""

    def __init__(self, errors: Sequence[FieldError]) -> None:
        super().__init__("; ".join(map(str, errors)))
        self.errors = tuple(errors)
