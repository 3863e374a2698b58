"""One replica leads, whatever happens to its lease and to its way to the API server. Leases are real."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from tests.support.kube.elected import LEASE
from tests.support.kube.lease import lease_of
from tests.support.kube.request import every, writing
from tests.support.kube.standing import HELD, PATIENT, SHORT, standing
from tests.support.waiting import until

LEASES = {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "create", "update"]}


async def kubectl(cluster, namespace, *arguments):
    """Run kubectl while candidates of this process go on."""
    return (await asyncio.to_thread(cluster.kubectl, *arguments, f"--namespace={namespace}")).stdout


class Work:
    """What a leader in this process does: nothing, for as long as it leads."""

    def __init__(self):
        self.begun, self.ended = asyncio.Event(), asyncio.Event()

    async def __call__(self, leadership):
        self.ended.clear()
        self.begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.begun.clear()
            self.ended.set()


async def test_the_lease_says_what_client_go_says(api_server, namespace):
    work = Work()
    async with standing(api_server.kubeconfig, namespace, "first", work):
        await work.begun.wait()
        spec = (await lease_of(api_server, namespace))["spec"]
    assert spec.keys() == {"holderIdentity", "leaseDurationSeconds", "acquireTime", "renewTime", "leaseTransitions"}
    assert (spec["holderIdentity"], spec["leaseDurationSeconds"], spec["leaseTransitions"]) == ("first", SHORT, 0)

    released = (await lease_of(api_server, namespace))["spec"]
    assert (released["holderIdentity"], released["leaseDurationSeconds"]) == ("", 1)

    async with standing(api_server.kubeconfig, namespace, "second", work):
        await work.begun.wait()
        again = (await lease_of(api_server, namespace))["spec"]
    assert (again["holderIdentity"], again["leaseTransitions"]) == ("second", 1)
    assert again["acquireTime"] > spec["acquireTime"]


async def test_what_others_wrote_into_the_lease_stays(api_server, namespace):
    work = Work()
    api_server.kubectl("create", "--filename=-", input=json.dumps(half_empty_lease(namespace)))
    async with standing(api_server.kubeconfig, namespace, "me", work):
        await work.begun.wait()
    left = await lease_of(api_server, namespace)
    assert left["metadata"]["labels"] == {"kept": "yes"}
    assert left["spec"]["leaseTransitions"] == 1


def half_empty_lease(namespace):
    metadata = {"name": LEASE, "namespace": namespace, "labels": {"kept": "yes"}}
    return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata}


async def test_of_many_candidates_at_once_one_leads(api_server, namespace):
    works = [Work() for _ in range(5)]
    async with AsyncExitStack() as stack:
        elections = [
            await stack.enter_async_context(
                standing(api_server.kubeconfig, namespace, f"candidate-{number}", work, PATIENT)
            )
            for number, work in enumerate(works)
        ]

        async def all_know():
            # At no moment more than one.
            leading, working = sum(one.leading for one in elections), sum(work.begun.is_set() for work in works)
            assert leading <= 1
            assert working <= 1
            return len({one.holder for one in elections}) == 1 and elections[0].holder and leading == working == 1

        await until(all_know, "all know who leads, who works")


async def test_a_deleted_lease_is_made_again_by_who_held_it(api_server, namespace):
    work = Work()
    async with standing(api_server.kubeconfig, namespace, "me", work, HELD) as election:
        await work.begun.wait()
        await kubectl(api_server, namespace, "delete", "lease", LEASE)

        async def back():
            return await kubectl(api_server, namespace, "get", "leases", "--output=name")

        await until(back, "the lease is there again")
        assert election.leading
        assert not work.ended.is_set()


async def test_three_verbs_on_leases_are_enough(api_server, namespace):
    user, work = api_server.user(namespace, "elected", LEASES), Work()
    async with standing(user.kubeconfig, namespace, "me", work):
        await work.begun.wait()
    assert (await lease_of(api_server, namespace))["spec"]["holderIdentity"] == ""


async def test_who_may_not_have_the_lease_says_so_and_waits(api_server, namespace, caplog):
    caplog.set_level("WARNING")
    user, work = api_server.user(namespace, "elected"), Work()
    async with standing(user.kubeconfig, namespace, "me", work, PATIENT):

        async def said():
            return [one.because for one in caplog.records if one.name.startswith("controller.")]

        await until(said, "the log says what is not allowed")
        (because,) = await said()
        assert "cannot get resource" in because
        assert not work.begun.is_set()
        await asyncio.to_thread(api_server.user, namespace, "elected", LEASES)
        await work.begun.wait()


async def test_a_leader_that_is_cut_off_stops_and_stands_again(proxy, api_server, namespace):
    work = Work()
    async with standing(proxy.kubeconfig, namespace, "me", work) as election:
        await work.begun.wait()
        async with proxy.away():
            await work.ended.wait()
            assert not election.leading
        await work.begun.wait()
        transitions = (await lease_of(api_server, namespace))["spec"]["leaseTransitions"]
        assert transitions == 0, "nobody else led meanwhile"


async def test_a_leader_whose_api_server_was_silent_stops_and_stands_again(proxy, namespace):
    work = Work()
    async with standing(proxy.kubeconfig, namespace, "me", work):
        await work.begun.wait()
        with proxy.requests_held(every):
            await work.ended.wait()
        await work.begun.wait()


@asynccontextmanager
async def away(proxy):
    async with proxy.away():
        yield


@asynccontextmanager
async def silent(proxy):
    with proxy.requests_held(every):
        yield


@pytest.mark.parametrize("trouble", [away, silent])
async def test_a_leader_that_is_not_answered_has_stopped_when_its_lease_ends(proxy, api_server, namespace, trouble):
    mine, others = Work(), Work()
    async with standing(proxy.kubeconfig, namespace, "me", mine):
        await mine.begun.wait()
        async with standing(api_server.kubeconfig, namespace, "another", others), trouble(proxy):
            await others.begun.wait()
            assert mine.ended.is_set()


async def test_a_renewal_whose_answer_was_lost_does_not_end_leadership(proxy, namespace):
    work = Work()
    async with standing(proxy.kubeconfig, namespace, "me", work, HELD):
        await work.begun.wait()
        proxy.requests.clear()
        with proxy.answers_held(writing("leases")) as gate:

            async def given_up():
                return gate.waiting and any(request.method == "GET" for request in proxy.requests)

            await until(given_up, "the renewal was done, its answer was not awaited any longer")
        proxy.requests.clear()

        async def renewed():
            return len(proxy.writes) >= 2

        await until(renewed, "it is renewed again")
        assert not work.ended.is_set()


async def test_a_lease_that_the_version_before_wrote_is_waited_for_and_then_continued(api_server, namespace):
    """During an upgrade both versions stand for one lease: as the old one wrote it, so the new one reads it."""
    work = Work()
    spec = {
        "holderIdentity": "old-0_1a2b3c4d",
        "leaseDurationSeconds": SHORT,
        "acquireTime": "2026-01-01T12:00:00.000000Z",
        "renewTime": "2026-01-01T12:30:00.000000Z",
        "leaseTransitions": 4,
    }
    metadata = {"name": LEASE, "namespace": namespace}
    written = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}
    api_server.kubectl("create", "--filename=-", input=json.dumps(written))
    before = await lease_of(api_server, namespace)
    async with standing(api_server.kubeconfig, namespace, "new", work) as election:

        async def follows():
            return election.holder == "old-0_1a2b3c4d"

        await until(follows, "the old one is known to lead")
        assert not work.begun.is_set()
        await work.begun.wait()
        after = await lease_of(api_server, namespace)
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert after["spec"].keys() == spec.keys()
    assert (after["spec"]["holderIdentity"], after["spec"]["leaseTransitions"]) == ("new", 5)
    assert after["spec"]["acquireTime"] > spec["acquireTime"]


async def test_a_lease_is_made_by_one_request_and_renewed_by_another_that_names_its_version(proxy, namespace):
    """As the version before wrote it, with the rights that it had."""
    work = Work()
    async with standing(proxy.kubeconfig, namespace, "me", work, PATIENT):
        await work.begun.wait()

        async def renewed():
            return len(proxy.writes) >= 2

        await until(renewed, "it is renewed")
        first, second, *_ = proxy.writes
    made, renewal = json.loads(first.body), json.loads(second.body)
    assert (first.method, second.method) == ("POST", "PUT")
    assert made["metadata"] == {"name": LEASE, "namespace": namespace}
    assert renewal["metadata"]["resourceVersion"]
    assert renewal["metadata"]["uid"]
    assert (made["apiVersion"], made["kind"]) == ("coordination.k8s.io/v1", "Lease")
