"""What is wrong with a field, in words that say what to write instead.

They quote a value only where it cannot be a secret under the wrong key: where the schema lists the choices or bounds a
number.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel
from pydantic_core import ErrorDetails

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


_MUST_BE: Mapping[str, str] = {
    "model_type": "an object",
    "model_attributes_type": "an object",
    "dict_type": "an object",
    "tuple_type": "a list",
    "list_type": "a list",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "datetime_type": "a time such as 2026-01-01T00:00:00Z",
    "datetime_parsing": "a time such as 2026-01-01T00:00:00Z",
    "datetime_from_date_parsing": "a time such as 2026-01-01T00:00:00Z",
}

_JSON_TYPES: Mapping[type, str] = {
    dict: "an object",
    list: "a list",
    str: "a string",
    int: "a number",
    float: "a number",
    bool: "a boolean",
    type(None): "null",
}


def field_error(schema: type[BaseModel], details: ErrorDetails) -> FieldError:
    """Describe one fault of an object of this schema, as pydantic reports it."""
    # The key of a map that is at fault is followed by a step of pydantic's own.
    path = tuple(step for step in details["loc"] if step != "[key]")
    fault = details.get("ctx", {}).get("error")
    if isinstance(fault, FieldFaultError):
        return FieldError((*path, *fault.path), str(fault))
    if details["type"] == "extra_forbidden":
        return FieldError(path, _unknown_field(str(path[-1]), _fields_at(schema, path[:-1])))
    return FieldError(path, _words(details))


def type_name(value: object) -> str:
    """Name the JSON type of a value."""
    return _JSON_TYPES.get(type(value), "something else")


def _words(details: ErrorDetails) -> str:
    given, limits = details["input"], details.get("ctx", {})
    if wanted := _MUST_BE.get(details["type"]):
        return f"must be {wanted}, is {type_name(given)}"
    match details["type"]:
        case "missing":
            return "is required"
        case "value_error":
            return str(limits["error"])
        case "greater_than_equal":
            return f"must be at least {limits['ge']}, is {given}"
        case "less_than_equal":
            return f"must be at most {limits['le']}, is {given}"
        case "enum" | "literal_error":
            return f"must be {limits['expected']}, is {given!r}"
        case "string_type":
            hint = ", write it in quotes" if isinstance(given, bool | int | float) else ""
            return f"must be a string, is {type_name(given)}{hint}"
        case "string_too_short":
            return "must not be empty"
        case "string_too_long":
            return f"must have at most {limits['max_length']} characters, has {len(given)}"
        case "too_short":
            return f"must have at least {limits['min_length']} of them, has {limits['actual_length']}"
        case "too_long":
            return f"must have at most {limits['max_length']} of them, has {limits['actual_length'] or 'more'}"
        case _:
            message = details["msg"].removeprefix("Input ")
            return f"{message[0].lower()}{message[1:]}, is {type_name(given)}"


def _unknown_field(name: str, known: Sequence[str]) -> str:
    if meant := difflib.get_close_matches(name, known, n=1):
        return f"is not a known field; is {meant[0]} meant?"
    return f"is not a known field; known are {', '.join(known)}" if known else "is not a known field"


def _fields_at(schema: type[BaseModel], path: Sequence[str | int]) -> Sequence[str]:
    """List the fields that the value at `path` may have."""
    here: type[BaseModel] | None = schema
    for step in path:
        if isinstance(step, int) or here is None:
            continue
        field = next((one for name, one in here.model_fields.items() if step in (name, one.alias)), None)
        here = next(models_in(field.annotation), None) if field else None
    return [one.alias or name for name, one in here.model_fields.items()] if here else []


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Find the models in `Model`, `Model | None` or `tuple[Model, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from models_in(inner)
