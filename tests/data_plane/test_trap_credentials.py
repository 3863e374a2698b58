"""Trap 11: Envoy has no credential for a request that should carry one."""

from __future__ import annotations

import pytest
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.extensions.filters.http.credential_injector.v3.credential_injector_pb2 import CredentialInjector
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    HttpConnectionManager,
)
from envoy.extensions.upstreams.http.v3.http_protocol_options_pb2 import HttpProtocolOptions

from controller.api.contract.credentials import CredentialSource, HeaderCredential, OAuth, RemoteAuth
from tests.support.data_plane.model import Wanted
from tests.support.data_plane.mutation import clusters, managers
from tests.support.data_plane.plane import Plane
from tests.support.data_plane.trap import serve_both

pytestmark = pytest.mark.asyncio(loop_scope="module")

OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
OF_SECRET = CredentialSource.of_secret("missing", "x")
KEY = RemoteAuth(api_key=HeaderCredential(header="x-key", value=OF_SECRET))
TOKEN = RemoteAuth(oauth=OAuth(client_id="me", client_secret=OF_SECRET, token_url="http://127.0.0.1:1/token"))
kinds = pytest.mark.parametrize("auth", [KEY, TOKEN], ids=["key", "token"])


def answer_401(manager: HttpConnectionManager) -> None:
    manager.ClearField("local_reply_config")


@kinds
async def test_a_request_without_a_credential_is_answered_by_a_replica(plane: Plane, auth: RemoteAuth) -> None:
    """By `local_reply_config`."""
    models = await serve_both(plane, Wanted(away=100, auth=auth), managers(answer_401))
    headers = [("authorization", "Bearer of-the-client")]

    replies = await models.at_once(lambda model: plane.ask(model, headers=headers))

    records = replies.each(lambda reply: plane.backends.seen(reply.probe))
    assert (replies.held.status, replies.held.route) == (200, "local")
    assert dict(records.held[0]["headers"])["authorization"] == "Bearer of-the-client"
    assert (replies.removed.status, records.removed) == (401, [])


def leave_without(cluster: Cluster) -> None:
    options, injector = HttpProtocolOptions(), CredentialInjector()
    if cluster.name.startswith("backend/") and cluster.typed_extension_protocol_options[OPTIONS].Unpack(options):
        assert options.http_filters[0].typed_config.Unpack(injector)
        injector.allow_request_without_credential = True
        options.http_filters[0].typed_config.Pack(injector)
        cluster.typed_extension_protocol_options[OPTIONS].Pack(options)


@kinds
async def test_a_request_without_a_credential_never_leaves(plane: Plane, auth: RemoteAuth) -> None:
    """Since there is no `allow_request_without_credential`."""
    models = await serve_both(plane, Wanted(away=100, auth=auth), clusters(leave_without))

    replies = await models.at_once(plane.ask)

    at_remote = replies.each(lambda one: [seen["servedBy"] == "remote" for seen in plane.backends.seen(one.probe)])
    assert (at_remote.held, at_remote.removed) == ([False], [True])
