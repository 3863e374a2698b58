"""What Envoy reports of the requests it sent is what was sent."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import httpx
import pytest
from pydantic import SecretStr

from controller.api.contract.credentials import CredentialSource, HeaderCredential, RemoteAuth
from controller.api.contract.reports import Count
from controller.api.contract.route import RouteKey
from controller.api.timing import StreamTiming, Timing
from tests.support.data_plane.model import Model, Wanted
from tests.support.data_plane.plane import Plane
from tests.support.load import Traffic, closed_loop
from tests.support.network import unused_port
from tests.support.timing import PATIENT
from tests.support.waiting import until
from xds_server.loads.loads import Answers
from xds_server.resources.names import is_backend

EVERYBODYS = RemoteAuth(api_key=HeaderCredential(header="x-key", value=CredentialSource(source="DefaultBackend")))

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def timing() -> Timing:
    return replace(PATIENT, streams=StreamTiming(loads_every=0.1))


def counted(plane: Plane, model: Model, side: str) -> Count:
    return plane.loads.totals().get(f"{model.key}/{side}", Count())


async def all_counted(plane: Plane, model: Model, local: int, remote: int) -> None:
    """Wait until so many requests ended on each side, and see that it stays so."""

    async def is_so() -> bool:
        ended = [counted(plane, model, side) for side in ("local", "remote")]
        return [one.succeeded + one.failed for one in ended] == [local, remote]

    def so_far() -> str:
        return f"{counted(plane, model, 'local')} {counted(plane, model, 'remote')}"

    await until(is_so, f"{local} and {remote} are counted; {so_far()}", within=30)
    await plane.told_of_loads()
    assert await is_so(), so_far()


async def reported(plane: Plane, model: Model) -> None:
    """Wait until Envoy reports on the model: what it sent to a new cluster before its next report does not count."""

    async def is_so() -> bool:
        return f"{model.key}/local" in plane.loads.in_flight(asyncio.get_running_loop().time())

    await until(is_so, "Envoy reports on the model")
    await plane.told_of_loads()  # by now on all of its clusters: one may have been new for longer than another


async def serve(plane: Plane, wanted: Wanted, replicas: int = 3) -> Model:
    model = await plane.serve(wanted)
    await plane.healthy(model, replicas)
    await reported(plane, model)
    return model


async def test_every_request_is_counted_once_on_its_side(plane: Plane) -> None:
    model = await serve(plane, Wanted(away=40))
    report = await closed_loop(model.url, clients=8, requests=500)
    assert not report.errors
    await all_counted(plane, model, report.summary.local, report.summary.remote)
    assert report.summary.local and report.summary.remote
    for side, sent in (("local", report.summary.local), ("remote", report.summary.remote)):
        assert counted(plane, model, side) == Count(issued=sent, succeeded=sent)


async def test_what_failed_over_is_of_the_remote_side(plane: Plane) -> None:
    model = await serve(plane, Wanted())
    with plane.backends.killed(*plane.backends.local):
        report = await closed_loop(model.url, clients=8, requests=300)
        await all_counted_remote(plane, model, 300)
    assert (report.summary.remote, report.errors) == (300, {})
    before = counted(plane, model, "local")
    assert before.succeeded == 0

    await plane.healthy(model, 3)
    back = await closed_loop(model.url, clients=8, requests=200)
    assert back.summary.local == 200

    async def all_are_counted() -> bool:
        return [counted(plane, model, side).succeeded for side in ("local", "remote")] == [200, 300]

    await until(all_are_counted, "200 and 300 are counted")


async def test_what_replicas_with_room_failed_is_told_of_them_though_it_was_answered_remotely(plane: Plane) -> None:
    """By this a controller tells replicas that fail from those that are full."""
    model = await serve(plane, Wanted(limit=100))
    for _ in range(2):
        assert (await plane.ask(model, headers=[("on-local", "status=503")])).route == "remote"
    assert (await plane.ask(model)).route == "local"

    async def is_counted() -> bool:
        return counted(plane, model, "local").succeeded == 1 and counted(plane, model, "remote").succeeded == 2

    await until(is_counted, f"one and two are answered; {counted(plane, model, 'local')}")
    await plane.told_of_loads()
    local = counted(plane, model, "local")
    assert local.failed >= 2 and local.issued == local.failed + 1


async def all_counted_remote(plane: Plane, model: Model, sent: int) -> None:
    async def is_so() -> bool:
        return counted(plane, model, "remote").succeeded == sent

    await until(is_so, f"{sent} are counted; {counted(plane, model, 'remote')}")


async def test_what_came_back_from_the_remote_side_is_of_the_local_one(plane: Plane) -> None:
    model = await serve(plane, Wanted(away=100))
    with plane.backends.killed(plane.backends.remote):
        report = await closed_loop(model.url, clients=8, requests=200)
        assert (report.summary.local, report.errors) == (200, {})

        async def is_counted() -> bool:
            return counted(plane, model, "local").succeeded == 200 and counted(plane, model, "remote").failed >= 200

        await until(is_counted, "200 tries on both sides are counted")
        # A report may be of the moment between the head of the last answer and its end.
        await plane.told_of_loads()
    assert counted(plane, model, "local") == Count(200, 200)
    assert counted(plane, model, "remote") == Count(failed=200), "nobody was reached, so nothing was issued"


async def test_what_both_sides_were_asked_is_of_both_and_failed_at_neither(plane: Plane) -> None:
    model = await serve(plane, Wanted(first_byte_timeout=timedelta(milliseconds=200)))
    late = Traffic(headers=lambda _: {"on-local": "held=late"})
    report = await closed_loop(model.url, clients=5, requests=5, traffic=late)
    for one in plane.backends.local:
        one.release("late")
    assert (report.summary.remote, report.errors) == (5, {})

    async def are_counted() -> bool:
        return [counted(plane, model, side).in_flight for side in ("local", "remote")] == [0, 0] and (
            counted(plane, model, "remote").issued == 5
        )

    await until(are_counted, "nothing is in flight")
    await plane.told_of_loads()
    assert counted(plane, model, "remote") == Count(issued=5, succeeded=5)
    assert counted(plane, model, "local") == Count(issued=5), "who was late is neither good nor bad"


async def test_answers_with_5xx_are_failures_of_the_backend(plane: Plane) -> None:
    model = await serve(plane, Wanted(away=100))
    for _ in range(5):
        reply = await plane.ask(model, headers=[("on-remote", "status=500")])
        assert reply.status == 500
    assert (await plane.ask(model, headers=[("on-remote", "status=404")])).status == 404

    async def is_counted() -> bool:
        return counted(plane, model, "remote") == Count(6, 1, 5)

    await until(is_counted, "5 of 6 failed")
    (backend,) = (key.name for key in plane.keys(model) if is_backend(key.name))

    async def are_told() -> bool:
        # Nobody is told anything while the last report is old.
        answers = plane.loads.answers(backend, frozenset({f"{model.key}/remote"}), asyncio.get_running_loop().time())
        return answers is not None and (answers.succeeded, answers.failed) == (1, 5)

    await until(are_told, "of the answers five are failures")


@pytest.mark.parametrize("auth", [None, EVERYBODYS], ids=["directly", "with the credential of the default backend"])
async def test_what_two_namespaces_send_to_one_backend_is_told_apart(plane: Plane, auth: RemoteAuth | None) -> None:
    secrets = ((EVERYBODYS.api_key.value, SecretStr("k")),) if auth and EVERYBODYS.api_key else ()
    wanted = Wanted(away=100, authority="shared.remote.test", auth=auth, secrets=secrets)
    first = await serve(plane, wanted)
    key, port = RouteKey.of_model("next", first.key.name), unused_port()
    second = await plane.change(Model(key, f"http://{plane.network.host(1)}:{port}/", wanted), wanted)
    await reported(plane, second)
    for _ in range(5):
        assert (await plane.ask(first, headers=[("on-remote", "status=500")])).status == 500
        assert (await plane.ask(second)).route == "remote"

    def told(model: Model) -> Answers | None:
        (backend,) = (one.name for one in plane.keys(model) if is_backend(one.name))
        return plane.loads.answers(backend, frozenset({f"{model.key}/remote"}), asyncio.get_running_loop().time())

    async def are_told() -> bool:
        return [told(first), told(second)] == [Answers(0, 5), Answers(5, 0)]

    await until(are_told, f"each is told of its own: {told(first)}, {told(second)}")
    await plane.withdraw(second)


async def test_what_a_client_gave_up_is_neither_and_what_broke_off_had_begun_well(plane: Plane) -> None:
    model = await serve(plane, Wanted())
    asking = asyncio.create_task(plane.ask(model, headers=[("on-local", "silent=1")]))
    await plane.until_in_flight(model, 1)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    with pytest.raises(httpx.HTTPError):
        await plane.ask(model, headers=[("on-local", "reset=after")])

    async def is_counted() -> bool:
        return counted(plane, model, "local") == Count(issued=2, succeeded=1)

    await until(is_counted, "two are issued, one of them ended well")
    await plane.told_of_loads()
    assert await is_counted()


async def test_what_is_in_flight_is_told_while_it_is_and_counts_when_it_ends(plane: Plane) -> None:
    model = await serve(plane, Wanted())

    def in_flight() -> int | None:
        return plane.loads.in_flight(asyncio.get_running_loop().time()).get(f"{model.key}/local")

    async def seven() -> bool:
        return in_flight() == 7 and counted(plane, model, "local") == Count(7, 0, 0, 7)

    async def none() -> bool:
        return in_flight() == 0 and counted(plane, model, "local") == Count(7, 7)

    waiting = [asyncio.create_task(plane.ask(model, headers=[("on-local", "held=x")])) for _ in range(7)]
    await until(seven, "7 are in flight, and counted as such")
    for one in plane.backends.local:
        one.release("x")
    await asyncio.gather(*waiting)
    await until(none, "none is in flight, and 7 are counted")


async def test_models_that_share_a_backend_are_told_apart_while_one_is_sent_there_directly(plane: Plane) -> None:
    """The other one's requests pass a cluster of its own, since they find no replica."""
    direct = await serve(plane, Wanted(away=100, authority="shared.test"))
    failing_over = await serve(plane, Wanted(replicas=(), authority="shared.test"), replicas=0)
    backend = {key.name for model in (direct, failing_over) for key in plane.keys(model) if is_backend(key.name)}
    assert len(backend) == 1
    reports = await asyncio.gather(
        closed_loop(direct.url, clients=4, requests=600), closed_loop(failing_over.url, clients=4, requests=500)
    )
    assert [report.errors for report in reports] == [{}, {}]
    await all_counted(plane, direct, 0, 600)
    await all_counted(plane, failing_over, 0, 500)

    # Now both are, and nobody can tell.
    await plane.change(failing_over, Wanted(away=50, authority="shared.test"))

    def known() -> set[str]:
        """Of these models; a third one shows that others are known."""
        flying = plane.loads.in_flight(asyncio.get_running_loop().time())
        return {
            key
            for name in flying
            if (key := name.rpartition("/")[0]) in map(str, (direct.key, third.key, failing_over.key))
        }

    third = await serve(plane, Wanted(away=50))
    await plane.ask(third)
    await until(lambda: known() == {str(third.key)}, "nobody can tell what is in flight of both")
    await plane.told_of_loads()
    assert known() == {str(third.key)}
