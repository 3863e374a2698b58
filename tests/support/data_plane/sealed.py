"""Credentials on the plane: its models name them, and here is what they are."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import SecretStr

from controller.api.contract.credentials import CredentialSource, HeaderCredential, OAuth, RemoteAuth
from controller.api.contract.route import Remote, RouteKey
from tests.support.data_plane.plane import Plane
from xds_server.resources.secret import credential_of, secret_resources


def api_key(secret: str, header: str) -> RemoteAuth:
    """A fixed value in a header, from the Secret of this name."""
    return RemoteAuth(api_key=HeaderCredential(header=header, value=CredentialSource.of_secret(secret, "apiKey")))


def token(secret: str, url: str) -> RemoteAuth:
    """A token of this endpoint, for the client secret in the Secret of this name."""
    source = CredentialSource.of_secret(secret, "clientSecret")
    return RemoteAuth(oauth=OAuth(client_id="me", client_secret=source, token_url=url))


def bring(plane: Plane, values: Mapping[RemoteAuth, str]) -> None:
    """Publish the one credential in each of these, in place of all that were brought before."""
    model = RouteKey.of_model("ns", "any")
    plane.publish_also(
        *(
            resource
            for auth, value in values.items()
            for resource in secret_resources(
                model,
                Remote(host="any", port=80, authority="any", auth=auth),
                {credential_of(auth): SecretStr(value)},
                b"key",
            )
        )
    )
