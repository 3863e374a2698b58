"""The metrics that trigger offloading: `autoscaling/v2` MetricSpec, and two of our own that need nothing installed."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator
from pydantic.alias_generators import to_camel

from controller.api.base import ApiValue
from controller.api.errors import FieldFaultError
from controller.api.scalars import PortReferred, Quantity, WholeNumber


class MetricTarget(ApiValue):
    """What a metric is compared with."""

    type: Literal["Utilization", "Value", "AverageValue"]
    average_utilization: Annotated[WholeNumber, Field(ge=1)] | None = None
    average_value: Quantity | None = None
    value: Quantity | None = None

    @model_validator(mode="after")
    def _names_its_number(self) -> Self:
        wanted = {"Utilization": "average_utilization", "Value": "value", "AverageValue": "average_value"}[self.type]
        if getattr(self, wanted) is None:
            raise FieldFaultError((to_camel(wanted),), f"is required when type is {self.type}")
        return self


class LabelSelectorRequirement(ApiValue):
    """One expression of a label selector."""

    key: str
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: tuple[str, ...] = ()


class LabelSelector(ApiValue):
    """A Kubernetes label selector."""

    match_labels: dict[str, str] = {}
    match_expressions: tuple[LabelSelectorRequirement, ...] = ()


class MetricIdentifier(ApiValue):
    """The name of a custom or external metric, and which of its series count."""

    name: str
    selector: LabelSelector | None = None


class ObjectReference(ApiValue):
    """The object that a metric describes."""

    api_version: str = ""
    kind: str
    name: str


class ResourceMetric(ApiValue):
    """CPU or memory of the pods."""

    name: str
    target: MetricTarget


class ContainerResourceMetric(ApiValue):
    """CPU or memory of one container of the pods."""

    name: str
    container: str
    target: MetricTarget


class PodsMetric(ApiValue):
    """A custom metric of each pod."""

    metric: MetricIdentifier
    target: MetricTarget


class ObjectMetric(ApiValue):
    """A custom metric of one object."""

    described_object: ObjectReference
    metric: MetricIdentifier
    target: MetricTarget


class ExternalMetric(ApiValue):
    """A metric of nothing in the cluster."""

    metric: MetricIdentifier
    target: MetricTarget


class RequestsMetric(ApiValue):
    """Requests in flight per replica, from Envoy's load reports."""

    target: MetricTarget


class ScrapeMetric(ApiValue):
    """A metric from the replicas' own Prometheus text, averaged over the replicas."""

    port: PortReferred
    path: str = "/metrics"
    metric: MetricIdentifier
    target: MetricTarget


class MetricSpec(ApiValue):
    """One metric and its target; the field that `type` names must be given, and no other."""

    type: Literal["Resource", "ContainerResource", "Pods", "Object", "External", "Requests", "Scrape"]
    resource: ResourceMetric | None = None
    container_resource: ContainerResourceMetric | None = None
    pods: PodsMetric | None = None
    object: ObjectMetric | None = None
    external: ExternalMetric | None = None
    requests: RequestsMetric | None = None
    scrape: ScrapeMetric | None = None

    @model_validator(mode="after")
    def _gives_what_its_type_names(self) -> Self:
        wanted = self.type[0].lower() + self.type[1:]
        given = self.model_dump(by_alias=True, exclude={"type"}, exclude_none=True)
        if wanted not in given:
            raise FieldFaultError((wanted,), f"is required when type is {self.type}")
        if others := sorted(given.keys() - {wanted}):
            raise FieldFaultError((others[0],), f"must be left out when type is {self.type}, which needs only {wanted}")
        return self
