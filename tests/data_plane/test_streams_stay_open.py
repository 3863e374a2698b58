"""Open streams of every kind stay open whatever changes around them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import pytest_asyncio

from controller.api.contract.credentials import CredentialSource, RemoteTls
from tests.support.data_plane.impatience import CHECK, a_drain, change, impatient_stage_on, served
from tests.support.data_plane.model import Model
from tests.support.data_plane.open_streams import OpenStreams, opened
from tests.support.data_plane.protected import NAME, Pki
from tests.support.data_plane.stage import Stage
from tests.support.data_plane.stream_http import StreamServer
from tests.support.network import Network
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(network: Network, folder: Path) -> AsyncIterator[Stage]:
    async with impatient_stage_on(network, folder) as stage:
        yield stage


@contextlib.asynccontextmanager
async def fifty(stage: Stage, models: Mapping[str, Model]) -> AsyncIterator[OpenStreams]:
    """Open fifty streams of both sides; they must still be open at the end."""
    async with opened(stage, models, 50) as streams:
        assert {side for _, side in streams.sides} == {"local", "remote"}
        yield streams
        await streams.go_on()
        assert len(streams.streams) == 50


async def test_changes_of_weights_cut_no_stream(stage: Stage) -> None:
    models = await served(stage, away=50)

    async with fifty(stage, models) as streams:
        for away in (0, 100, 50, 100, 0, 50):
            await change(stage, models, away=away)
            await streams.go_on()


async def test_replicas_that_are_drained_keep_the_streams_they_have(stage: Stage) -> None:
    models = await served(stage, away=50, check=None)

    async with fifty(stage, models) as streams:
        for protocol, servers in (("http", stage.http), ("rpc", stage.rpc)):
            all_of_them, model = servers.replicas, models[protocol]
            not_ready = tuple(one._replace(ready=False) for one in all_of_them)
            for replicas in (all_of_them[1:], not_ready, all_of_them, (), all_of_them):
                await stage.plane.change(model, replace(model.wanted, replicas=replicas))
                await streams.go_on()


async def test_replicas_that_fail_their_checks_keep_the_streams_they_have(stage: Stage) -> None:
    model = await stage.plane.serve(stage.http.wanted(away=50, check=CHECK))

    async with fifty(stage, {"http": model}) as streams:
        for server in stage.http.local:
            server.healthy = False  # type: ignore[union-attr]
        try:
            await stage.plane.healthy(model, 0)
            await streams.go_on()
        finally:
            for server in stage.http.local:
                server.healthy = True  # type: ignore[union-attr]
        await stage.plane.healthy(model, len(stage.http.local))


async def test_an_xds_server_that_is_started_again_cuts_no_stream(stage: Stage) -> None:
    models = await served(stage, away=50)

    async with fifty(stage, models) as streams:
        for away in (0, 100):
            await stage.plane.restart()
            await streams.go_on()
            await change(stage, models, away=away)
            await streams.go_on()


@pytest.mark.parametrize("what", ["port", "model"])
async def test_a_listener_that_goes_lets_its_streams_end_for_a_while_and_then_ends_them(
    tmp_path: Path, what: str
) -> None:
    # Longer than a pause of the machine, in which they would get nothing; if need be, again with more.
    for drained in (5, 15, 45):
        folder = tmp_path / f"{drained}"
        folder.mkdir()
        async with impatient_stage_on(Network.unused(), folder, drained) as stage:
            if await _go_on_for_a_while(stage, what):
                return
    raise AssertionError("they end at once")


async def _go_on_for_a_while(stage: Stage, what: str) -> bool:
    """Say whether each got something after its listener had gone and before it ended, as all do."""
    models = await served(stage)

    async def vacate(model: Model) -> None:
        if what == "port":
            elsewhere = replace(model, url=model.url.replace(":9", ":7"))
            await stage.plane.change(elsewhere, model.wanted)
        else:
            await stage.plane.withdraw(model)

    async with opened(stage, models, 6) as streams:
        await asyncio.gather(*map(vacate, models.values()))
        goals = [len(one.numbers) + 2 for one in streams.streams]
        await until(lambda: len(streams.cut) == 6, "all have ended", within=90)
        assert [one for one in streams.streams if one.numbers != list(range(len(one.numbers)))] == []
        return all(len(one.numbers) >= goal for one, goal in zip(streams.streams, goals, strict=True))


async def test_new_authorities_cut_no_stream(stage: Stage, network: Network, tmp_path: Path) -> None:
    pki = Pki(tmp_path)
    one, another = CredentialSource.of_secret("one", "ca.crt"), CredentialSource.of_secret("another", "ca.crt")
    # Fifty connect at once, to a server that has one thread with everything else here.
    patience = timedelta(seconds=30)
    wanted = stage.http.wanted(
        "remote", host=network.host(60), tls=RemoteTls(server_name=NAME, ca=one), connect_timeout=patience
    )
    differently = replace(wanted, tls=RemoteTls(server_name=NAME, ca=another))
    stage.bring_secrets(wanted, {one: pki.authority})
    stage.bring_secrets(differently, {another: pki.authority})

    async with StreamServer("remote", network.host(60), stage.visits, pki.server_file).running():
        model = await stage.plane.serve(wanted)
        await stage.plane.all_go(model, "remote")
        async with opened(stage, {"http": model}) as streams:
            assert {side for _, side in streams.sides} == {"remote"}
            stage.bring_secrets(wanted, {one: pki.other_authority})
            await a_drain(stage)
            await streams.go_on(2)
            await _goes_to(stage, model, "local")  # what is new is by the new authority, which did not issue it
            await stage.plane.change(model, differently)
            await a_drain(stage)
            await streams.go_on(2)
            await _goes_to(stage, model, "remote")


async def _goes_to(stage: Stage, model: Model, side: str) -> None:
    async def is_so() -> bool:
        async with stage.session.get(f"{model.url}x", headers={"probe": stage.probe()}) as answer:
            return answer.headers["x-beamlit-route"] == side

    await until(is_so, f"new requests go to the {side} side")
