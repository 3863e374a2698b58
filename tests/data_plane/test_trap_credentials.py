"""Trap 11: Envoy has no credential for a request that should carry one."""

from __future__ import annotations

import pytest
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.extensions.filters.http.credential_injector.v3.credential_injector_pb2 import CredentialInjector
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    HttpConnectionManager,
)
from envoy.extensions.upstreams.http.v3.http_protocol_options_pb2 import HttpProtocolOptions

from controller.api.credentials import CredentialSource, HeaderCredential, OAuth, RemoteAuth
from tests.support.data_plane.model import Wanted
from tests.support.data_plane.mutation import Change, clusters, managers
from tests.support.data_plane.plane import Plane
from tests.support.data_plane.trap import with_and_without

pytestmark = pytest.mark.asyncio(loop_scope="module")

OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
OF_SECRET = CredentialSource.of_secret("missing", "x")
KEY = RemoteAuth(api_key=HeaderCredential(header="x-key", value=OF_SECRET))
TOKEN = RemoteAuth(oauth=OAuth(client_id="me", client_secret=OF_SECRET, token_url="http://127.0.0.1:1/token"))
kinds = pytest.mark.parametrize("auth", [KEY, TOKEN], ids=["key", "token"])


def answer_401(manager: HttpConnectionManager) -> None:
    manager.ClearField("local_reply_config")


@kinds
@with_and_without(managers(answer_401), "local_reply_config")
async def test_a_request_without_a_credential_is_answered_by_a_replica(
    plane: Plane, auth: RemoteAuth, change: Change, held: bool
) -> None:
    model = await plane.serve(Wanted(away=100, auth=auth, change=change))

    reply = await plane.ask(model, headers=[("authorization", "Bearer of-the-client")])

    records = plane.backends.seen(reply.probe)
    if held:
        assert (reply.status, reply.route) == (200, "local")
        assert dict(records[0]["headers"])["authorization"] == "Bearer of-the-client"
    else:
        assert (reply.status, records) == (401, [])


def leave_without(cluster: Cluster) -> None:
    options, injector = HttpProtocolOptions(), CredentialInjector()
    if cluster.name.startswith("backend/") and cluster.typed_extension_protocol_options[OPTIONS].Unpack(options):
        assert options.http_filters[0].typed_config.Unpack(injector)
        injector.allow_request_without_credential = True
        options.http_filters[0].typed_config.Pack(injector)
        cluster.typed_extension_protocol_options[OPTIONS].Pack(options)


@kinds
@with_and_without(clusters(leave_without), "allow_request_without_credential")
async def test_a_request_without_a_credential_never_leaves(
    plane: Plane, auth: RemoteAuth, change: Change, held: bool
) -> None:
    model = await plane.serve(Wanted(away=100, auth=auth, change=change))

    reply = await plane.ask(model)

    assert [one["servedBy"] == "remote" for one in plane.backends.seen(reply.probe)] == [not held]
