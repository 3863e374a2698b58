"""Events as whoever runs kubectl sees them, written by the recorder to a real API server."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from controller.api.timing import REAL, EventTiming, KubeTiming
from controller.runtime.events import EventRecorder
from controller.store.events import Event
from controller.store.kube import KubeClient
from controller.store.kube.objects import KubeObjects
from controller.store.objects import ObjectRef
from tests.support.kube.request import writing
from tests.support.kube.user import UserHand, path_of
from tests.support.objects import a_model
from tests.support.waiting import PATIENCE, until

EVENTS = {"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch"]}
NAME = "a"
SPLIT = "18.5 of 16 concurrent requests per replica: 80/20"


class Stage:
    """A model in a namespace, and what is told of it."""

    def __init__(self, cluster, namespace, uid):
        self.cluster = cluster
        self.namespace = namespace
        self._uid = uid

    def event(self, message=SPLIT, reason="SplitChanged", kind="Normal"):
        ref = ObjectRef("ModelDeployment", self.namespace, NAME)
        return Event(ref, self._uid, kind, reason, message, datetime.now(UTC))

    def kubectl(self, *arguments):
        return self.cluster.kubectl(*arguments, f"--namespace={self.namespace}").stdout

    def written(self):
        """The Event objects there are."""
        return json.loads(self.kubectl("get", "events.v1.events.k8s.io", "--output=json"))["items"]

    async def until_written(self, count=1):
        async def there():
            # Beside the loop, in which the recorder and a proxy have their turns.
            return len(await asyncio.to_thread(self.written)) == count

        await until(there, f"{count} events")


@pytest.fixture
async def stage(api_server, crds, namespace):
    raw = a_model(NAME).in_namespace(namespace).raw
    await UserHand(api_server).apply(raw)
    with api_server.client() as client:
        uid = client.get(path_of(raw)).raise_for_status().json()["metadata"]["uid"]
    return Stage(api_server, namespace, uid)


PATIENT = EventTiming(flush=PATIENCE)
"""What is left is written at the end, however long that takes."""
RETRYING = replace(PATIENT, write=1.0, first_retry=0.25)
"""What fails is soon tried again."""
ONCE = replace(PATIENT, write=2 * PATIENCE, update_every=3600.0)
"""A count is written at the end alone, and nothing twice, however long it all takes."""
ANSWERED = KubeTiming(answer=2 * PATIENCE, connect=2 * PATIENCE)
"""Whatever is asked is answered in time: what a client gives up on is sent again, though it was done."""


@asynccontextmanager
async def recording(kubeconfig, timing=PATIENT, kube=REAL.kube):
    async with KubeClient.from_environment(kubeconfig, timing=kube) as client:
        recorder = EventRecorder(KubeObjects(client), "replica-0", lambda: datetime.now(UTC), timing)
        running = asyncio.create_task(recorder.run())
        try:
            yield recorder
            assert not running.done()
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def test_kubectl_describe_shows_what_happened_to_a_model(stage, api_server):
    async with recording(api_server.kubeconfig) as recorder:
        recorder.record(stage.event())
        recorder.record(stage.event("port 80 of Service default/a is that of b", "Conflict", "Warning"))
        await stage.until_written(2)
    described = stage.kubectl("describe", "mdep", NAME)
    lines = described[described.index("Events:") :].splitlines()
    (split,) = (line for line in lines if "SplitChanged" in line)
    assert split.split()[0] == "Normal"
    assert "beamlit.com/controller" in split
    assert split.endswith(SPLIT)
    (conflict,) = (line for line in lines if "Conflict" in line)
    assert conflict.split()[0] == "Warning"


async def test_kubectl_get_events_shows_it_with_the_object(stage, api_server):
    async with recording(api_server.kubeconfig) as recorder:
        recorder.record(stage.event())
        await stage.until_written()
    (line,) = stage.kubectl("get", "events", "--no-headers").splitlines()
    assert line.split()[1:4] == ["Normal", "SplitChanged", f"modeldeployment/{NAME}"]
    assert line.endswith(SPLIT)
    assert SPLIT in stage.kubectl("events", f"--for=modeldeployment/{NAME}")


async def test_repetitions_are_one_event_with_a_count(stage, api_server):
    async with recording(api_server.kubeconfig) as recorder:
        recorder.record(stage.event())
        await stage.until_written()
        for _ in range(4):
            recorder.record(stage.event())
    (event,) = stage.written()
    assert event["series"]["count"] == 5
    assert event["series"]["lastObservedTime"] > event["eventTime"]
    assert "(x5 over" in stage.kubectl("describe", "mdep", NAME)


async def test_the_messages_of_a_flapping_model_do_not_flood_the_cluster(stage, proxy):
    async with recording(proxy.kubeconfig, ONCE, ANSWERED) as recorder:
        for number in range(500):
            recorder.record(stage.event(f"{number} of 16 concurrent requests per replica"))
        await stage.until_written(11)
    assert len(stage.written()) == 11
    assert sum(event.get("series", {"count": 1})["count"] for event in stage.written()) == 500
    assert len(proxy.writes) <= 12


async def test_an_event_that_is_gone_is_written_anew(stage, api_server):
    async with recording(api_server.kubeconfig) as recorder:
        recorder.record(stage.event())
        await stage.until_written()
        stage.kubectl("delete", "events", "--all")
        recorder.record(stage.event())
    (event,) = stage.written()
    assert event["series"]["count"] == 2


async def test_events_wait_for_an_api_server_that_is_away(stage, proxy):
    async with recording(proxy.kubeconfig, RETRYING) as recorder:
        async with proxy.away():
            for _ in range(3):
                recorder.record(stage.event())
        await stage.until_written()
    (event,) = stage.written()
    assert event["series"]["count"] == 3
    assert recorder.dropped == 0


async def test_an_event_whose_answer_was_lost_is_not_written_twice(stage, proxy):
    proxy_loses = proxy.answers_held(writing("events"))
    async with recording(proxy.kubeconfig, RETRYING) as recorder:
        with proxy_loses as gate:
            recorder.record(stage.event())

            async def sent_again():
                return len(gate.waiting) >= 2

            await until(sent_again, "it was sent again, since nobody answered")
    assert len(stage.written()) == 1
    assert recorder.dropped == 0


async def test_two_verbs_on_events_are_enough(stage, api_server):
    user = api_server.user(stage.namespace, "recorder", EVENTS)
    async with recording(user.kubeconfig) as recorder:
        recorder.record(stage.event())
        await stage.until_written()
        recorder.record(stage.event())
    assert stage.written()[0]["series"]["count"] == 2


async def test_who_may_not_write_events_says_so_once_and_goes_on(stage, api_server, caplog):
    caplog.set_level("WARNING")
    user = api_server.user(stage.namespace, "recorder")
    async with recording(user.kubeconfig) as recorder:
        for number in range(3):
            recorder.record(stage.event(str(number)))

        async def dropped():
            return recorder.dropped == 3

        await until(dropped, "all are dropped")
    (record,) = (one for one in caplog.records if one.name.startswith("controller."))
    assert "cannot create resource" in record.because


async def test_a_message_and_a_name_at_the_edge_of_what_the_api_takes(stage, api_server):
    edge = ObjectRef("ModelDeployment", stage.namespace, ".".join(["x" * 60] * 4))
    async with recording(api_server.kubeconfig) as recorder:
        at = datetime.now(UTC)
        recorder.record(Event(edge, "some-uid", "Warning", "R" * 128, "é" * 2000, at))
        await stage.until_written()
    assert recorder.dropped == 0
