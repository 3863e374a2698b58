"""How often clients may ask a model (`spec.rateLimit`), in the words of Envoy Gateway's BackendTrafficPolicy."""

from __future__ import annotations

from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from controller.api.contract.rate_limit import MAX_RATE_LIMITS, RateLimitKind, RateLimitUnit
from controller.api.schema.cel import Rule
from controller.api.schema.errors import FieldFaultError
from controller.api.schema.http import ClientHeaderName
from controller.api.schema.scalars import WholeNumber
from controller.api.schema.values import ApiValue

_HEADER_WITH_ITS_KIND = "must be given with per: Header, and only then"


class RateLimitValue(ApiValue):
    """So many requests in a unit of time."""

    requests: Annotated[WholeNumber, Field(ge=1)]
    """How many requests are let in during one unit. So many may come at once."""
    unit: RateLimitUnit
    """The unit of time."""


class RateLimitRule(ApiValue):
    """One limit, and what it is counted for. A request has to be within all of them."""

    cel: ClassVar[tuple[Rule, ...]] = (
        Rule("(has(self.per) && self.per == 'Header') == has(self.header)", _HEADER_WITH_ITS_KIND, ".header"),
    )

    per: RateLimitKind = "Model"
    """For what requests are counted: Model counts all of them together, ClientAddress those of each address that
    connects to the gateway, Header those of each value of the header `header`."""
    header: ClientHeaderName | None = None
    """The header that tells clients apart, such as x-api-key. Requests without it, and those whose value has more than
    512 characters, are counted together."""
    limit: RateLimitValue
    """How many requests are let in."""

    @model_validator(mode="after")
    def _has_the_header_that_it_counts_by(self) -> Self:
        if (self.per == "Header") != (self.header is not None):
            raise FieldFaultError(("header",), _HEADER_WITH_ITS_KIND)
        return self


class LocalRateLimit(ApiValue):
    """Limits that each Envoy keeps by itself: with N of them, clients may have N times as much."""

    rules: Annotated[tuple[RateLimitRule, ...], Field(max_length=MAX_RATE_LIMITS, json_schema_extra={"minItems": 1})]
    """The limits; a request has to be within all of them."""

    @model_validator(mode="after")
    def _has_a_rule(self) -> Self:
        if not self.rules:
            raise FieldFaultError(("rules",), "must have at least 1 of them, has 0")
        return self


class RateLimitSpec(ApiValue):
    """How often clients may ask a model. What is more is answered with 429 by the gateway, and sent nowhere."""

    local: LocalRateLimit
    """Limits that each Envoy keeps by itself: with N of them, clients may have N times as much."""
