"""The remote backend of a model as its route carries it."""

from __future__ import annotations

from controller.api.meta import ObjectMeta
from controller.api.model import ModelDeployment, RemoteBackend
from controller.api.route import Header, HttpCheck, RemoteRoute

_DEFAULT_PORT = {"http": 80, "https": 443}


class RemoteNotUsableError(Exception):
    """The remote backend asks for what cannot be done; the message names the field."""


def remote_route(model: ModelDeployment, default: RemoteBackend | None) -> RemoteRoute | None:
    """Build the remote side of a model's route: its own backend or the default one, with the variables filled in.

    None when there is no backend or no offloading. Raises RemoteNotUsableError when using it would be wrong: a request
    never leaves without the protection that the object asks for.
    """
    offloading = model.spec.offloading_config
    if offloading is None:
        return None
    backend = offloading.remote_backend or default
    if backend is None:
        return None
    _refuse_unprotected(backend)
    host, port = _host_and_port(backend)
    check = backend.health_check
    return RemoteRoute(
        host=host,
        port=port,
        authority=backend.host,
        path_prefix=_substituted(backend.path_prefix, model.metadata, model.spec.model),
        headers_to_add=tuple(Header(name=name, value=value) for name, value in sorted(backend.headers_to_add.items())),
        health_check=HttpCheck(path=check.path, interval=check.interval) if check else None,
    )


def _refuse_unprotected(backend: RemoteBackend) -> None:
    if backend.tls is not None:
        raise RemoteNotUsableError("remoteBackend.tls: TLS is not served yet; nothing is sent without")
    if backend.scheme == "https":
        raise RemoteNotUsableError("remoteBackend.scheme: https is not served yet; nothing is sent without TLS")
    if backend.auth_config is not None:
        raise RemoteNotUsableError("remoteBackend.authConfig: credentials are not served yet; nothing is sent without")


def _host_and_port(backend: RemoteBackend) -> tuple[str, int]:
    host, colon, port = backend.host.rpartition(":")
    if not colon or backend.host.endswith("]"):
        return backend.host.strip("[]"), _DEFAULT_PORT[backend.scheme]
    return host.strip("[]"), int(port)


def _substituted(prefix: str, metadata: ObjectMeta, model: str) -> str:
    # Without the platform the workspace is the namespace.
    return prefix.replace("$workspace", metadata.namespace).replace("$model", model)
