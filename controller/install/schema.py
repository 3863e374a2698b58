"""The structural schema of a model; the docstrings of its fields are what `kubectl explain` shows."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, JsonSchemaValue
from pydantic_core import core_schema

from controller.api.schema.cel import VALIDATIONS, with_rules
from controller.api.schema.scalars import format_duration

Schema = dict[str, Any]


def descriptions_of(model: type[BaseModel]) -> Mapping[str, str]:
    """Read the docstring of each field of a model and of those it derives from, on one line each, by the field's name.

    Pydantic can read them too, but only whenever the model is imported: every start of a program would pay for it.
    """
    bases = (base for base in reversed(model.__mro__) if issubclass(base, BaseModel) and base is not BaseModel)
    return {name: text for base in bases for name, text in _field_docstrings(base)}


def _field_docstrings(model: type[BaseModel]) -> Iterator[tuple[str, str]]:
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(model))).body
    assert isinstance(definition, ast.ClassDef)
    for field, after in zip(definition.body, definition.body[1:], strict=False):
        match field, after:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                yield name, " ".join(text.split())


# What a JSONSchemaProps may have; the rest of what pydantic writes (titles, the refusal of other fields) is not for it.
_KNOWN = (
    "description",
    "type",
    "format",
    "nullable",
    "default",
    "enum",
    "pattern",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "pattern",
    "minItems",
    "maxItems",
    "maxProperties",
    "required",
    "properties",
    "additionalProperties",
    "items",
    "x-kubernetes-int-or-string",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-list-type",
    "x-kubernetes-map-type",
    "x-kubernetes-preserve-unknown-fields",
    VALIDATIONS,
)


def structural(model: type[BaseModel], *, mode: JsonSchemaMode = "validation") -> Schema:
    """Write the structural schema of a model: of what it takes, or ("serialization") of what it is written as."""
    schema = model.model_json_schema(by_alias=True, schema_generator=_Generator, mode=mode)
    return _inline(schema, schema.get("$defs", {}))


class _Generator(GenerateJsonSchema):
    """Pydantic's generator, but for what the API server sees differently."""

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        """Add a model's rules, and the descriptions of its fields."""
        model: type[BaseModel] = schema["cls"]
        written = super().model_schema(schema)
        texts = descriptions_of(model)
        for alias, field in written.get("properties", {}).items():
            if text := texts.get(_name_of(model, alias)):
                field["description"] = text + _default_in_words(field.get("default"))
        if model.model_config.get("extra") == "allow":
            written["x-kubernetes-preserve-unknown-fields"] = True
        if getattr(model, "atomic", False):
            written["x-kubernetes-map-type"] = "atomic"
        return with_rules(written, getattr(model, "cel", ()))

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        """Let a field that may be absent be just that: the API server takes null for absent."""
        return self.generate_inner(schema["schema"])

    def literal_schema(self, schema: core_schema.LiteralSchema) -> JsonSchemaValue:
        """List the one value where there is but one: `const` is not for the API server."""
        written = super().literal_schema(schema)
        if "const" in written:
            written["enum"] = [written.pop("const")]
        return written

    def dict_schema(self, schema: core_schema.DictSchema) -> JsonSchemaValue:
        """State the rules of a map's keys on the map: nothing else can say them."""
        written: Schema = {"type": "object", "additionalProperties": self.generate_inner(schema["values_schema"])}
        if "max_length" in schema:
            written["maxProperties"] = schema["max_length"]
        keys = self.generate_inner(schema["keys_schema"])
        if rules := keys.get(VALIDATIONS):
            written[VALIDATIONS] = [
                {**rule, "rule": f"self.all(key, {rule['rule'].replace('self', 'key')})"} for rule in rules
            ]
        return written

    def encode_default(self, dft: Any) -> Any:
        """Write a default as users would."""
        if isinstance(dft, timedelta):
            return format_duration(dft)
        # The defaults in it are given by its own schema.
        return {} if isinstance(dft, BaseModel) else super().encode_default(dft)


def _name_of(model: type[BaseModel], alias: str) -> str:
    return next((name for name, field in model.model_fields.items() if alias in (field.alias, name)), alias)


def _default_in_words(default: Any) -> str:
    """Write a default as a sentence: `kubectl explain` shows none."""
    if isinstance(default, bool):
        return f" Default: {str(default).lower()}."
    if isinstance(default, list | tuple) and default:
        return f" Default: {', '.join(map(str, default))}."
    return f" Default: {default}." if isinstance(default, int | float | str) and default != "" else ""


def _inline(schema: Schema, definitions: Mapping[str, Schema]) -> Schema:
    """Put every definition in its place, and leave out what the API server does not know."""
    if "$ref" in schema:
        definition = definitions[schema["$ref"].rpartition("/")[2]]
        schema = {**definition, **{key: value for key, value in schema.items() if key != "$ref"}}
    return dict(_fields(schema, definitions))


def _without_defaults(schema: Schema) -> Schema:
    """Fill in nothing inside a list: kubectl compares lists as a whole, and would find a change at every apply."""
    written = {key: value for key, value in schema.items() if key != "default"}
    if properties := schema.get("properties"):
        written["properties"] = {name: _without_defaults(one) for name, one in properties.items()}
    return written


def _fields(schema: Schema, definitions: Mapping[str, Schema]) -> Iterator[tuple[str, Any]]:
    for key in _KNOWN:
        match key, schema.get(key):
            case "properties", dict(properties):
                # The API server leaves out what is empty, and whoever applies the file again would find a change.
                if not properties:
                    continue
                yield key, {name: _inline(one, definitions) for name, one in properties.items()}
            case "items", dict(items):
                yield key, _without_defaults(_inline(items, definitions))
            case "additionalProperties", dict(values):
                yield key, _inline(values, definitions)
            case "additionalProperties", _:
                pass
            # Nothing in it is the same as its absence, but `{}` has defaults inside.
            case "default", "" | None | [] | ():
                pass
            case "default", {} if "properties" not in schema:
                pass
            case _, [] | None:
                pass
            case _, value:
                yield key, value
    if schema.get("type") == "array" and "x-kubernetes-list-type" not in schema:
        yield "x-kubernetes-list-type", "atomic"
