"""The remote backend of a model as its route carries it."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from controller.api.meta import ObjectMeta
from controller.api.model import ModelDeployment, RemoteBackend
from controller.api.route import Header, HttpCheck, RemoteRoute
from controller.reconcile.protection import RemoteNotUsableError, auth_of, tls_of

__all__ = ["RemoteNotUsableError", "asked_hosts", "remote_route"]

_DEFAULT_PORT = {"http": 80, "https": 443}


def remote_route(model: ModelDeployment, default: RemoteBackend | None) -> RemoteRoute | None:
    """Build the remote side of a model's route: its own backend or the default one, with the variables filled in.

    None when there is no backend or no offloading. Raises RemoteNotUsableError when using it would be wrong: a request
    never leaves without the protection that the object asks for.
    """
    offloading = model.spec.offloading_config
    if offloading is None:
        return None
    backend = next(iter(offloading.backends), default)
    if backend is None:
        return None
    host, port = _host_and_port(backend)
    check, timeouts, retry = backend.health_check, backend.timeouts, backend.retry
    return RemoteRoute(
        host=host,
        port=port,
        authority=backend.host,
        path_prefix=_substituted(backend.path_prefix, model.metadata, model.spec.model),
        headers_to_add=tuple(Header(name=name, value=value) for name, value in sorted(backend.headers_to_add.items())),
        health_check=HttpCheck(path=check.path, interval=check.interval) if check else None,
        tls=tls_of(backend, host),
        auth=auth_of(backend, is_default=not offloading.backends),
        connect_timeout=timeouts.connect if timeouts else None,
        answer_timeout=timeouts.request if timeouts else None,
        # None at all is what there is without the field.
        retries=(retry.attempts or None) if retry else None,
    )


def asked_hosts(model: ModelDeployment) -> Iterator[tuple[str, str]]:
    """Name the hosts that a model's own backend would have Envoy connect to, each with its field."""
    offloading = model.spec.offloading_config
    for backend in offloading.backends[:1] if offloading else ():
        yield "remoteBackend.host", _host_and_port(backend)[0]
        oauth = backend.auth_config.oauth_config if backend.auth_config else None
        if oauth and oauth.token_url:
            yield "remoteBackend.authConfig.oauthConfig.tokenUrl", urlsplit(oauth.token_url).hostname or ""


def _host_and_port(backend: RemoteBackend) -> tuple[str, int]:
    host, colon, port = backend.host.rpartition(":")
    if not colon or backend.host.endswith("]"):
        return backend.host.strip("[]"), _DEFAULT_PORT[backend.scheme]
    return host.strip("[]"), int(port)


def _substituted(prefix: str, metadata: ObjectMeta, model: str) -> str:
    # Without the platform the workspace is the namespace.
    return prefix.replace("$workspace", metadata.namespace).replace("$model", model)
