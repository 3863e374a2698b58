"""`beamlit run` is killed with fifty streams open, started again and told of changes: none of them ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from controller.api.contract.route import RouteKey
from tests.support.data_plane.model import Model, Wanted
from tests.support.data_plane.open_streams import opened
from tests.support.data_plane.product import MODEL, Product
from tests.support.data_plane.stage import Servers, Stage
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize("protocol", ["http", "rpc"])
async def test_a_control_plane_that_is_killed_cuts_no_stream(stage: Stage, tmp_path: Path, protocol: str) -> None:
    sides: Servers = getattr(stage, protocol)
    remote = {"host": f"{sides.remote.host}:{sides.remote.port}", "scheme": "http"}
    product = Product(sides, tmp_path, remote)  # type: ignore[arg-type]
    product.offload_to(remote, away=50)
    try:
        await product.start()
        envoy = await product.join("envoy")
        model = Model(RouteKey.of_model("default", MODEL), f"http://127.0.0.1:{product.front}/", Wanted())

        async with opened(stage, {protocol: model}) as streams:
            assert {side for _, side in streams.sides} == {"local", "remote"}
            product.kill()
            await until(lambda: _connected(envoy, 0), "Envoy is alone", within=60)
            await streams.go_on()
            product.offload_to(remote, away=100)
            product.list_replicas(sides.local[:1], ready=False)  # type: ignore[arg-type]
            await product.start()
            await until(lambda: _connected(envoy, 1), "Envoy has found it", within=60)
            await product.says(Programmed="Programmed")
            await streams.go_on()
            assert len(streams.streams) == 50
    finally:
        await product.stop()


async def _connected(envoy: Any, state: int) -> bool:
    return bool(await envoy.stat("control_plane.connected_state") == state)
