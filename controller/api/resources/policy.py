"""Policy (`authorization.beamlit.com/v1alpha1`): where the requests of a model may go."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from controller.api.kubernetes.objects import ObjectMeta
from controller.api.schema.cel import Rule
from controller.api.schema.errors import FieldFaultError
from controller.api.schema.scalars import Time
from controller.api.schema.values import ApiValue, ForeignValue

Name = Annotated[str, Field(max_length=253)]


class PolicyLocation(ApiValue):
    """A place that is allowed."""

    type: Literal["location", "country", "continent"]
    """The kind of place: a location of the platform, a country or a continent."""
    name: Name
    """The name of the place, such as us or eu."""


class PolicyFlavor(ApiValue):
    """A kind of machine that is allowed."""

    type: Name
    """The kind of the flavor, such as gpu or cpu."""
    name: Name
    """The name of the flavor, such as t4."""


class PolicySpec(ApiValue):
    """Where the requests of the models that this policy is attached to may go."""

    cel: ClassVar[tuple[Rule, ...]] = (
        Rule("self.type != 'location' || has(self.locations)", "is required when type is location", ".locations"),
    )

    display_name: str = ""
    """The name that the platform shows."""
    type: Literal["location", "flavor"]
    """What is limited: location, the places, or flavor, the kinds of machines."""
    locations: Annotated[tuple[PolicyLocation, ...], Field(max_length=256)] | None = None
    """The places that are allowed."""
    flavors: Annotated[tuple[PolicyFlavor, ...], Field(max_length=256)] = ()
    """The kinds of machines that are allowed. Default: all."""

    @model_validator(mode="after")
    def _names_places_if_it_is_about_places(self) -> Self:
        if self.type == "location" and self.locations is None:
            raise FieldFaultError(("locations",), "is required when type is location")
        return self


class PolicyStatus(ForeignValue):
    """What the platform knows of this policy."""

    created_at_on_beamlit: Time | None = None
    """When it was created on the platform."""
    updated_at_on_beamlit: Time | None = None
    """When it was last changed on the platform."""
    workspace: str | None = None
    """The workspace on the platform."""


class Policy(ApiValue):
    """A rule for where the requests of models may go; spec.policies of a ModelDeployment names it."""

    api_version: Literal["authorization.beamlit.com/v1alpha1"] = "authorization.beamlit.com/v1alpha1"
    kind: Literal["Policy"] = "Policy"
    metadata: ObjectMeta
    spec: PolicySpec
    # The controller's to write: left alone here.
    status: Annotated[Any, Field(exclude=True)] = None
