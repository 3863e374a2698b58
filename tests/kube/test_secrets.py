"""Credentials in a cluster: from a Secret to the remote backend."""

from __future__ import annotations

import asyncio
import secrets
import shlex
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.beamlit import eventually
from tests.support.data_plane.protected import Tokens
from tests.support.kube.credentials import sent, with_key, with_token
from tests.support.kube.site import Site
from tests.support.network import unused_port
from tests.support.objects import a_secret

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module")
async def tokens(running_site: Site) -> AsyncIterator[Tokens]:
    accepts = f"canary-{secrets.token_hex(8)}"
    async with Tokens(running_site.host, accepts, lifetime=4, port=unused_port()).running() as tokens:
        yield tokens


async def test_a_key_arrives_and_so_does_the_next_one(running_site: Site) -> None:
    site = running_site
    first, second = (f"canary-{secrets.token_hex(8)}" for _ in range(2))
    replica, remote = site.backend("local-1"), site.backend("remote")
    site.served("keyed", [replica])
    site.write(a_secret("known").holding(apiKey=first), with_key("keyed", remote, "known").overridden("remote=50"))
    await site.until_condition("keyed", "Ready", "True")
    port = await site.port("keyed")
    await eventually(lambda: sent(site, port, remote, "x-key"), lambda got: got == [first])
    modified = await site.envoys[0].stat("cluster_manager.cluster_modified")
    async with site.no_request_fails(port):
        await site.change(a_secret("known").holding(apiKey=second))
        await eventually(lambda: sent(site, port, remote, "x-key"), lambda got: got == [second])
    got = [one for _ in range(40) for one in await sent(site, port, remote, "x-key")]
    assert set(got) == {second}
    assert await site.envoys[0].stat("cluster_manager.cluster_modified") == modified


async def test_without_its_key_no_request_leaves_and_the_condition_says_which_is_missing(running_site: Site) -> None:
    site = running_site
    replica, remote = site.backend("local-1"), site.backend("remote")
    site.served("keyless", [replica])
    site.write(with_key("keyless", remote, "missing").overridden("remote=100"))
    message = await site.until_condition("keyless", "ResolvedRefs", "False", "SecretNotFound")
    label = f"kubectl -n {site.namespace} label secret missing beamlit.com/credential=true"
    assert message.startswith(f"Secret {site.namespace}/missing does not exist, or lacks the label that lets it")
    assert message.endswith(f"to let it: `{label}`")
    port = await site.port("keyless")
    await site.until_answered(port, "local-1")
    assert (await site.local_share(port, 100), remote.count()) == (1.0, 0)
    async with site.no_request_fails(port):
        await site.change(a_secret("missing").holding(other="x"))
        message = await site.until_condition("keyless", "ResolvedRefs", "False", "SecretKeyNotFound")
        assert message == f'Secret {site.namespace}/missing: key "apiKey" is missing'
        assert remote.count() == 0
        await site.change(a_secret("missing").holding(apiKey="now-it-is-there"))
        await site.until_condition("keyless", "Ready", "True")
        await eventually(lambda: sent(site, port, remote, "x-key"), lambda got: got == ["now-it-is-there"])
        await site.remove(a_secret("missing"))
        await site.until_condition("keyless", "ResolvedRefs", "False", "SecretNotFound")
        await site.until_answered(port, "local-1")
    counted = remote.count()
    assert (await site.local_share(port, 100), remote.count()) == (1.0, counted)


async def test_a_secret_is_a_credential_while_its_label_says_so_and_for_its_hosts(running_site: Site) -> None:
    site = running_site
    replica, remote = site.backend("local-1"), site.backend("remote")
    closed, value = a_secret("closed").holding(apiKey="for-us-alone").unlabelled(), ["for-us-alone"]
    site.served("closed", [replica])
    site.write(closed, with_key("closed", remote, "closed").overridden("remote=50"))
    message = await site.until_condition("closed", "ResolvedRefs", "False", "SecretNotFound")
    port = await site.port("closed")
    assert (await site.local_share(port, 100), remote.count()) == (1.0, 0)
    # Its owner does what the condition says.
    words = shlex.split(message.split("`")[1])
    assert words[:3] == ["kubectl", "-n", site.namespace]
    async with site.no_request_fails(port):
        await asyncio.to_thread(site.cluster.kubectl, *words[1:])
        await eventually(lambda: sent(site, port, remote, "x-key"), lambda got: got == value)
        await site.change(a_secret("closed").holding(apiKey=value[0]).for_hosts("other.example, 203.0.113.0/24"))
        message = await site.until_condition("closed", "ResolvedRefs", "False", "CredentialNotUsable")
        assert f"may not be used with {remote.host}" in message
        await site.until_answered(port, "local-1")
        await site.change(a_secret("closed").holding(apiKey=value[0]).for_hosts(f"{remote.host}, other.example"))
        await eventually(lambda: sent(site, port, remote, "x-key"), lambda got: got == value)
        await asyncio.to_thread(site.kubectl, "label", "secret", "closed", "beamlit.com/credential-")
        await site.until_condition("closed", "ResolvedRefs", "False", "SecretNotFound")
        await site.until_answered(port, "local-1")
    counted = remote.count()
    assert (await site.local_share(port, 100), remote.count()) == (1.0, counted)


async def test_a_secret_in_the_object_itself_works_and_is_warned_of(running_site: Site, tokens: Tokens) -> None:
    site = running_site
    replica, remote = site.backend("local-1"), site.backend("remote")
    site.served("inline", [replica])
    inline = with_token("inline", remote, tokens, clientSecret=tokens.accepts).overridden("remote=100")
    site.write(inline)
    await site.until_condition("inline", "Ready", "True")
    message = await site.until_condition("inline", "Accepted", "True", "AcceptedWithWarnings")
    assert "clientSecretRef" in message
    port = await site.port("inline")
    before = tokens.accepts
    await eventually(lambda: sent(site, port, remote, "authorization"), lambda got: got and got[0].endswith(before))
    # A new one is used once the tokens of the old one are over, or before.
    tokens.accepts = f"canary-{secrets.token_hex(8)}"
    async with site.no_request_fails(port):
        await site.change(with_token("inline", remote, tokens, clientSecret=tokens.accepts).overridden("remote=100"))
        await eventually(
            lambda: sent(site, port, remote, "authorization"), lambda got: got and got[0].endswith(tokens.accepts)
        )
