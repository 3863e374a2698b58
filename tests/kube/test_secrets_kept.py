"""Credentials in a cluster are no other namespace's, and are shown to nobody."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest

from controller.gateway.bootstrap import HostPort
from tests.support.beamlit import eventually
from tests.support.data_plane.protected import Tokens
from tests.support.kube.cluster import Cluster
from tests.support.kube.credentials import sent, with_key, with_token
from tests.support.kube.namespaces import fresh_namespace
from tests.support.kube.site import Site
from tests.support.network import unused_port
from tests.support.objects import a_secret

REPORTS = "/reports"


@pytest.fixture
def other_namespace(api_server: Cluster) -> Iterator[str]:
    with fresh_namespace(api_server) as name:
        yield name


@pytest.fixture
async def tokens(site: Site) -> AsyncIterator[Tokens]:
    accepts = f"canary-{secrets.token_hex(8)}"
    async with Tokens(site.host, accepts, lifetime=4, port=unused_port()).running() as tokens:
        yield tokens


async def test_a_secret_of_that_name_in_another_namespace_is_never_used(site: Site, other_namespace: str) -> None:
    replica, remote = site.backend("local-1"), site.backend("remote")
    site.served("chat", [replica])
    site.write(with_key("chat", remote, "key").overridden("remote=100"))
    # The xDS server can read it, and all else there.
    site.cluster.apply(a_secret("key").holding(apiKey="of-another").raw, namespace=other_namespace)
    site.may_watch(other_namespace)
    site.xds_server("--namespaces", f"{site.namespace},{other_namespace}")
    site.controller()
    await site.envoy()
    message = await site.until_condition("chat", "ResolvedRefs", "False", "SecretNotFound")
    assert message.startswith(f"Secret {site.namespace}/key does not exist, or lacks the label")
    port = await site.port("chat")
    await site.until_answered(port, "local-1")
    assert (await site.local_share(port, 100), remote.count()) == (1.0, 0)
    # Nor is there a way to ask for it.
    with pytest.raises(AssertionError, match="namespace"):
        site.write(with_key("asking", remote, "key", namespace=other_namespace))


async def test_no_secret_is_shown_anywhere(site: Site, tokens: Tokens) -> None:
    """The values are random: whatever holds one of them got it from us."""
    values = {name: f"canary-{name}-{secrets.token_hex(8)}" for name in ("key", "next", "client", "inline")}
    replica, remote = site.backend("local-1"), site.backend("remote")
    for name in ("keyed", "referring", "inline", "broken"):
        site.served(name, [replica])
    by_ref = with_token("referring", remote, tokens, clientSecretRef={"name": "client"})
    inline = with_token("inline", remote, tokens, clientSecret=values["inline"])
    broken = with_token("broken", remote, tokens, clientSecretRef={"name": "client", "key": "lines"})
    site.write(
        a_secret("key").holding(apiKey=values["key"]),
        a_secret("client").holding(clientSecret=values["client"], lines=f"{values['client']}\n\nx"),
    )
    models = (with_key("keyed", remote, "key"), by_ref, inline, broken)
    # As users do it: what kubectl keeps for itself holds the inline value, too.
    site.cluster.apply(*(one.overridden("remote=60").raw for one in models), namespace=site.namespace)
    await site.start("--log-level", "debug", controllers=2, xds_servers=2, envoys=2)
    await site.until_condition("keyed", "Ready", "True")
    await site.until_condition("broken", "ResolvedRefs", "False", "CredentialNotUsable")
    port = await site.port("keyed")
    await eventually(lambda: sent(site, port, remote, "x-key"), lambda got: got == [values["key"]])
    await site.change(a_secret("key").holding(apiKey=values["next"]))
    await eventually(lambda: sent(site, port, remote, "x-key"), lambda got: got == [values["next"]])

    shown = await everything_shown(site)
    # What is searched is what is there.
    assert {where for where, (text, mark) in shown.items() if mark not in text} == set()
    found = {(where, name) for where, (text, _) in shown.items() for name, value in values.items() if value in text}
    assert found == set()


async def everything_shown(site: Site) -> dict[str, tuple[str, str]]:
    """All that the programs and Envoy show, log or write, but for the users' own objects, each with a part of it."""
    read = [await site.status(name) for name in ("keyed", "referring", "inline", "broken")]
    shown = {
        "statuses": (json.dumps(read), "x-key"),
        "events": (await eventually(lambda: events(site), lambda said: "keyed" in said), "keyed"),
        "lease": (site.kubectl("get", "leases", "--output=yaml"), "beamlit-controller"),
    }
    for program in (*site.controllers, *site.xds_servers):
        shown[f"{program.name} metrics"] = ((await program.look("/metrics")).text, "beamlit_")
        shown[f"{program.name} log"] = (program.log, "serving")
    for address in site.reports:
        said = await eventually(lambda address=address: reports(site, address), lambda said: "keyed" in said)
        shown[f"{address} reports"] = (said, "keyed")
    for envoy in site.envoys:
        # Envoys join one after another.
        config = await eventually(envoy.dump, lambda config: "redacted" in config)
        shown[f"{envoy.node_id} config"] = (config, "redacted")
        shown[f"{envoy.node_id} log"] = (envoy.process.log.read_text(), "")
    return shown


async def events(site: Site) -> str:
    """The events that are written by now: each comes some time after the status that it tells of."""
    return await asyncio.to_thread(site.kubectl, "get", "events.events.k8s.io", "--output=yaml")


async def reports(site: Site, address: HostPort) -> str:
    """What `/reports` says at once."""
    said = ""
    assert site.certificates
    proof = site.certificates.client("controller").context()
    async with (
        httpx.AsyncClient(trust_env=False, verify=proof, timeout=120) as client,
        client.stream("GET", f"https://{address}{REPORTS}", extensions={"sni_hostname": "localhost"}) as stream,
    ):
        async for line in stream.aiter_lines():
            said += line
            if "envoys" in line:
                break
    return said
