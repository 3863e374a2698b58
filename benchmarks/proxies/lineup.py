"""All Envoys of a run: started, known to do what they are to do, and their clients connected."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from benchmarks.proxies import configs
from benchmarks.proxies.comparison import SPLITS, VARIANTS, Kind, Variant
from benchmarks.proxies.configs import FRONT_PORT, Upstreams
from benchmarks.proxies.duties import duties, wait_until_splitting
from benchmarks.proxies.envoys import CannotRunError, Cpus, Envoys
from benchmarks.proxies.product import ServedModel, model_route
from benchmarks.proxies.protection import Protection
from benchmarks.proxies.slots import Clients, Slot
from tests.support.envoy import Envoy
from tests.support.network import Network
from xds_server.resources.translator import EnvoySettings

_CLIENTS = 32
_BODY = b'{"model": "chat", "messages": [{"role": "user", "content": "hello"}]}'
_AUTHORIZATION = "Bearer of-the-client"


@dataclass(frozen=True, slots=True)
class Proxy:
    """One variant that runs, and its clients."""

    envoy: Envoy
    clients: Clients

    def slot(self, seconds: float) -> Slot:
        """Put load on it for so long. Raises OSError when it is gone."""
        return self.clients.slot(seconds, self.envoy.process.usage.cpu_seconds)


@asynccontextmanager
async def lineup(envoys: Envoys, cpus: Cpus, protection: Protection) -> AsyncIterator[Mapping[Variant, Proxy]]:
    """Start one Envoy for each variant, and one that is the upstream of all. Raises CannotRunError."""
    network = Network.unused()
    upstreams = Upstreams.in_network(network)
    fronts = {variant: network.host(number) for number, variant in enumerate(VARIANTS, 1)}
    envoys.envoy("the upstream", configs.upstream(upstreams, protection.certificate), cpus.rest)
    async with AsyncExitStack() as stack:
        started = {}
        for variant, front in fronts.items():
            config = await _config(stack, variant, front, upstreams)
            started[variant] = envoys.envoy(str(variant), config, cpus.proxies)
        for variant, front in fronts.items():
            await wait_until_splitting(front, variant.local, envoys.check)
        await _compare_duties(fronts)
        proxies = {}
        for variant, envoy in started.items():
            proxies[variant] = Proxy(envoy, clients_of(stack, fronts[variant]))
        yield proxies


def _request(authorization: str) -> bytes:
    return (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: chat.default\r\nauthorization: %s\r\n"
        b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%s"
    ) % (authorization.encode(), len(_BODY), _BODY)


def clients_of(
    stack: AsyncExitStack, front: str, authorization: str = _AUTHORIZATION, tls: ssl.SSLContext | None = None
) -> Clients:
    """Connect the clients of one Envoy, until the stack unwinds."""
    clients = Clients((front, FRONT_PORT), _request(authorization), _CLIENTS, tls)
    stack.callback(clients.close)
    return clients


async def _config(stack: AsyncExitStack, variant: Variant, front: str, upstreams: Upstreams) -> str:
    match variant.kind:
        case Kind.STATIC:
            return configs.static(front, upstreams, variant.local)
        case Kind.BY_HAND:
            return configs.by_hand(front, upstreams, variant.local)
        case Kind.PRODUCT:
            plane = ServedModel(EnvoySettings(front), upstreams.replicas, model_route(upstreams, variant.local))
            stack.push_async_callback(plane.stop)
            return await plane.start()


async def _compare_duties(fronts: Mapping[Variant, str]) -> None:
    for local in SPLITS:
        product = await duties(fronts[Variant(Kind.PRODUCT, local)], local)
        by_hand = await duties(fronts[Variant(Kind.BY_HAND, local)], local)
        if product != by_hand:
            lines = [f"  only the product: {one}" for one in product - by_hand]
            lines += [f"  only by hand: {one}" for one in by_hand - product]
            raise CannotRunError("\n".join([f"with {local} % local, requests are not treated alike:", *lines]))
