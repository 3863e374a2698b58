"""How every API value is built: frozen, camelCase outside, unknown fields refused, errors that name the field."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from itertools import islice
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from controller.api.schema.errors import FieldError, FieldFaultError, InvalidObjectError, Path, field_error, models_in


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


# What is looked at once more for mistakes beside those that were found: each value costs a moment.
_MOST_LOOKED_AT = 20


def parse(schema: type[Value], raw: Mapping[str, Any]) -> Value:
    """Parse an object, or raise InvalidObjectError with every field at fault."""
    try:
        return schema.model_validate(raw, by_alias=True, by_name=False)
    except ValidationError as error:
        found = [field_error(schema, details) for details in error.errors()]
        at_fault = [one.path for one in found]
        above = {path[:depth] for path in at_fault for depth in range(len(path))}
        for model, given, path in islice(_parts_with_faults(schema, raw, (), above), _MOST_LOOKED_AT):
            bad = {one[len(path)] for one in at_fault if len(one) > len(path) and one[: len(path)] == path}
            found += (FieldError((*path, *one.path), one.message) for one in _faults_between_fields(model, given, bad))
        raise InvalidObjectError(found) from error


_Part = tuple[type[BaseModel], Mapping[str, Any], Path]


def _parts_with_faults(schema: Any, raw: Any, path: Path, above: Collection[Path]) -> Iterator[_Part]:
    """List the values `above` fields at fault, the outermost first: pydantic compares no fields of them."""
    if path not in above:
        return
    if isinstance(raw, list):
        for index, item in enumerate(raw):
            yield from _parts_with_faults(schema, item, (*path, index), above)
    elif isinstance(raw, Mapping) and (model := next(models_in(schema), None)):
        yield model, raw, path
        for name, field in model.model_fields.items():
            if (alias := field.alias or name) in raw:
                yield from _parts_with_faults(field.annotation, raw[alias], (*path, alias), above)


def _faults_between_fields(
    model: type[BaseModel], raw: Mapping[str, Any], bad: Collection[str | int]
) -> Iterator[FieldError]:
    """Compare the fields of a value with each other as its validators do, as far as they are not `bad`."""
    values: dict[str, Any] = {}
    unknown: list[str] = []
    for name, field in model.model_fields.items():
        given = raw.get(alias := field.alias or name)
        try:
            if alias in bad:
                unknown.append(name)
            elif given is not None:
                adapter = TypeAdapter[Any](field.rebuild_annotation())
                values[name] = adapter.validate_python(given, by_alias=True, by_name=False)
        except ValidationError:  # of several schemas that it may have, it has another one
            return
    part = model.model_construct(**values)
    for name in unknown:
        # Who looks at it gets an AttributeError, not its default.
        part.__dict__.pop(name, None)
    for name, validator in model.__pydantic_decorators__.model_validators.items():
        if validator.info.mode != "after":
            continue
        try:
            getattr(part, name)()
        except (AttributeError, AssertionError):
            continue
        except FieldFaultError as fault:
            if fault.path[0] not in bad:
                yield FieldError(fault.path, str(fault))
        except ValueError as fault:
            yield FieldError((), str(fault))
