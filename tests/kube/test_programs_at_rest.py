"""Where nothing changes nothing is written, whoever comes and goes."""

from __future__ import annotations

import asyncio

from tests.support.beamlit import eventually
from tests.support.kube.site import Site


async def test_at_rest_nothing_is_written(site: Site) -> None:
    replica, remote = site.backend("local-1"), site.backend("remote")
    names = [f"m{number}" for number in range(5)]
    site.write(*(site.served(name, [replica], remote) for name in names))
    await site.start(xds_servers=2, envoys=2)
    for name in names:
        await site.until_condition(name, "Ready", "True")
    await asyncio.sleep(2)  # Nobody says when the last write was made.
    before, written = await versions(site, names), await site.writes()
    assert written >= len(names)
    await asyncio.sleep(10)
    assert (await versions(site, names), await site.writes()) == (before, written)
    # Nor does an Envoy write that goes and comes back.
    envoy = site.envoys[1]
    envoy.process.kill()
    again = await site.envoy("envoy-again", site.replicas[1])
    await eventually(lambda: again.stat("listener_manager.total_listeners_active"), lambda count: count >= len(names))
    await asyncio.sleep(2)
    assert (await versions(site, names), await site.writes()) == (before, written)
    # Nor another controller, that decides everything anew.
    (controller,) = site.controllers
    assert controller.end() == 0
    controller.start()
    await controller.ready()
    await eventually(controller.leads, bool)
    await asyncio.sleep(4)
    assert (await versions(site, names), await site.writes()) == (before, 0)


async def versions(site: Site, names: list[str]) -> list[str]:
    return [(await site.read(name))["metadata"]["resourceVersion"] for name in names]
