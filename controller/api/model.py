"""ModelDeployment (`deployment.beamlit.com/v1alpha1`): the spec as users write it."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, field_validator

from controller.api.base import ApiValue, Duration
from controller.api.errors import FieldFaultError
from controller.api.meta import ObjectMeta
from controller.api.metrics import MetricSpec
from controller.api.scalars import Flag, Interval, Percent, PortReferred, Quantity, Shape, WholeNumber

API_VERSION = "deployment.beamlit.com/v1alpha1"
KIND = "ModelDeployment"

ModelName = Annotated[
    str,
    Field(max_length=253),
    Shape(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", "letters and digits, with '.', '_' or '-' between them"),
]
# What RFC 9110 calls a token, but without "%", which begins a substitution in Envoy.
HeaderName = Annotated[
    str, Field(max_length=256), Shape(r"[!#$&'*+.^_`|~0-9A-Za-z-]+", "the name of a header, without spaces, ':' or '%'")
]
HeaderValue = Annotated[str, Field(max_length=8000), Shape(r"[^\r\n\x00]*", "the value of a header, on one line")]
# RFC 9110, section 7.6.1, and what frames a message.
_OF_THE_CONNECTION = frozenset(
    ("connection", "content-length", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade")
)

Authority = Annotated[
    str,
    Field(max_length=260),
    Shape(
        r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?",
        "a host or host:port, such as models.example.com:8080 or [::1]:80, without a scheme or a path",
    ),
]
UrlPath = Annotated[
    str, Field(max_length=2048), Shape(r"(/[A-Za-z0-9._~!$&'()*+,;=:@%/-]*)?", "a path such as /v1, without a query")
]
CheckedPath = Annotated[
    str, Field(max_length=2048), Shape(r"/[A-Za-z0-9._~!$&'()*+,;=:@%/?-]*", "a path such as /healthz")
]


class Reference(ApiValue):
    """A Kubernetes ObjectReference. An absent namespace means the namespace of the object that refers."""

    api_version: str = ""
    kind: str = ""
    name: Annotated[str, Field(min_length=1)]
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    field_path: str = ""


class PortReference(Reference):
    """A reference to a Service and one port of it."""

    target_port: PortReferred | None = None


class PolicyReference(ApiValue):
    """A policy that applies to the model."""

    ref_type: Literal["localPolicy", "remotePolicy"]
    name: Annotated[str, Field(min_length=1)]
    namespace: str = ""


class ServerlessConfig(ApiValue):
    """How the platform scales the remote deployment."""

    min_num_replicas: Annotated[WholeNumber, Field(ge=0)] = 0
    max_num_replicas: Annotated[WholeNumber, Field(ge=0)] = 10
    metric: str | None = None
    target: Quantity | None = None
    scale_up_minimum: Annotated[WholeNumber, Field(ge=2)] | None = None
    scale_down_delay: str | None = None
    stable_window: str | None = None
    last_pod_retention_period: str | None = None


class Behavior(ApiValue):
    """How much is offloaded, and when traffic leaves and returns."""

    percentage: Percent = 100
    mode: Literal["Threshold", "Proportional", "Shadow"] = "Threshold"
    max_requests_per_replica: Annotated[WholeNumber, Field(ge=1)] | None = None
    offload_after: Duration = timedelta(0)
    restore_after: Duration = timedelta(seconds=60)
    recover_after: Duration = timedelta(seconds=5)
    tolerance: Annotated[float, Field(ge=0, le=1)] = 0.1
    max_step: Percent | None = None
    step_interval: Interval = timedelta(seconds=1)
    on_unknown: Literal["Hold", "Local", "Remote"] = "Hold"
    first_byte_timeout: Interval | None = None


class SecretKeyReference(ApiValue):
    """A key of a Secret in the object's own namespace."""

    name: Annotated[str, Field(min_length=1)]
    key: str | None = None


class OAuthConfig(ApiValue):
    """OAuth2 client credentials (RFC 6749, section 4.4)."""

    client_id: str = ""
    client_secret: SecretStr = SecretStr("")
    client_secret_ref: SecretKeyReference | None = None
    token_url: str = ""
    scopes: tuple[str, ...] = ()


class ApiKey(ApiValue):
    """A fixed credential, sent in a header."""

    secret_ref: SecretKeyReference
    header: HeaderName = "Authorization"


class AuthConfig(ApiValue):
    """How a remote backend knows us."""

    type: Literal["oauth", "apiKey"]
    oauth_config: OAuthConfig | None = None
    api_key: ApiKey | None = None


class TlsConfig(ApiValue):
    """How the remote backend's certificate is verified."""

    ca_ref: SecretKeyReference | None = None
    sni: str | None = None
    client_cert_ref: SecretKeyReference | None = None


class RemoteHealthCheck(ApiValue):
    """An active HTTP health check of the remote backend."""

    path: CheckedPath
    interval: Interval = timedelta(seconds=5)


class RemoteBackend(ApiValue):
    """Where traffic goes when it leaves the cluster. `pathPrefix` may use `$workspace` and `$model`."""

    host: Authority
    scheme: Literal["http", "https"] = "http"
    path_prefix: UrlPath = ""
    headers_to_add: dict[HeaderName, HeaderValue] = {}
    auth_config: AuthConfig | None = None
    tls: TlsConfig | None = None
    health_check: RemoteHealthCheck | None = None

    @field_validator("host")
    @classmethod
    def _names_a_port_there_is(cls, host: str) -> str:
        port = host.rpartition(":")[2] if ":" in host and not host.endswith("]") else "80"
        if not 1 <= int(port) <= 65535:
            raise ValueError(f"must have a port from 1 to 65535, has {port}")
        return host

    @field_validator("headers_to_add")
    @classmethod
    def _leaves_the_connection_alone(cls, headers: dict[str, str]) -> dict[str, str]:
        for name in headers:
            if name.lower() == "host":
                raise FieldFaultError((name,), "may not be set: the Host that is sent is remoteBackend.host")
            if name.lower() in _OF_THE_CONNECTION:
                raise FieldFaultError((name,), "may not be set: it belongs to the connection, which is Envoy's")
        return headers


class OffloadingConfig(ApiValue):
    """When to offload and where to."""

    behavior: Behavior = Behavior()
    metrics: tuple[MetricSpec, ...] = ()
    remote_backend: RemoteBackend | None = None


class ModelDeploymentSpec(ApiValue):
    """The spec of a ModelDeployment."""

    model: ModelName
    enabled: Flag = True
    environment: str = "production"
    model_source_ref: Reference
    service_ref: PortReference | None = None
    metric_service_ref: PortReference | None = None
    policies: tuple[PolicyReference, ...] = ()
    serverless_config: ServerlessConfig | None = None
    offloading_config: OffloadingConfig | None = None


class ModelDeployment(ApiValue):
    """A ModelDeployment. Its status is the controller's to write and is left alone here."""

    api_version: Literal["deployment.beamlit.com/v1alpha1"] = "deployment.beamlit.com/v1alpha1"
    kind: Literal["ModelDeployment"] = "ModelDeployment"
    metadata: ObjectMeta
    spec: ModelDeploymentSpec
    status: Annotated[Any, Field(exclude=True)] = None
