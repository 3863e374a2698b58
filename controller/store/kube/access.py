"""Where the API server is and who we are there, read from a kubeconfig or a pod; and the connections to it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]
from weakref import WeakSet

import aiohttp
import yaml

from controller.api.timing import REAL
from controller.store.protocol import ConfigurationError


class Connections(aiohttp.TCPConnector):
    """Connections that all end with it, those too that were given up before.

    A TLS connection that is closed waits for the other side, half a minute if that is gone, and nothing waits for it.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._transports: WeakSet[asyncio.Transport] = WeakSet()

    async def connect(self, *request: Any, **options: Any) -> aiohttp.connector.Connection:
        """Give a connection for a request, and remember it."""
        connection = await super().connect(*request, **options)
        if connection.transport is not None:
            self._transports.add(connection.transport)
        return connection

    async def close(self, *, abort_ssl: bool = True) -> None:
        """End all at once."""
        for transport in self._transports:
            transport.abort()
        await super().close(abort_ssl=abort_ssl)
        await asyncio.sleep(0)  # Only now their sockets are closed.


class RedirectedError(aiohttp.ClientError):
    """The answer leads elsewhere (HTTP `status`), where nobody asks."""

    def __init__(self, status: int) -> None:
        super().__init__(f"the answer is a redirect ({status}), which is not followed")
        self.status = status


# What aiohttp would follow.
_REDIRECTS = (301, 302, 303, 307, 308)


async def _refuse_redirects(request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Follow nobody: an API server sends nobody away, and who serves an API behind it shall not choose whom we ask, nor
    who is shown our certificate (CVE-2022-3172).
    """
    response = await send(request)
    if response.status in _REDIRECTS:
        response.close()
        raise RedirectedError(response.status)
    return response


_LISTED = 20  # So many contexts are named, at most.
_IN_CLUSTER = "the service account of this pod"
_OWN_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_USUAL_NAMESPACE = "default"


@dataclass(frozen=True, slots=True)
class Source:
    """Where to read: kubeconfig files as `$KUBECONFIG` names them (None: the pod's service account), and a context."""

    kubeconfig: str | None
    context: str | None = None

    def __str__(self) -> str:
        return _IN_CLUSTER if self.kubeconfig is None else self.kubeconfig


def find_source(kubeconfig: Path | None, context: str | None, environ: Mapping[str, str]) -> Source:
    """The first there is of: the kubeconfig given, `$KUBECONFIG`, the pod's service account, `~/.kube/config`.

    A context is only found in a kubeconfig. Raises ConfigurationError when there is nothing to read.
    """
    named = str(kubeconfig) if kubeconfig is not None else environ.get("KUBECONFIG", "")
    if named:
        if not any(Path(file).expanduser().is_file() for file in named.split(os.pathsep) if file):
            raise ConfigurationError(f"{named}: no such file")
        return Source(named, context)
    if environ.get("KUBERNETES_SERVICE_HOST") and context is None:
        return Source(None)
    usual = Path(environ.get("HOME") or "/", ".kube", "config")
    if usual.is_file():
        return Source(str(usual), context)
    raise ConfigurationError(f"no API server to talk to: $KUBECONFIG is not set, not in a pod, no file {usual}")


def proxy_for(server: str, environ: Mapping[str, str]) -> str | None:
    """Find the proxy for a server (a URL): `$HTTPS_PROXY` or `$HTTP_PROXY`, unless `$NO_PROXY` names the server.

    Also in lower case, which goes first.
    """
    parts = urlsplit(server)
    of = {name: environ.get(name) or environ.get(name.upper(), "") for name in (f"{parts.scheme}_proxy", "no_proxy")}
    if proxy_bypass_environment(parts.netloc, {"no": of["no_proxy"]}):
        return None
    return of[f"{parts.scheme}_proxy"] or None


class Access:
    """The way to one API server with one set of credentials: a session of HTTP connections, TLS included."""

    def __init__(self, configuration: Any, rest: Any, namespace: str) -> None:
        """The first two are the client library's; the session that it opens is given our connections.

        `namespace` is where we are at home: that of the pod, or that of the context of the kubeconfig.
        """
        self.namespace = namespace
        self._configuration = configuration
        self._authority = Path(configuration.ssl_ca_cert).read_text() if configuration.ssl_ca_cert else ""
        self._rest = rest
        self._closed = False
        self._connections = Connections(limit=0, ssl=rest.ssl_context)  # A watch holds one for as long as it lasts.
        # The environment was read by then: for each request, it would be read anew in two other threads.
        configuration.client_session_kwargs = {
            "connector": self._connections,
            "trust_env": False,
            "middlewares": (_refuse_redirects,),
        }

    @property
    def cluster(self) -> str:
        """What tells this cluster from others and is there without asking: the API server's URL and its authority."""
        return f"{self.server}\n{self._authority}"

    @property
    def server(self) -> str:
        """The URL of the API server."""
        return str(self._configuration.host)

    async def open(
        self, method: str, path: str, headers: dict[str, str], body: object, limits: aiohttp.ClientTimeout
    ) -> aiohttp.ClientResponse:
        """Send one request, its body as JSON (bytes as they are); the answer's headers are there.

        Raises what aiohttp raises, RedirectedError, and ClientConnectionError of what was closed meanwhile: aiohttp
        itself only asserts that it has a connection, or says in a RuntimeError that the session is closed.
        """
        auth = (await self._configuration.auth_settings()).get("BearerToken")
        if auth and auth["value"]:
            headers = {**headers, "Authorization": auth["value"].strip()}
        try:
            opened = await self._rest.request(method, self.server + path, headers, body, _request_timeout=limits)
        except (AssertionError, RuntimeError) as error:
            if not self._closed:
                raise
            raise aiohttp.ClientConnectionError("the connection was closed") from error
        response: aiohttp.ClientResponse = opened.response
        return response

    async def close(self) -> None:
        """End every connection, at once."""
        self._closed = True
        await self._rest.close()
        await self._connections.close()


async def load_access(source: Source, longest: float = REAL.kube.credentials) -> Access:
    """Read the configuration as it is now. Raises ConfigurationError that names the file and the reason.

    An exec plugin that takes longer than `longest` seconds is such a reason.
    """
    try:
        async with asyncio.timeout(longest):
            return await _load(source)
    except TimeoutError as error:
        raise ConfigurationError(f"{source}: gives no credentials within {longest:.0f} s") from error
    except yaml.MarkedYAMLError as error:
        # Its own words quote the file, which may hold a token.
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigurationError(f"{source}: is not YAML: line {line}: {error.problem}") from None
    except OSError as error:
        raise ConfigurationError(
            f"{source}: {error.filename or ''} {error.strerror or error}".replace(":  ", ": ")
        ) from error
    except (TypeError, AttributeError, LookupError, ValueError, yaml.YAMLError) as error:
        raise ConfigurationError(f"{source}: is not a kubeconfig ({type(error).__name__})") from None


def _wrong_context(source: Source) -> str:
    """Say which contexts there are, if none is chosen, or one that is not there; empty for any other mistake."""
    names: dict[str, None] = {}
    chosen = source.context
    for file in (source.kubeconfig or "").split(os.pathsep):
        path = Path(file).expanduser()
        if file and path.is_file():
            read = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
            chosen = chosen or read.get("current-context")
            names.update((str(one["name"]), None) for one in read.get("contexts") or ())
    if chosen in names:
        return ""
    listed = f"there are {', '.join(list(names)[:_LISTED])}" if names else "there is none"
    return f"there is no context {chosen}: {listed}" if chosen else f"no context is chosen (--context): {listed}"


def _pod_namespace() -> str:
    """Read the namespace of this pod; a service account may be mounted without it."""
    return _OWN_NAMESPACE.read_text(encoding="utf-8").strip() if _OWN_NAMESPACE.is_file() else ""


async def _load(source: Source) -> Access:
    from kubernetes.aio.config.kube_config import _cleanup_temp_files  # noqa: PLC0415 - takes more than a second

    try:
        return await _load_with_files(source)
    finally:
        # The library writes certificates and keys that a kubeconfig holds, or an exec plugin gives, into files, and
        # removes them when the program ends by itself. They were read by now: one that is killed leaves none.
        _cleanup_temp_files()


async def _load_with_files(source: Source) -> Access:
    from kubernetes.aio.client.configuration import Configuration  # noqa: PLC0415
    from kubernetes.aio.client.rest import RESTClientObject  # noqa: PLC0415
    from kubernetes.aio.config import ConfigException, load_incluster_config, load_kube_config  # noqa: PLC0415

    configuration, namespace = Configuration(), ""
    try:
        if source.kubeconfig is None:
            load_incluster_config(client_configuration=configuration)
            namespace = _pod_namespace()
        else:
            loader = await load_kube_config(
                config_file=source.kubeconfig,
                context=source.context,
                client_configuration=configuration,
                persist_config=False,
            )
            namespace = loader.current_context["context"].get("namespace") or ""
            if "exec" in (loader._user or {}) and not (configuration.api_key or configuration.cert_file):
                raise ConfigurationError(f"{source}: its exec plugin gives no credentials; the log has its words")
    except ConfigException as error:
        raise ConfigurationError(f"{source}: {_wrong_context(source) or error}") from error
    configuration.proxy = configuration.proxy or proxy_for(configuration.host, os.environ)
    return Access(configuration, RESTClientObject(configuration), namespace or _USUAL_NAMESPACE)
