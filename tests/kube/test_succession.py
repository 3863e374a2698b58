"""From one leader to the next: how long it takes, and what a deposed one writes is refused. Processes are real."""

from __future__ import annotations

import asyncio
import json
import signal
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime, timedelta
from itertools import pairwise

import pytest

from controller.api.timing import REAL
from controller.runtime.fencing import Fenced, NotLeaderError
from controller.store.kube import KubeClient, KubeStore
from controller.store.objects import ObjectRef
from controller.store.protocol import Precondition
from tests.support.kube.elected import MODEL, Elected, Writer
from tests.support.kube.lease import handing_over, is_of_the_lease, lease_of
from tests.support.kube.request import every, writing
from tests.support.kube.standing import SHORT, standing
from tests.support.kube.user import UserHand, path_of
from tests.support.objects import a_model
from tests.support.waiting import time_limit, until

STARTED_WITHIN = 30.0


@pytest.fixture
async def model(api_server, crds, namespace):
    """The model whose status the leaders write."""
    raw = a_model(MODEL).in_namespace(namespace).raw
    await UserHand(api_server).apply(raw)
    return raw


@pytest.fixture
def candidate(api_server, namespace, tmp_path):
    """Starts candidates as processes, and ends them."""
    children = []

    def start(identity, lease=REAL.lease.lease, kubeconfig=api_server.kubeconfig):
        child = Elected(kubeconfig, namespace, identity, tmp_path / f"{identity}.log", lease)
        children.append(child)
        return child

    yield start
    for child in children:
        child.kill()


async def until_said(child, word, times=1, within=STARTED_WITHIN):
    async def said():
        assert child.alive or len(child.said(word)) >= times, child.last_words()
        return len(child.said(word)) >= times

    await until(said, f"{child.identity} says {word!r}:\n{child.last_words()}", within)
    return child.said(word)[times - 1]


async def until_ended(child):
    async def gone():
        return not child.alive

    await until(gone, f"{child.identity} ends:\n{child.last_words()}")
    assert child.terminate() == 0


def writer_of(raw):
    """Who wrote the status of a model."""
    (condition,) = raw["status"]["conditions"]
    return condition["reason"]


def current(cluster, raw):
    """The object as the API server has it."""
    with cluster.client() as client:
        return client.get(path_of(raw)).raise_for_status().json()


class History:
    """Everything that the status of an object was, in order: who wrote it."""

    def __init__(self):
        self.writers = []
        self._news = asyncio.Condition()

    async def follow(self, lines):
        async for line in lines:
            event = json.loads(line)
            if event["type"] == "MODIFIED":
                async with self._news:
                    self.writers.append(writer_of(event["object"]))
                    self._news.notify_all()

    async def until_written_by(self, writer, within=STARTED_WITHIN):
        """Wait for a write of theirs that is the newest."""
        async with time_limit(within), self._news:
            await self._news.wait_for(lambda: self.writers[-1:] == [writer])

    @property
    def turns(self):
        return [writer for before, writer in pairwise(["", *self.writers]) if writer != before]


@asynccontextmanager
async def history_of(cluster, raw):
    history, (collection, _, name) = History(), path_of(raw).rpartition("/")
    version = current(cluster, raw)["metadata"]["resourceVersion"]
    query = {"watch": "true", "resourceVersion": version, "fieldSelector": f"metadata.name={name}"}
    async with KubeClient.from_environment(cluster.kubeconfig) as client, asyncio.TaskGroup() as tasks:
        following = tasks.create_task(history.follow(client.lines(collection, query)))
        yield history
        following.cancel()


class OneWrite:
    """The work of a leader that writes once, when it may; `outcome` is what came of it."""

    def __init__(self, identity):
        self.identity = identity
        self.leads, self.may_write = asyncio.Event(), asyncio.Event()
        self.may_write.set()
        self.outcome = asyncio.get_running_loop().create_future()

    @asynccontextmanager
    async def standing(self, kubeconfig, namespace):
        ref = ObjectRef("ModelDeployment", namespace, MODEL)
        async with (
            KubeClient.from_environment(kubeconfig) as client,
            KubeStore(client, ("ModelDeployment",), (namespace,)) as store,
        ):
            # Read before it is paused or cut off, as a controller would have.
            (model,) = (await anext(aiter(store.watch(["ModelDeployment"])))).changed

            async def work(leadership):
                self.leads.set()
                await self.may_write.wait()
                try:
                    writer = Writer(store, ref, self.identity)
                    await Fenced(store, leadership).patch_status(ref, writer.status(0), Precondition.unchanged(model))
                except BaseException as error:
                    if not self.outcome.done():
                        self.outcome.set_result(error)
                    raise
                self.outcome.set_result(None)
                await asyncio.Event().wait()

            async with standing(kubeconfig, namespace, self.identity, work):
                yield


@pytest.mark.timeout(180)
async def test_a_leader_that_is_asked_to_end_stops_writing_then_gives_way_at_once(candidate, proxy, model):
    # A lease of an hour: nobody leads before it is given back.
    leader = candidate("replica-0", 3600, proxy.kubeconfig)
    await until_said(leader, "leading")
    for number in range(1, 4):
        standby = candidate(f"replica-{number}", 3600, proxy.kubeconfig)
        await until_said(standby, "following")
        async with handing_over(proxy) as hand_over:
            leader.send(signal.SIGTERM)
        leads_at = await until_said(standby, "leading")
        stopped_at = await until_said(leader, "stopped")
        assert stopped_at < leads_at
        # It is given back at once: one renewal may have been on its way, and the other one looks every half second.
        renewals, looks = hand_over.until_release(leader.identity)
        assert renewals <= 1
        assert looks < 20
        # One may have been on its way; the next one, half a second later, finds it free.
        assert hand_over.looks_until_taken(standby.identity) <= 2
        await until_ended(leader)
        leader = standby


@pytest.mark.timeout(180)
async def test_after_a_kill_the_next_one_leads_when_the_lease_ends(api_server, namespace, candidate, proxy, model):
    leader = candidate("killed")
    await until_said(leader, "leading")
    standby = candidate("standby", kubeconfig=proxy.kubeconfig)
    await until_said(standby, "following")
    leader.kill()
    proxy.requests.clear()
    last = (await lease_of(api_server, namespace))["spec"]
    await until_said(standby, "leading")
    new = (await lease_of(api_server, namespace))["spec"]
    assert (last["holderIdentity"], new["holderIdentity"]) == ("killed", "standby")
    renewed, acquired = (datetime.fromisoformat(at) for at in (last["renewTime"], new["acquireTime"]))
    assert acquired - renewed > timedelta(seconds=REAL.lease.lease)
    # However slow the machine is, it does not look more often than that before the lease is over.
    looks = sum(is_of_the_lease(request) and not request.writes for request in proxy.requests)
    assert looks <= REAL.lease.lease / REAL.lease.look_every + 2


@pytest.mark.timeout(180)
async def test_a_leader_that_slept_longer_than_its_lease_writes_nothing_when_it_wakes(api_server, candidate, model):
    old = candidate("old", SHORT)
    await until_said(old, "leading")
    async with history_of(api_server, model) as history:
        await history.until_written_by("old")
        # It falls asleep three times, wherever in a write that may be, and leads again each time.
        for turn in range(1, 4):
            new = candidate(f"new-{turn}", SHORT)
            await until_said(new, "following")
            old.send(signal.SIGSTOP)
            await history.until_written_by(new.identity)
            old.send(signal.SIGCONT)
            await until_said(old, "stopped", times=turn)
            new.send(signal.SIGTERM)
            await until_ended(new)
            await until_said(old, "leading", times=turn + 1)
            await history.until_written_by("old")
    assert history.turns == ["old", "new-1", "old", "new-2", "old", "new-3", "old"]


async def test_a_write_that_arrives_after_its_author_was_deposed_is_refused(proxy, api_server, namespace, model):
    old, new = OneWrite("old"), OneWrite("new")
    old.may_write.clear()
    late = writing("modeldeployments", "status")
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(old.standing(proxy.kubeconfig, namespace))
        await old.leads.wait()
        with proxy.answers_held(late) as arrived:
            with proxy.requests_held(every) as held:
                old.may_write.set()
                await until(lambda: any(map(late, held.waiting)), "it is sent while it is leading")
                # Not before: however long that takes to begin, nobody deposes the old one until it has sent its write.
                await stack.enter_async_context(new.standing(api_server.kubeconfig, namespace))
                assert isinstance(await old.outcome, NotLeaderError)
                assert await new.outcome is None
                written = current(api_server, model)
                assert writer_of(written) == "new"

            async def there():
                return arrived.waiting

            await until(there, "the write arrived")
            assert current(api_server, model) == written
