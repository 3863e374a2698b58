"""How every API value is built: frozen, camelCase outside, unknown fields refused, faults told by field."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer, ValidationError
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails

from controller.api.errors import FieldError


class ApiValue(BaseModel):
    """A part of one of our own objects. A field that the schema does not know is an error, as in `kubectl apply`."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, validate_by_name=True, validate_by_alias=True
    )


class ForeignValue(BaseModel):
    """A part of an object that Kubernetes defines: we read what we need and leave the rest alone."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", alias_generator=to_camel, validate_by_name=True, validate_by_alias=True
    )


_DURATION = re.compile(
    r"(?:(?P<h>\d+(?:\.\d+)?)h)?(?:(?P<m>\d+(?:\.\d+)?)m)?(?:(?P<s>\d+(?:\.\d+)?)s)?(?:(?P<ms>\d+)ms)?"
)


def parse_duration(text: object) -> timedelta:
    """Parse what Kubernetes calls a Duration: `300ms`, `5s`, `1m30s`, `1.5h`."""
    if isinstance(text, timedelta):
        return text
    match = _DURATION.fullmatch(text) if isinstance(text, str) and text else None
    if match is None:
        raise ValueError(f'must be a duration such as "30s", "1m30s" or "500ms", is {text!r}')
    part = {unit: float(value or 0) for unit, value in match.groupdict().items()}
    return timedelta(hours=part["h"], minutes=part["m"], seconds=part["s"], milliseconds=part["ms"])


def format_duration(duration: timedelta) -> str:
    """Write a duration in the one form that `parse_duration` of any version reads: seconds, or milliseconds."""
    milliseconds = round(duration / timedelta(milliseconds=1))
    return f"{milliseconds // 1000}s" if milliseconds % 1000 == 0 else f"{milliseconds}ms"


Duration = Annotated[timedelta, BeforeValidator(parse_duration), PlainSerializer(format_duration, return_type=str)]

Value = TypeVar("Value", bound=BaseModel)


class InvalidObjectError(Exception):
    """An object that does not fit its schema; `errors` names every field at fault."""

    def __init__(self, errors: Sequence[FieldError]) -> None:
        super().__init__("; ".join(map(str, errors)))
        self.errors = tuple(errors)


def parse(schema: type[Value], raw: Mapping[str, Any]) -> Value:
    """Parse an object, or raise InvalidObjectError with every field at fault."""
    try:
        return schema.model_validate(raw)
    except ValidationError as error:
        raise InvalidObjectError([_field_error(details) for details in error.errors()]) from error


def _field_error(details: ErrorDetails) -> FieldError:
    # The location of a model validator's error ends where the model is; the words name the field.
    return FieldError(path=tuple(details["loc"]), message=_words(details))


def _words(details: ErrorDetails) -> str:
    given, limits = details["input"], details.get("ctx", {})
    match details["type"]:
        case "missing":
            return "is required"
        case "extra_forbidden":
            return "is not a known field"
        case "value_error":
            return str(limits["error"])
        case "greater_than_equal":
            return f"must be at least {limits['ge']}, is {given}"
        case "less_than_equal":
            return f"must be at most {limits['le']}, is {given}"
        case "enum" | "literal_error":
            return f"must be {limits['expected']}, is {given!r}"
        case "string_pattern_mismatch":
            return f"must match {limits['pattern']}, is {given!r}"
        case _:
            # The value itself stays out: it may be a secret under the wrong key.
            message = details["msg"].removeprefix("Input ")
            return f"{message[0].lower()}{message[1:]}, is {_JSON_TYPES.get(type(given), 'something else')}"


_JSON_TYPES: Mapping[type, str] = {
    dict: "an object",
    list: "a list",
    str: "a string",
    int: "a number",
    float: "a number",
    bool: "a boolean",
    type(None): "null",
}
