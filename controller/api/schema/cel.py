"""What the API server checks by itself: CEL rules, stated beside the validators that check the same in Python.

A custom resource's schema can say types, bounds and patterns; the rest are rules in CEL (Kubernetes documentation,
"Validation rules"). `self` is the value that a rule stands on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

VALIDATIONS = "x-kubernetes-validations"


@dataclass(frozen=True, slots=True)
class Rule:
    """A CEL expression that must hold, the message if it does not, and the field at fault (`.name`), if it is one.

    The message goes on where the name of the field ends: "must be ...", as those of a validator do.
    """

    expression: str
    message: str
    field: str = ""

    def as_object(self) -> dict[str, str]:
        """Return the rule as a schema has it."""
        rule = {"rule": self.expression, "message": self.message}
        return {**rule, "fieldPath": self.field} if self.field else rule


@dataclass(frozen=True, slots=True, init=False)
class CelRules:
    """CEL rules as the annotation of a type. Several annotations of one type add up."""

    rules: tuple[Rule, ...]

    def __init__(self, *rules: Rule) -> None:
        object.__setattr__(self, "rules", rules)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return with_rules(handler(schema), self.rules)


def with_rules(schema: dict[str, Any], rules: tuple[Rule, ...]) -> dict[str, Any]:
    """Add rules to a schema."""
    return {**schema, VALIDATIONS: [*schema.get(VALIDATIONS, ()), *(rule.as_object() for rule in rules)]}


def matches(pattern: str) -> str:
    """Write the CEL expression that `self` as a whole has the form of a regular expression (RE2)."""
    return f'self.matches(r"^({pattern})$")'
