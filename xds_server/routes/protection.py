"""A route with everything secret that it needs, or without its remote side."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import SecretStr

from controller.api.contract.credentials import CredentialSource, is_for_inline_secret
from controller.api.contract.route import Remote, Route, RouteKey
from controller.store.objects import ObjectRef
from xds_server.resources.secret import Values, credential_of, secret_resources
from xds_server.routes import credential_values as values
from xds_server.routes.credential_values import UnusableError
from xds_server.routes.credentials import SECRET, Find, OwnSecrets, found
from xds_server.snapshot.snapshot import Resource

Check = Callable[[SecretStr, str], SecretStr]


@dataclass(frozen=True, slots=True)
class Protected:
    """What may be served of a route: all of it with its `secrets`, or what stays local for `problems`, in words.

    `values` has the credentials that the remote side names, for who needs them in another form than Envoy.
    """

    route: Route
    secrets: tuple[Resource, ...] = ()
    problems: tuple[str, ...] = ()
    values: Values = field(default_factory=dict, repr=False)


def protected(model: RouteKey, route: Route, find: Find, own: OwnSecrets) -> Protected:
    """Find everything secret that a route needs.

    What is not there takes the whole remote side with it: a request never leaves without the credential, or the
    verification, that it should have. That follows from the objects alone, so all replicas of the server agree on it.
    """
    if route.remote is None:
        return Protected(route)
    taken, problems = _taken(model, route.remote, find, own)
    if problems:
        local = route.without_remotes()
        return Protected(local, problems=tuple(dict.fromkeys(problems)))
    return Protected(route, secret_resources(model, route.remote, taken, own.version_key), values=taken)


def referred_secrets(model: RouteKey, remote: Remote) -> frozenset[ObjectRef]:
    """Name the Secrets that a route refers to: always in the namespace of its object."""
    sources = (source for source, _ in _needed(remote))
    return frozenset(ObjectRef(SECRET, model.namespace, one.name) for one in sources if one.source == "Secret")


def is_inline(remote: Remote) -> bool:
    """Tell whether a part of the spec is read beside the route."""
    return any(source.source == "Spec" for source, _ in _needed(remote))


def has_inline(raw: Mapping[str, Any], remote: Remote) -> bool:
    """Tell whether what a ModelDeployment itself holds is meant for this remote backend, as far as it is read."""
    oauth = remote.auth.oauth if remote.auth else None
    return oauth is not None and is_for_inline_secret(raw, oauth)


def _taken(model: RouteKey, remote: Remote, find: Find, own: OwnSecrets) -> tuple[Values, list[str]]:
    taken: dict[CredentialSource, SecretStr] = {}
    problems = []
    for source, check in _needed(remote):
        try:
            taken[source] = check(*found(model, source, find, own))
        except UnusableError as error:
            problems.append(str(error))
    return taken, problems


def _needed(remote: Remote) -> tuple[tuple[CredentialSource, Check], ...]:
    """List the sources of a remote backend, each with what its value must be."""
    needed: list[tuple[CredentialSource, Check]] = []
    if remote.tls and remote.tls.ca:
        needed.append((remote.tls.ca, values.authorities))
    if remote.tls and remote.tls.client_certificate:
        needed.append((remote.tls.client_certificate.certificate, values.certificates))
        needed.append((remote.tls.client_certificate.private_key, values.private_key))
    if remote.auth:
        needed.append((credential_of(remote.auth), values.text))
    return tuple(needed)
