"""The remote backends of an object as its route carries them: where they are, and how they are protected.

Only where a credential comes from is passed on. What is not as it should be keeps everything local: a request never
leaves without the protection that the object asks for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

from controller.api.contract.credentials import (
    ClientCertificate,
    CredentialSource,
    HeaderCredential,
    OAuth,
    RemoteAuth,
    RemoteTls,
)
from controller.api.contract.route import REMOTE, Header, HttpCheck, Remote
from controller.api.resources.backend import AuthConfig, OAuthConfig, RemoteBackend
from controller.api.resources.references import SecretKeyReference
from controller.api.schema.hosts import DEFAULT_PORT, authority_of, name_of, resolved_of
from controller.intent.intent import Intent, variables_of


class RemoteNotUsableError(Exception):
    """The remote backend asks for what cannot be done; the message names the field, from `remoteBackend` on."""


def tls_of(backend: RemoteBackend, host: str) -> RemoteTls | None:
    """Say how a backend is verified: by `tls.sni` or else by `host`, to which Envoy connects; None for `http`.

    Raises RemoteNotUsableError.
    """
    tls = backend.tls
    if backend.scheme == "http":
        if tls is not None:
            raise RemoteNotUsableError("remoteBackend.tls: is set, but scheme is http; set scheme: https")
        return None
    return RemoteTls(
        server_name=name_of((tls.sni if tls else None) or host),
        ca=_from_secret(tls.ca_ref, "ca.crt") if tls and tls.ca_ref else None,
        client_certificate=_client_certificate(tls.client_cert_ref) if tls and tls.client_cert_ref else None,
    )


def auth_of(backend: RemoteBackend, *, is_default: bool) -> RemoteAuth | None:
    """Say which credential a backend is sent, if any; `is_default` for the one that the configuration brings.

    Raises RemoteNotUsableError.
    """
    config = backend.auth_config
    if config is None:
        return None
    if config.type == "oauth":
        return RemoteAuth(oauth=_oauth(config, is_default=is_default))
    if config.api_key is None:
        raise RemoteNotUsableError("remoteBackend.authConfig.apiKey: is not set, but type is apiKey")
    return RemoteAuth(
        api_key=HeaderCredential(header=config.api_key.header, value=_from_secret(config.api_key.secret_ref, "apiKey"))
    )


def _oauth(config: AuthConfig, *, is_default: bool) -> OAuth:
    at = "remoteBackend.authConfig.oauthConfig"
    oauth = config.oauth_config
    if oauth is None:
        raise RemoteNotUsableError(f"{at}: is not set, but type is oauth")
    if not oauth.client_id:
        raise RemoteNotUsableError(f"{at}.clientId: is not set")
    if not oauth.token_url:
        raise RemoteNotUsableError(f"{at}.tokenUrl: is not set")
    try:
        urlsplit(oauth.token_url)
    except ValueError:
        # What its form lets through, and the API server with it.
        raise RemoteNotUsableError(f"{at}.tokenUrl: must have an IPv6 address between its brackets") from None
    return OAuth(
        client_id=oauth.client_id,
        client_secret=_client_secret(oauth, at, is_default=is_default),
        token_url=oauth.token_url,
        scopes=oauth.scopes,
    )


def _client_secret(oauth: OAuthConfig, at: str, *, is_default: bool) -> CredentialSource:
    given = bool(oauth.client_secret.get_secret_value())
    if oauth.client_secret_ref is not None:
        if given:
            raise RemoteNotUsableError(f"{at}: has both clientSecret and clientSecretRef; keep the latter")
        return _from_secret(oauth.client_secret_ref, "clientSecret")
    if is_default:
        # The xDS server has it; this program does not need to.
        return CredentialSource(source="DefaultBackend")
    if not given:
        raise RemoteNotUsableError(f"{at}: has neither clientSecretRef nor clientSecret")
    return CredentialSource(source="Spec")


def _client_certificate(ref: SecretKeyReference) -> ClientCertificate:
    return ClientCertificate(
        certificate=CredentialSource.of_secret(ref.name, "tls.crt"),
        private_key=CredentialSource.of_secret(ref.name, "tls.key"),
    )


def _from_secret(ref: SecretKeyReference, default_key: str) -> CredentialSource:
    return CredentialSource.of_secret(ref.name, ref.key or default_key)


def remotes_of(intent: Intent, default: RemoteBackend | None) -> tuple[Remote, ...]:
    """Build the remote backends of an object's route, in the order in which they are tried: its own or the default one.

    None when there is no backend or no offloading. Of several the first is used for now. Raises RemoteNotUsableError
    when using it would be wrong: a request never leaves without the protection that the object asks for.
    """
    if not intent.offloads:
        return ()
    backend = next(iter(intent.backends), default)
    return (_remote(REMOTE, backend, intent, is_default=not intent.backends),) if backend else ()


def hosts_asked_for(intent: Intent) -> Iterator[tuple[str, str]]:
    """Name the hosts that an object's own backend would have Envoy connect to, each with its field."""
    for backend in intent.backends[:1]:
        yield "remoteBackend.host", _host_and_port(backend)[0]
        oauth = backend.auth_config.oauth_config if backend.auth_config else None
        if oauth and oauth.token_url:
            yield "remoteBackend.authConfig.oauthConfig.tokenUrl", urlsplit(oauth.token_url).hostname or ""


def addresses_of(intent: Intent, default: RemoteBackend | None) -> Iterator[tuple[str, int]]:
    """List host and port of the remote backends that an object would use, whether or not it can."""
    if intent.offloads:
        backends = intent.backends[:1] or ((default,) if default else ())
        yield from map(_host_and_port, backends)


def _remote(name: str, backend: RemoteBackend, intent: Intent, *, is_default: bool) -> Remote:
    host, port = _host_and_port(backend)
    check, timeouts, retry = backend.health_check, backend.timeouts, backend.retry
    return Remote(
        name=name,
        host=host,
        port=port,
        authority=authority_of(host, port, backend.scheme),
        path_prefix=_substituted(backend.path_prefix, variables_of(intent)),
        headers_to_add=tuple(
            Header(name=header, value=value) for header, value in sorted(backend.headers_to_add.items())
        ),
        health_check=HttpCheck(path=check.path, interval=check.interval) if check else None,
        tls=tls_of(backend, host),
        auth=auth_of(backend, is_default=is_default),
        connect_timeout=timeouts.connect if timeouts else None,
        answer_timeout=timeouts.request if timeouts else None,
        # None at all is what there is without the field.
        retries=(retry.attempts or None) if retry else None,
    )


def _host_and_port(backend: RemoteBackend) -> tuple[str, int]:
    """Return what is resolved, and the port."""
    host, colon, port = backend.host.rpartition(":")
    if not colon or backend.host.endswith("]"):
        return resolved_of(backend.host.strip("[]")), DEFAULT_PORT[backend.scheme]
    return resolved_of(host.strip("[]")), int(port)


def _substituted(text: str, variables: Mapping[str, str]) -> str:
    for variable, value in variables.items():
        text = text.replace(variable, value)
    return text
