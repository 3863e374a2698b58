"""The metrics of `spec.offloadingConfig`: what is measured, over which series, and the target it is compared with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

from pydantic import ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel, to_snake

from controller.api.schema.cel import Rule
from controller.api.schema.errors import FieldFaultError
from controller.api.schema.http import CheckedPath
from controller.api.schema.scalars import PortNumberOrName, Quantity, WholeNumber, Window
from controller.api.schema.values import ApiValue

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


class SelectorTerm(NamedTuple):
    """One condition of a label selector."""

    key: str
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: tuple[str, ...] = ()

    def admits(self, labels: Mapping[str, str]) -> bool:
        """Say whether something with these labels meets it (Kubernetes documentation, "Labels and Selectors")."""
        match self.operator:
            case "In":
                return labels.get(self.key) in self.values
            case "NotIn":
                return labels.get(self.key) not in self.values
            case "Exists":
                return self.key in labels
        return self.key not in labels


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

    @property
    def terms(self) -> tuple[SelectorTerm, ...]:
        """All that must hold; a label that stands one level too high counts, too."""
        misplaced = {key: value for key, value in self.misplaced.items() if isinstance(value, str)}
        labels = {**misplaced, **self.match_labels}
        return (
            *(SelectorTerm(key, "In", (value,)) for key, value in labels.items()),
            *(SelectorTerm(one.key, one.operator, one.values) for one in self.match_expressions),
        )


_NUMBERS = {"Utilization": "averageUtilization", "Value": "value", "AverageValue": "averageValue"}


class MetricTarget(ApiValue):
    """What a metric is compared with: reached when measured at or over it."""

    cel: ClassVar[tuple[Rule, ...]] = tuple(
        Rule(f"self.type != '{type_}' || has(self.{field})", f"is required when type is {type_}", f".{field}")
        for type_, field in _NUMBERS.items()
    )

    type: Literal["Utilization", "Value", "AverageValue"]
    """How they compare: Utilization in percent of what the pods request, AverageValue for each pod, Value as it is."""
    average_utilization: Annotated[WholeNumber, Field(ge=1)] | None = None
    """The target when type is Utilization: percent of what the pods request."""
    average_value: Quantity | None = None
    """The target when type is AverageValue: a quantity for each pod, such as 500m."""
    value: Quantity | None = None
    """The target when type is Value: a quantity, such as 10."""

    @model_validator(mode="after")
    def _names_its_number(self) -> Self:
        given = {"Utilization": self.average_utilization, "Value": self.value, "AverageValue": self.average_value}
        if given[self.type] is None:
            raise FieldFaultError((_NUMBERS[self.type],), f"is required when type is {self.type}")
        return self


class MetricIdentifier(ApiValue):
    """The name of a custom or external metric, and which of its series count."""

    name: Annotated[str, Field(max_length=4096)]
    """The name of the metric."""
    selector: LabelSelector | None = None
    """Which series of the metric count. Default: all."""
    target: MetricTarget | None = None
    """The target, where the original's documentation has it by mistake: it belongs beside `metric`."""


class ObjectReference(ApiValue):
    """The object that a metric describes."""

    api_version: str = ""
    """The API version of the object."""
    kind: Text
    """The kind of the object."""
    name: Text
    """The name of the object."""


class ResourceMetric(ApiValue):
    """CPU or memory of the pods."""

    name: Text
    """The resource, such as cpu."""
    target: MetricTarget
    """The target."""


class ContainerResourceMetric(ApiValue):
    """CPU or memory of one container of the pods."""

    name: Text
    """The resource, such as cpu."""
    container: Text
    """The name of the container."""
    target: MetricTarget
    """The target."""


_ONE_TARGET = (
    Rule("has(self.target) || has(self.metric.target)", "is required", ".target"),
    Rule(
        "!has(self.target) || !has(self.metric.target)",
        "must be left out: the target stands beside metric already",
        ".metric.target",
    ),
)


class MetricByName(ApiValue):
    """A metric that is found by its name."""

    cel: ClassVar[tuple[Rule, ...]] = _ONE_TARGET

    metric: MetricIdentifier
    """The metric."""
    target: MetricTarget | None = None
    """The target."""
    window: Window | None = None
    """What the metric is an average, a rate or a maximum over; 0s for a number of one moment. Until so long after the
    share that leaves has changed, it tells of the share before, too. Default: what its source says; else the longest
    range of an expression of PromQL, or a minute where an adapter is asked that says nothing."""

    @model_validator(mode="after")
    def _has_one_target(self) -> Self:
        if self.target is None and self.metric.target is None:
            raise FieldFaultError(("target",), "is required")
        if self.target is not None and self.metric.target is not None:
            raise FieldFaultError(("metric", "target"), "must be left out: the target stands beside metric already")
        return self


class PodsMetric(MetricByName):
    """A custom metric of each pod."""


class ObjectMetric(MetricByName):
    """A custom metric of one object."""

    described_object: ObjectReference
    """The object that the metric describes."""


class ExternalMetric(MetricByName):
    """A metric of nothing in the cluster: the name of one, or an expression of PromQL where a Prometheus is asked."""


class RequestsMetric(ApiValue):
    """Requests in flight for each replica, from Envoy's load reports: nothing needs to be installed."""

    target: MetricTarget
    """The target."""


class ScrapeMetric(MetricByName):
    """A metric from the replicas' own Prometheus text.

    Its name is that of a gauge, or `queue` or `kv-cache`, which are found by whatever serves the model.
    """

    port: PortNumberOrName | None = None
    """The port of the pods that answers: a number, or the name of a port of a container. Default: the port that
    serves."""
    path: CheckedPath = "/metrics"
    """The path to ask for."""


_FIELDS = {
    type_: to_snake(type_)
    for type_ in ("Resource", "ContainerResource", "Pods", "Object", "External", "Requests", "Scrape")
}
"""By the type of a metric, the name of the field that holds it."""

Source = ResourceMetric | ContainerResourceMetric | MetricByName | RequestsMetric


class MetricSpec(ApiValue):
    """One metric and its target. The field that `type` names must be given, and no other."""

    cel: ClassVar[tuple[Rule, ...]] = tuple(
        rule
        for type_ in _FIELDS
        for field in [type_[0].lower() + type_[1:]]
        for rule in (
            Rule(f"self.type != '{type_}' || has(self.{field})", f"is required when type is {type_}", f".{field}"),
            Rule(
                f"self.type == '{type_}' || !has(self.{field})",
                f"must be left out when type is not {type_}",
                f".{field}",
            ),
        )
    )

    type: Literal["Resource", "ContainerResource", "Pods", "Object", "External", "Requests", "Scrape"]
    """The kind of the metric; it names the field that must be given."""
    resource: ResourceMetric | None = None
    """CPU or memory of the pods."""
    container_resource: ContainerResourceMetric | None = None
    """CPU or memory of one container of the pods."""
    pods: PodsMetric | None = None
    """A custom metric of each pod."""
    object: ObjectMetric | None = None
    """A custom metric of one object."""
    external: ExternalMetric | None = None
    """A metric of nothing in the cluster."""
    requests: RequestsMetric | None = None
    """Requests in flight for each replica, from Envoy's load reports."""
    scrape: ScrapeMetric | None = None
    """A gauge from the replicas' own Prometheus text: compared by its average over them, or by their sum."""

    @property
    def field(self) -> str:
        """The name of the field that `type` names."""
        return _FIELDS[self.type]

    @property
    def source(self) -> Source:
        """What that field holds."""
        source: Source = getattr(self, self.field)
        return source

    @property
    def target(self) -> MetricTarget:
        """The target, wherever it was written."""
        source = self.source
        target = source.target or (source.metric.target if isinstance(source, MetricByName) else None)
        assert target is not None, "a metric without a target is refused"
        return target

    @model_validator(mode="after")
    def _gives_what_its_type_names(self) -> Self:
        wanted = to_camel(self.field)
        given = self.model_dump(by_alias=True, exclude={"type"}, exclude_none=True)
        if wanted not in given:
            raise FieldFaultError((wanted,), f"is required when type is {self.type}")
        if others := sorted(given.keys() - {wanted}):
            raise FieldFaultError((others[0],), f"must be left out when type is {self.type}, which needs only {wanted}")
        return self
