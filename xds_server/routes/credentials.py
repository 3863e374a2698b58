"""Finding what a source of a credential names."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pydantic import SecretStr

from controller.api import registry
from controller.api.contract.credentials import INLINE_CLIENT_SECRET, CredentialSource, inline_client_secret
from controller.api.contract.route import RouteKey
from controller.api.kubernetes.objects import Secret
from controller.api.resources.backend import RemoteBackend
from controller.api.schema.errors import InvalidObjectError
from controller.api.schema.values import parse
from controller.store.objects import ObjectRef, StoredObject
from xds_server.routes.credential_values import UnusableError

MODEL = registry.MODEL_DEPLOYMENT.kind
SECRET = registry.SECRET.kind


# How to find an object; a ModelDeployment as it was when its route was decided.
Find = Callable[[ObjectRef], StoredObject | None]


@dataclass(frozen=True, slots=True)
class OwnSecrets:
    """What the server itself knows: the credentials of the default backend, and the key of the versions of secrets.

    Both must be the same in all replicas. The token by which Envoys are known is a good key: whoever has it may see the
    secrets anyway.
    """

    default_remote: RemoteBackend | None = None
    version_key: bytes = field(default=b"", repr=False)


def found(model: RouteKey, source: CredentialSource, find: Find, own: OwnSecrets) -> tuple[SecretStr, str]:
    """Return the value that a source of this model names, and what to call it. Raises UnusableError.

    A Secret is always one of the model's own namespace.
    """
    match source.source:
        case "Secret":
            return _of_secret(ObjectRef(SECRET, model.namespace, source.name), source.key, find)
        case "Spec":
            stored = find(ObjectRef(*model))
            return _given(inline_client_secret(stored.raw) if stored else None, INLINE_CLIENT_SECRET)
        case "DefaultBackend":
            auth = own.default_remote.auth_config if own.default_remote else None
            secret = auth.oauth_config.client_secret if auth and auth.oauth_config else None
            name = "defaultRemoteBackend.authConfig.oauthConfig.clientSecret of the xDS server"
            return _given(secret.get_secret_value() if secret else None, name)


def _of_secret(ref: ObjectRef, key: str, find: Find) -> tuple[SecretStr, str]:
    stored = find(ref)
    if stored is None:
        raise UnusableError(f"{ref} does not exist")
    try:
        secret = parse(Secret, stored.raw)
    except InvalidObjectError as error:
        raise UnusableError(f"{ref}: {error}") from None
    name = f'{ref}: key "{key}"'
    # As the API server merges the two when it is given both.
    if key in secret.string_data:
        return secret.string_data[key], name
    if key not in secret.data:
        raise UnusableError(f"{name} is missing")
    return _decoded(secret.data[key], name), name


def _decoded(data: SecretStr, name: str) -> SecretStr:
    # Line breaks within are no fault, as for the API server.
    encoded = data.get_secret_value().replace("\n", "").replace("\r", "")
    try:
        return SecretStr(base64.b64decode(encoded, validate=True).decode())
    except binascii.Error:
        raise UnusableError(f"{name} is not base64, as all of `data` must be; `stringData` takes plain text") from None
    except ValueError:
        raise UnusableError(f"{name} is not text") from None


def _given(value: Any, name: str) -> tuple[SecretStr, str]:
    if not isinstance(value, str) or not value:
        raise UnusableError(f"{name} is missing")
    return SecretStr(value), name
