"""How often clients may ask, as a route says it."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from controller.api.schema.errors import FieldFaultError
from controller.api.schema.scalars import Shape
from controller.api.schema.values import ForeignValue

MAX_RATE_LIMITS = 4
"""So many limits one object may have: each is asked at each request, and remembers clients."""

RateLimitUnit = Literal["Second", "Minute", "Hour"]
RateLimitKind = Literal["Model", "ClientAddress", "Header"]


class RouteRateLimit(ForeignValue):
    """One limit of an object: `requests` in a `unit` of time.

    They are counted for all clients together (`Model`), for each address (`ClientAddress`), or for each value of the
    header `header`, whose name is in lower case (`Header`).
    """

    requests: Annotated[int, Field(ge=1, le=2**31 - 1)]
    unit: RateLimitUnit
    per: RateLimitKind = "Model"
    # It becomes a part of an expression: nothing else may stand in it.
    header: Annotated[str, Field(max_length=64), Shape(r"[a-z0-9-]+", "a header in lower case")] | None = None

    @model_validator(mode="after")
    def _has_the_header_that_it_counts_by(self) -> Self:
        if (self.per == "Header") != (self.header is not None):
            raise FieldFaultError(("header",), "must be given with per: Header, and only then")
        return self
