"""A kind that an API server may lack: none of it is there, until it is installed, in whatever version."""

from __future__ import annotations

import asyncio

import pytest

from controller.api.registry import REFERENCE_GRANT
from tests.support.kube.api_server import ApiServer
from tests.support.kube.gateway_api import install_reference_grants, remove_reference_grants
from tests.support.kube.watched import becomes, running_store
from tests.support.manifests import make_object
from tests.support.objects import a_grant
from tests.support.reader import Reader

GRANT = a_grant().of("a").to("Service").in_namespace("default")
KINDS = ("Secret", REFERENCE_GRANT.kind)


def in_version(version: str) -> dict[str, object]:
    return {**GRANT.raw, "apiVersion": f"{REFERENCE_GRANT.group}/{version}"}


@pytest.fixture
def without_grants(api_server_of_module: ApiServer) -> ApiServer:
    """That of the module, before the kind is installed."""
    remove_reference_grants(api_server_of_module)
    return api_server_of_module


async def test_a_kind_may_come_go_and_change_its_version_while_a_store_runs(without_grants: ApiServer) -> None:
    cluster = without_grants
    async with running_store(cluster.kubeconfig, KINDS, "default", second_look=0.5) as store:
        reader = Reader(store, *KINDS)
        await reader.next()
        assert (store.not_ready(), store.troubles()) == (None, {})
        for version in ("v1beta1", "v1"):
            await asyncio.to_thread(install_reference_grants, cluster, version)
            await asyncio.to_thread(cluster.apply, in_version(version))
            await reader.until_seen(GRANT.ref)
            # What is read has one version, whichever the API server has.
            assert reader.find(GRANT.ref).raw["apiVersion"] == REFERENCE_GRANT.api_version
            if version == "v1beta1":
                await asyncio.to_thread(remove_reference_grants, cluster)
                await reader.until_gone(GRANT.ref)
                await asyncio.to_thread(cluster.apply, make_object("Secret", "s", "default"))
                await becomes(lambda: not store.troubles(), "nothing is in trouble")
        assert store.not_ready() is None


async def test_a_version_that_goes_while_another_stays_takes_no_object_along(without_grants: ApiServer) -> None:
    cluster = without_grants
    install_reference_grants(cluster, "v1beta1")
    cluster.apply(in_version("v1beta1"))
    async with running_store(cluster.kubeconfig, KINDS, "default", second_look=0.5) as store:
        reader = Reader(store, *KINDS)
        await reader.until_seen(GRANT.ref)
        await asyncio.to_thread(install_reference_grants, cluster, "v1")
        more = GRANT.named("more")
        await asyncio.to_thread(cluster.apply, {**more.raw, "apiVersion": f"{REFERENCE_GRANT.group}/v1"})
        await reader.until_seen(more.ref)
        assert reader.deleted == set()
