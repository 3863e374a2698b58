"""Label selectors, as Kubernetes has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from controller.api.base import ApiValue
from controller.api.errors import FieldFaultError
from controller.api.rules import Rule

Text = Annotated[str, Field(max_length=253)]
Values = Annotated[tuple[Text, ...], Field(max_length=64)]


class LabelSelectorRequirement(ApiValue):
    """One expression of a label selector."""

    cel: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!(self.operator in ['In', 'NotIn']) || has(self.values) && size(self.values) > 0",
            "must not be empty when operator is In or NotIn",
            ".values",
        ),
        Rule(
            "!(self.operator in ['Exists', 'DoesNotExist']) || !has(self.values) || size(self.values) == 0",
            "must be left out when operator is Exists or DoesNotExist",
            ".values",
        ),
    )

    key: Text
    """The label."""
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    """How the label must relate to the values."""
    values: Values = ()
    """The values, for In and NotIn."""

    @model_validator(mode="after")
    def _has_the_values_its_operator_needs(self) -> Self:
        if self.operator in ("In", "NotIn") and not self.values:
            raise FieldFaultError(("values",), "must not be empty when operator is In or NotIn")
        if self.operator in ("Exists", "DoesNotExist") and self.values:
            raise FieldFaultError(("values",), "must be left out when operator is Exists or DoesNotExist")
        return self


class LabelSelector(ApiValue):
    """A Kubernetes label selector: everything in it must hold.

    What else stands in it is a label written one level too high, as the original's documentation shows it.
    """

    model_config = ConfigDict(extra="allow")

    # The original's documentation leaves it empty, which a server-side apply takes for null.
    match_labels: Annotated[dict[str, str], Field(max_length=64, json_schema_extra={"nullable": True})] = {}
    """Labels and the values they must have."""
    match_expressions: Annotated[tuple[LabelSelectorRequirement, ...], Field(max_length=32)] = ()
    """Expressions that must hold."""

    @property
    def misplaced(self) -> Mapping[str, Any]:
        """What stands beside `matchLabels` and was meant to be in it."""
        return self.model_extra or {}
