"""ModelDeployment (`deployment.beamlit.com/v1alpha1`): the object as users write it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from controller.api.kubernetes.objects import ObjectMeta
from controller.api.resources.backend import RemoteBackend
from controller.api.resources.entrance import JwtSpec, TlsSpec
from controller.api.resources.metrics import MetricSpec
from controller.api.resources.rate_limit import RateLimitSpec
from controller.api.resources.references import PolicyReference, PortReference, Reference
from controller.api.schema.cel import CelRules, Rule
from controller.api.schema.errors import FieldFaultError
from controller.api.schema.scalars import (
    Duration,
    Flag,
    Interval,
    Number,
    Percent,
    Port,
    Quantity,
    Shape,
    WholeNumber,
)
from controller.api.schema.values import ApiValue

# Annotations of a ModelDeployment: `"true"` holds the split, `"remote=30 until=2027-01-01T00:00:00Z"` sets it.
PAUSED = "beamlit.com/paused"
OVERRIDE = "beamlit.com/override"

FRONTEND = "Gateway"
"""How clients reach Envoy where nothing leads them there: they call it themselves."""

TAKEOVER = "Takeover"
"""How they do when their Service leads them there."""

# Also what registries of models use, such as meta-llama/Llama-3.1-8B or llama3:8b. All of it may stand in a path, and
# no part of it leads out of one, as ".." does.
_PART = "[A-Za-z0-9]([A-Za-z0-9._:@+-]*[A-Za-z0-9])?"
ModelName = Annotated[
    str,
    Field(max_length=253),
    Shape(
        f"{_PART}(/{_PART})*",
        "letters and digits, with '.', '_', '-', ':', '@' or '+' between them, in parts with '/' between them",
    ),
]


# As the name of an IngressClass, but shorter.
ControllerClass = Annotated[
    str,
    Field(max_length=63),
    Shape(r"([a-z0-9]([-a-z0-9]*[a-z0-9])?)?", "a class: lower case letters, digits and '-'"),
]


def class_of(raw: Mapping[str, Any]) -> str:
    """Read the class that a stored object asks for, also in one that cannot be read else; empty for none."""
    spec = raw.get("spec")
    return str(spec.get("controllerClass") or "") if isinstance(spec, Mapping) else ""


class ServerlessConfig(ApiValue):
    """How the platform scales the remote deployment."""

    min_num_replicas: Annotated[WholeNumber, Field(ge=0)] = 0
    """The smallest number of replicas."""
    max_num_replicas: Annotated[WholeNumber, Field(ge=0)] = 10
    """The largest number of replicas."""
    metric: str | None = None
    """The metric by which the number is chosen."""
    target: Quantity | None = None
    """The target of the metric."""
    scale_up_minimum: Annotated[WholeNumber, Field(ge=2)] | None = None
    """The number of replicas to start with when there was none."""
    scale_down_delay: str | None = None
    """How long to wait before the number is made smaller."""
    stable_window: str | None = None
    """The time over which the metric is averaged."""
    last_pod_retention_period: str | None = None
    """How long the last replica is kept."""


def _check_tolerance(tolerance: float) -> float:
    if tolerance >= 1:
        raise ValueError("must be below 1")
    return tolerance


# Nothing is below the target by all of it, so no request would return. A bound of the schema that is no whole number
# is told as one by the API server.
Tolerance = Annotated[
    Number, Field(ge=0, le=1), AfterValidator(_check_tolerance), CelRules(Rule("self < 1.0", "must be below 1"))
]


class Behavior(ApiValue):
    """How much is offloaded, and when traffic leaves and returns."""

    percentage: Percent = 100
    """The share of the requests, in percent, that is offloaded while a metric is at or over its target."""
    mode: Literal["Threshold", "Proportional", "Shadow"] = "Threshold"
    """How the share is chosen: Threshold sends `percentage` while a metric is at or over its target, Proportional as
    much as brings the metric back to its target, Shadow sends nothing and only says what Threshold would do."""
    max_requests_per_replica: Annotated[WholeNumber, Field(ge=1)] | None = None
    """How many requests in flight one replica serves well. What is more goes to the remote backend, request by
    request. Default: no limit."""
    offload_after: Duration = timedelta(0)
    """How long a metric must be at or over its target before requests leave."""
    restore_after: Duration = timedelta(seconds=60)
    """How long the demand that would come back must be below the target before requests return. With Proportional less
    leaves after a quarter of it, a part at a time, and all is back after the whole at the earliest."""
    recover_after: Duration = timedelta(seconds=5)
    """How long replicas that are ready again take to get all of their traffic back, in steps."""
    tolerance: Tolerance = 0.1
    """How far below its target a metric must be to count as clear, as a fraction of the target."""
    max_step: Annotated[Percent, Field(ge=1)] | None = None
    """The largest increase of the share in one second, in percent, when mode is Proportional. What was not used counts
    for the next increase; what returns is not bounded by it. Default: no limit."""
    step_interval: Interval = timedelta(seconds=1)
    """The time between two steps of the share."""
    on_unknown: Literal["Hold", "Local", "Remote"] = "Hold"
    """What becomes of the traffic that has left when no metric can be read: Hold keeps the share, Local brings
    everything back, Remote sends `percentage`."""
    first_byte_timeout: Interval | None = None
    """How long a replica may take to its first byte before the request is offloaded. Default: no limit."""


# Pydantic's own lower bound also complains of a list whose items have faults: it counts what is left of it.
_AT_LEAST_ONE = Field(max_length=8, json_schema_extra={"minItems": 1})
_ONE_OR_MANY = "must be left out when remoteBackend is given: write all backends in remoteBackends"


class OffloadingConfig(ApiValue):
    """When to offload and where to."""

    cel: ClassVar[tuple[Rule, ...]] = (
        Rule("!has(self.remoteBackend) || !has(self.remoteBackends)", _ONE_OR_MANY, ".remoteBackends"),
    )

    behavior: Behavior = Behavior()
    """How much is offloaded, and when traffic leaves and returns."""
    metrics: Annotated[tuple[MetricSpec, ...], Field(max_length=32)] = ()
    """The metrics that start offloading: any one at or over its target is enough, and all must be clear to end it.
    Without any, traffic leaves only when no replica is ready."""
    remote_backend: RemoteBackend | None = None
    """Where traffic goes when it leaves. Default: defaultRemoteBackend of the controller's configuration."""
    remote_backends: Annotated[tuple[RemoteBackend, ...], _AT_LEAST_ONE] | None = None
    """Several backends, in the order in which they are tried. In place of remoteBackend."""

    @property
    def backends(self) -> tuple[RemoteBackend, ...]:
        """The backends of its own, in order; none if the default one serves."""
        return self.remote_backends or ((self.remote_backend,) if self.remote_backend else ())

    @model_validator(mode="after")
    def _has_backends_that_can_be_used(self) -> Self:
        if self.remote_backend is not None and self.remote_backends is not None:
            raise FieldFaultError(("remoteBackends",), _ONE_OR_MANY)
        if self.remote_backends == ():
            raise FieldFaultError(("remoteBackends",), "must have at least 1 of them, has 0")
        for index, backend in enumerate(self.backends):
            where = ("remoteBackend",) if self.remote_backend else ("remoteBackends", index)
            oauth = backend.auth_config.oauth_config if backend.auth_config else None
            for fault in oauth.faults() if oauth else ():
                raise FieldFaultError((*where, "authConfig", "oauthConfig", *fault.path), str(fault))
        return self


class GatewayService(ApiValue):
    """A Service that is made for the model at the gateway: a name by which clients call it."""

    name: Annotated[
        str,
        Field(max_length=63),
        Shape(
            r"[a-z]([-a-z0-9]*[a-z0-9])?", "the name of a Service: a letter, then lower case letters, digits and '-'"
        ),
    ]
    """The name of the Service, in the namespace of this ModelDeployment. One that is there already is left alone."""


_GATEWAY_ONLY = "needs frontend: Gateway; with Takeover clients call their own Service"
_TLS_GATEWAY_ONLY = (
    "needs frontend: Gateway; with Takeover clients call their own Service, and its pods whenever it is given back"
)
_JWT_OVER_TLS = "needs tls: whoever reads a token on its way may use it"


class ModelDeploymentSpec(ApiValue):
    """What a model is, which Service it fronts, and when and where its requests are offloaded."""

    cel: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.gatewayService) || (has(self.frontend) && self.frontend == 'Gateway')",
            _GATEWAY_ONLY,
            ".gatewayService",
        ),
        Rule("!has(self.tls) || (has(self.frontend) && self.frontend == 'Gateway')", _TLS_GATEWAY_ONLY, ".tls"),
        Rule("!has(self.jwt) || has(self.tls)", _JWT_OVER_TLS, ".jwt"),
    )

    model: ModelName
    """The name of the model, on the platform and as $model in path prefixes."""
    enabled: Flag = True
    """Whether requests may leave the cluster, and the Service be taken over. If false, every request stays local."""
    environment: Annotated[str, Field(max_length=253)] = "production"
    """The environment of the model on the platform, such as production or development."""
    controller_class: ControllerClass = ""
    """The class of the controller that serves this model: its option --controller-class. Without it, the controller
    without a class does."""
    model_source_ref: Reference
    """The workload whose pods run the model: a Deployment or StatefulSet."""
    service_ref: PortReference | None = None
    """The Service that clients use, and the port of it that is offloaded. Without it, nothing is served."""
    metric_service_ref: PortReference | None = None
    """The Service that tells the model's metrics."""
    policies: Annotated[tuple[PolicyReference, ...], Field(max_length=64)] = ()
    """The policies that say where requests may go."""
    serverless_config: ServerlessConfig | None = None
    """How the platform scales the remote deployment."""
    offloading_config: OffloadingConfig | None = None
    """When to offload and where to. Without it, every request stays local."""
    rate_limit: RateLimitSpec | None = None
    """How often clients may ask the model. What is more is answered with 429 by the gateway. Default: no limit."""
    tls: TlsSpec | None = None
    """TLS between clients and the gateway, with frontend: Gateway. The gateway then takes nothing else for this model.
    Default: HTTP without TLS."""
    jwt: JwtSpec | None = None
    """Which tokens clients have to show. It needs tls. Default: none."""
    frontend: Literal["Takeover", "Gateway", "Sidecar"] | None = None
    """How clients reach Envoy: Takeover keeps their Service and puts Envoy behind it, Gateway has them call the
    gateway's Service on the port in status.servingPort, Sidecar puts Envoy into the clients' pods.
    Default: Takeover, in a cluster whose controller knows its gateway. Sidecar is not there yet; status.frontend says
    what is in force, and the condition Fronted why."""
    serving_port: Port | None = None
    """The port of the gateway that this model is served on, so that it has the same one when it is created again. In a
    cluster one of 10000 to 29999. Who comes first has it. Default: the next that is free, or in a folder that of the
    Service."""
    gateway_service: GatewayService | None = None
    """A Service that the controller makes for this model, and that leads clients to the gateway, from its port 80, with
    frontend: Gateway. It goes with this object."""

    @model_validator(mode="after")
    def _is_called_at_the_gateway_where_it_has_to_be(self) -> Self:
        if self.gateway_service is not None and self.frontend != "Gateway":
            raise FieldFaultError(("gatewayService",), _GATEWAY_ONLY)
        if self.tls is not None and self.frontend != "Gateway":
            raise FieldFaultError(("tls",), _TLS_GATEWAY_ONLY)
        if self.jwt is not None and self.tls is None:
            raise FieldFaultError(("jwt",), _JWT_OVER_TLS)
        return self


class ModelDeployment(ApiValue):
    """A model that is served in the cluster, and what becomes of its requests when it cannot serve them."""

    api_version: Literal["deployment.beamlit.com/v1alpha1"] = "deployment.beamlit.com/v1alpha1"
    kind: Literal["ModelDeployment"] = "ModelDeployment"
    metadata: ObjectMeta
    spec: ModelDeploymentSpec
    # The controller's to write: left alone here.
    status: Annotated[Any, Field(exclude=True)] = None
