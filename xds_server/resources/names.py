"""Every name that Envoy, its statistics and its logs show."""

from __future__ import annotations

from typing import NamedTuple

from controller.api.contract.credentials import CredentialSource


class ModelKey(NamedTuple):
    """The namespace and name of a ModelDeployment."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


LOCAL = "local"
REMOTE = "remote"

# The endpoint metadata that says which side answered: `%UPSTREAM_METADATA(beamlit:route)%`.
METADATA_NAMESPACE = "beamlit"
METADATA_KEY = "route"
ROUTE_HEADER = "x-beamlit-route"


def front_listener(model: ModelKey) -> str:
    """Name the listener that clients connect to."""
    return str(model)


def route_configuration(model: ModelKey) -> str:
    """Name the route configuration of the front listener: the one resource that a change of weights touches."""
    return str(model)


def remote_route_configuration(model: ModelKey) -> str:
    """Name the route configuration of the internal listener in front of the remote backend."""
    return f"{REMOTE}/{model}"


def local_cluster(model: ModelKey) -> str:
    """Name the cluster of the replicas, and of nothing else: what it has in flight, they have."""
    return f"{model}/{LOCAL}"


def fallback_cluster(model: ModelKey) -> str:
    """Name the cluster that a request goes to when the remote backend it was sent to did not answer."""
    return f"{model}/fallback"


def remote_cluster(model: ModelKey) -> str:
    """Name the cluster of the internal listener in front of the remote backend."""
    return f"{model}/{REMOTE}"


def local_first_cluster(model: ModelKey) -> str:
    """Name the cluster that goes to the replicas, and to the remote backend if they do not answer."""
    return f"{model}/{LOCAL}-first"


def remote_first_cluster(model: ModelKey) -> str:
    """Name the cluster that goes to the remote backend, and to the replicas if it does not answer."""
    return f"{model}/{REMOTE}-first"


def remote_listener(model: ModelKey) -> str:
    """Name the internal listener that turns a request into one for the remote backend."""
    return f"{REMOTE}/{model}"


def local_listener(model: ModelKey) -> str:
    """Name the internal listener that turns a request for the remote backend back into the client's own."""
    return f"{LOCAL}/{model}"


def backend_cluster(digest: str) -> str:
    """Name the cluster of one distinct remote backend, shared by the models that use it."""
    return f"backend/{digest}"


def token_cluster(digest: str) -> str:
    """Name the cluster of a token endpoint. It comes before `backend/` in every order, so it is there when needed."""
    return f"auth/{digest}"


def secret(use: str, model: ModelKey, source: CredentialSource) -> str:
    """Name a secret by what it is for and where it comes from, so that it is another one in another namespace."""
    match source.source:
        case "Secret":
            return f"{use}/secret/{model.namespace}/{source.name}/{source.key}"
        case "Spec":
            return f"{use}/spec/{model}"
        case "DefaultBackend":
            return f"{use}/default-backend"


def is_backend(cluster: str) -> bool:
    """Tell whether a cluster is that of a remote backend."""
    return cluster.startswith("backend/") and cluster.count("/") == 1


def model_of_cluster(cluster: str) -> tuple[ModelKey | None, str]:
    """Read back whose cluster one is, and which: `local`, `remote`, `fallback`... None for those that are shared."""
    namespace, _, rest = cluster.partition("/")
    name, _, kind = rest.partition("/")
    return (ModelKey(namespace, name), kind) if kind else (None, "")
