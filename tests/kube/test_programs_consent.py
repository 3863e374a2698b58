"""A model in front of a Service of another namespace: served with the consent of that namespace, and no longer."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from controller.api.registry import REFERENCE_GRANT
from controller.api.timing import KubeTiming
from tests.support.beamlit import eventually
from tests.support.forked import Forked
from tests.support.kube.api_server import ApiServer
from tests.support.kube.crds import install_crds
from tests.support.kube.gateway_api import install_reference_grants, remove_reference_grants
from tests.support.kube.namespaces import fresh_namespace
from tests.support.kube.site import Site, endpoints, model, service
from tests.support.kube.user import UserHand
from tests.support.objects import a_grant
from tests.support.timing import PATIENT

SOON = replace(PATIENT, kube=KubeTiming(second_look=0.5))
"""Whether the Gateway API is there is looked at as often."""


@pytest.fixture
async def own_site(own_api_server: ApiServer, tmp_path: Path) -> AsyncIterator[Site]:
    install_crds(own_api_server)
    with fresh_namespace(own_api_server) as namespace:
        async with Site(own_api_server, namespace, tmp_path).running() as site:
            yield site


async def test_a_service_of_another_namespace_is_served_with_its_consent_alone(own_site: Site) -> None:
    site, cluster = own_site, own_site.cluster
    with fresh_namespace(cluster) as owner:
        hand, kubectl = UserHand(cluster), partial(asyncio.to_thread, cluster.kubectl)
        site.may_watch(owner)
        replica, remote = site.backend("local-1"), site.backend("remote")

        def of_the_owner(*objects: Any) -> list[dict[str, Any]]:
            return [one.in_namespace(owner).raw for one in objects]

        hand.apply_now(*of_the_owner(service("chat"), endpoints("chat", replica)))
        guest = model("guest", remote).fronting("chat", 80, namespace=owner)
        site.write(guest)
        await site.start("--namespaces", f"{site.namespace},{owner}", start=partial(Forked, context=SOON))

        # Nothing says yes.
        message = await site.until_condition("guest", "ResolvedRefs", "False", "RefNotPermitted")
        assert "route" not in await site.status("guest")

        # The status says what to do, and the owner does it.
        words = shlex.split(message.split("`")[1])
        assert words[0] == "kubectl"
        await kubectl(*words[1:])
        await site.until_condition("guest", "Ready", "True")
        port = await site.port("guest")
        await site.until_answered(port, "local-1")

        # The owner says no.
        annotation = words[-1].partition("=")[0]
        await kubectl("-n", owner, "annotate", "service", "chat", f"{annotation}-")
        await site.until_condition("guest", "ResolvedRefs", "False", "RefNotPermitted")
        await eventually(lambda: site.ask(port), lambda reply: reply.error)
        assert (await site.status("guest"))["servingPort"] == port
        reasons = partial(asyncio.to_thread, site.kubectl, "get", "events", "-o", "jsonpath={.items[*].reason}")
        await eventually(reasons, lambda seen: "RefNotPermitted" in seen.split())

        # The Gateway API is installed later, and the owner says yes in its words.
        await asyncio.to_thread(install_reference_grants, cluster, "v1beta1")
        grant = a_grant().of(site.namespace).to("Service", "chat").raw
        in_use = {**grant, "apiVersion": f"{REFERENCE_GRANT.group}/v1beta1", "metadata": {"name": "g"}}
        await asyncio.to_thread(cluster.apply, in_use, namespace=owner)
        await site.until_condition("guest", "Ready", "True")
        await site.until_answered(port, "local-1")

        # Who has the Service goes before any guest.
        at_home = model("home", remote).fronting("chat", 80)
        await hand.apply(*of_the_owner(at_home))
        await site.until_condition("guest", "Accepted", "False", "Conflict")
        await eventually(lambda: site.ask(port), lambda reply: reply.error)
        await hand.remove(*of_the_owner(at_home))
        await site.until_condition("guest", "Ready", "True")
        await site.until_answered(port, "local-1")

        # With the Gateway API its grants go.
        await asyncio.to_thread(remove_reference_grants, cluster)
        await site.until_condition("guest", "ResolvedRefs", "False", "RefNotPermitted")
        await eventually(lambda: site.ask(port), lambda reply: reply.error)
