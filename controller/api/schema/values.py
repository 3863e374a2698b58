"""How every API value is built: frozen, camelCase outside, unknown fields refused, errors that name the field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from controller.api.schema.errors import InvalidObjectError, field_error


class _Value(BaseModel):
    # What was given may hold a secret: it stays out of pydantic's own messages, which end up in tracebacks.
    model_config = ConfigDict(
        frozen=True,
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        hide_input_in_errors=True,
    )

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, given: Any) -> Any:
        """Leave out what is null, as the API server does before it fills in defaults."""
        if isinstance(given, Mapping) and None in given.values():
            return {name: value for name, value in given.items() if value is not None}
        return given


class ApiValue(_Value):
    """A part of one of our own objects. A field that the schema does not know is an error, as in `kubectl apply`."""

    model_config = ConfigDict(extra="forbid")


class ForeignValue(_Value):
    """A part of what others write: Kubernetes, or another version of ours. What we do not know is left alone."""

    model_config = ConfigDict(extra="ignore")


Value = TypeVar("Value", bound=BaseModel)


def parse(schema: type[Value], raw: Mapping[str, Any]) -> Value:
    """Parse an object, or raise InvalidObjectError with every field at fault."""
    try:
        return schema.model_validate(raw, by_alias=True, by_name=False)
    except ValidationError as error:
        raise InvalidObjectError([field_error(schema, details) for details in error.errors()]) from error
