"""The configuration file (`--config`): the keys of the original, all optional. A key it does not know is refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator

from controller.api.destinations import Destinations, parse_destination
from controller.api.resources.backend import AuthConfig, OAuthConfig, RemoteBackend
from controller.api.resources.model import ControllerClass
from controller.api.schema.errors import FieldFaultError
from controller.api.schema.http import check_port, is_credential_header
from controller.api.schema.scalars import Flag, Port, Shape
from controller.api.schema.values import ApiValue

# As Go programs write it: `:8080` is every address of the host; "0" or nothing turns the address off.
ListenAddress = Annotated[
    str,
    Shape(
        r"(0|((\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]*):"
        r"([0-9]{1,4}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])))?",
        'an address such as ":8080", or "0" for none',
    ),
]


def _listed(value: object) -> object:
    """Take `a, b` for a list, as the original's chart writes it."""
    if isinstance(value, str):
        return tuple(name.strip() for name in value.split(",") if name.strip())
    return value


Namespaces = Annotated[
    tuple[Annotated[str, Shape(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", "the name of a namespace")], ...],
    BeforeValidator(_listed),
]


class PrometheusConfiguration(ApiValue):
    """Where Prometheus, or what answers as it does, is asked, and as whom."""

    address: Annotated[
        str,
        Shape(
            r"((https?://)?(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?(/[A-Za-z0-9._~!$&'()*+,;=:@%/-]*)?)?",
            "a URL such as http://prometheus.monitoring:9090, without a query or a password",
        ),
        AfterValidator(check_port),
    ] = ""
    """Where it answers, such as http://prometheus.monitoring:9090 or https://mimir.example.com/prometheus. Without a
    scheme, http is meant."""
    bearer_token_file: str | None = None
    """A file with the token that is sent to it; it is read for each query, for tokens are renewed."""
    ca_file: str | None = None
    """A file with the certificates (PEM) of the authorities that it is verified by over https. It is read again when it
    is replaced; what is no longer in it is trusted until a restart. Default: those of the system."""
    tenant: Annotated[str, Shape(r"[\x21-\x7e]{1,150}", "the name of a tenant")] | None = None
    """The tenant whose series are read, where there are several, as in Mimir: it is sent as X-Scope-OrgID."""

    @property
    def url(self) -> str:
        """Where it answers, with a scheme and without a slash at the end."""
        return f"{'' if '://' in self.address else 'http://'}{self.address}".rstrip("/")


class MetricInformer(ApiValue):
    """Where the numbers of metrics of type External come from."""

    type: Literal["kubernetes", "prometheus"] = "kubernetes"
    """Whom they are asked of: the API server, or a Prometheus."""
    prometheus: PrometheusConfiguration | None = None
    """The Prometheus to ask."""

    @model_validator(mode="after")
    def _says_which_prometheus(self) -> Self:
        if self.type == "prometheus" and not (self.prometheus and self.prometheus.address):
            raise FieldFaultError(("prometheus", "address"), "is required when type is prometheus")
        return self


class ProxyService(ApiValue):
    """The Service of the gateway: the Envoys that clients reach."""

    namespace: str = "default"
    """Its namespace."""
    name: str
    """Its name."""
    port: Port | None = None
    """Has no effect: the ports of the gateway are those of the models."""
    admin_port: Port | None = None
    """The port of beamlit envoy's --admin-address, if it is another than 19000; no model is given it."""


Destination = Annotated[str, AfterValidator(parse_destination)]


class RemoteHosts(ApiValue):
    """Where remote backends and token endpoints may be, as ranges (CIDR), addresses and names.

    What `deny` has is refused, then what `allow` has may be used, then what is beside the gateway is refused.
    """

    allow: tuple[Destination, ...] = ()
    """What may be used: `10.1.0.0/16`, an address, a name, or `*.example.com` for all names below it. A name that is
    allowed may lead to any address. In a cluster these go before the refusal of loopback and link-local addresses; the
    address of a metadata server has to be named itself."""
    deny: tuple[Destination, ...] = ()
    """What may not be used, written in the same way; `private` stands for all private addresses but those of
    `allow`."""


class DefaultOAuthConfig(OAuthConfig):
    """The client credentials of the default backend, whose secret may be in a file."""

    client_secret_file: Annotated[str, Field(min_length=1)] | None = None
    """A file with the client's secret, which the xDS server needs to have, and `beamlit run`; the controller does not.
    What is renewed is used within seconds."""

    @model_validator(mode="after")
    def _has_one_secret(self) -> Self:
        if self.client_secret_file and (self.client_secret.get_secret_value() or self.client_secret_ref):
            other = "clientSecretRef" if self.client_secret_ref else "clientSecret"
            raise FieldFaultError(("clientSecretFile",), f"may not be given beside {other}")
        return self


class DefaultAuthConfig(AuthConfig):
    """How the default backend knows us."""

    oauth_config: DefaultOAuthConfig | None = None
    """The client credentials, when type is oauth."""


class DefaultRemoteBackend(RemoteBackend):
    """The backend of models that name none. Its headers may also stand under `headers`."""

    auth_config: DefaultAuthConfig | None = None
    """How the backend knows us. Without it, requests leave without a credential."""

    @model_validator(mode="before")
    @classmethod
    def _headers_by_either_name(cls, given: Any) -> Any:
        if not isinstance(given, Mapping) or "headers" not in given:
            return given
        if "headersToAdd" in given:
            raise FieldFaultError(("headers",), "says the same as headersToAdd; keep one of them")
        return {"headersToAdd" if name == "headers" else name: value for name, value in given.items()}

    @property
    def client_secret_file(self) -> str | None:
        """The file with the client's secret, if it is in one."""
        oauth = self.auth_config.oauth_config if self.auth_config else None
        return oauth.client_secret_file if oauth else None

    def with_client_secret(self, secret: SecretStr) -> Self:
        """Return the same backend with what its file holds."""
        assert self.auth_config and self.auth_config.oauth_config
        oauth = self.auth_config.oauth_config.model_copy(update={"client_secret": secret, "client_secret_file": None})
        return self.model_copy(update={"auth_config": self.auth_config.model_copy(update={"oauth_config": oauth})})


class Configuration(ApiValue):
    """What holds for all models."""

    metrics_addr: ListenAddress = ":8080"
    """Where the controller serves its metrics: HOST:PORT, :PORT for every address of the host, 0 for nowhere."""
    probe_addr: ListenAddress = ":8081"
    """Where the controller serves /livez and /readyz, in the same form."""
    secure_metrics: Flag = False
    """Has no effect yet."""
    enable_leader_election: Flag = True
    """Let one of several replicas of the controller decide."""
    enable_http2: Annotated[Flag, Field(alias="enableHTTP2")] = False
    """Has no effect yet."""
    namespaces: Namespaces = ()
    """The namespaces that are watched, as a list or with commas between them; none for all."""
    controller_class: ControllerClass = ""
    """Whose models are served: those whose spec.controllerClass is this one; without it, those without a class."""
    models_per_namespace: Annotated[int, Field(strict=True, ge=1)] = 1000
    """How many ports of the gateway one namespace may have. Who has one keeps it when this is lowered."""
    metric_informer: MetricInformer | None = None
    """Where the numbers of metrics of type External come from."""
    proxy_service: ProxyService | None = None
    """The Service of the gateway: Services that are taken over lead there, and its ready endpoints share
    maxRequestsPerReplica."""
    default_remote_backend: DefaultRemoteBackend | None = None
    """The remote backend of models that name none; `headers` is another name of its headersToAdd."""

    remote_backends: RemoteHosts = RemoteHosts()
    """Where remote backends and token endpoints may be. The default one may be anywhere."""

    def destinations(self, otherwise: Destinations) -> Destinations:
        """Return where requests may go; `otherwise` is where they may without a configuration."""
        return otherwise.configured(self.remote_backends.allow, self.remote_backends.deny)

    def keys_without_effect(self) -> tuple[str, ...]:
        """Name the keys that are set and have no effect in this version, each with words that say so."""
        without_effect = {
            "secureMetrics": self.secure_metrics,
            "enableHTTP2": self.enable_http2,
        }
        return tuple(f"{key}: has no effect yet" for key, given in without_effect.items() if given)

    @property
    def prometheus(self) -> PrometheusConfiguration | None:
        """The Prometheus that External metrics are asked of, if one is."""
        informer = self.metric_informer
        return informer.prometheus if informer and informer.type == "prometheus" else None

    @property
    def gateway(self) -> tuple[str, str] | None:
        """The namespace and the name of the Service of the gateway, if one is configured."""
        return (self.proxy_service.namespace, self.proxy_service.name) if self.proxy_service else None

    def exposed_credentials(self) -> tuple[str, ...]:
        """Name the keys that seem to hold a credential: the status of a model shows all headers of its backend."""
        headers = self.default_remote_backend.headers_to_add if self.default_remote_backend else {}
        return tuple(
            f"defaultRemoteBackend.headersToAdd.{name}: stands in the status of every model that uses this backend; "
            "a credential belongs into authConfig"
            for name in filter(is_credential_header, headers)
        )
