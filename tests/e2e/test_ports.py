"""`beamlit run DIR --envoy`: ports that pass from one model to another by saving a file, while requests come."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from functools import partial

import pytest
import pytest_asyncio

from controller.api.timing import EnvoyTiming
from tests.support.beamlit import Product, ask, eventually, no_request_fails
from tests.support.data_plane.backends import Backends
from tests.support.e2e_manifests import endpoints, model, service, text_of
from tests.support.forked import Forked
from tests.support.network import unused_port
from tests.support.timing import PATIENT

pytestmark = pytest.mark.asyncio(loop_scope="module")

# However long this machine takes to decide who has a port next.
TIMING = replace(PATIENT, gateway=replace(PATIENT.gateway, vacated=600), envoy=EnvoyTiming(first_restart=0.1))


class Folder:
    """One file with all models: each has a replica of its own, and is known by it."""

    def __init__(self, product: Product, backends: Backends) -> None:
        self._product = product
        self._backends = backends

    def save(self, ports: Mapping[str, int]) -> None:
        """Save these models on these ports, and no others; `a` has the first replica, `b` the second, and so forth."""
        self._product.save("all.yaml", text_of(*(one for name, port in ports.items() for one in self._of(name, port))))

    async def serves(self, ports: Mapping[str, int]) -> None:
        """Wait until each port has the replica of its model."""
        for name, port in ports.items():
            wanted = self._replica(name).name
            await eventually(lambda port=port: ask(port), lambda reply, wanted=wanted: reply.server == wanted)
            await self._product.programmed(name)
            assert (await self._product.condition(name, "Accepted"))[0] == "True"

    def _of(self, name: str, port: int):
        yield model(name, self._backends.remote)
        yield service(name, port)
        yield endpoints(name, self._replica(name))

    def _replica(self, name: str):
        return self._backends.local["abc".index(name[0])]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def folder(backends: Backends, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Folder]:
    product = Product(tmp_path_factory.mktemp("run"), partial(Forked, context=TIMING))
    async with product.running("--envoy"):
        yield Folder(product, backends)


@pytest.fixture
def ports() -> list[int]:
    return [unused_port() for _ in range(4)]


async def goes_on(folder: Folder, before: dict[str, int], after: dict[str, int]) -> None:
    """From one save to the next, every port that has a model in both is answered all the time."""
    folder.save(before)
    await folder.serves(before)
    async with no_request_fails(*(set(before.values()) & set(after.values()))):
        folder.save(after)
        await folder.serves(after)


async def test_two_models_swap_their_ports(folder: Folder, ports: list[int]) -> None:
    one, two, *_ = ports
    await goes_on(folder, {"a": one, "b": two}, {"a": two, "b": one})


async def test_three_models_pass_theirs_round(folder: Folder, ports: list[int]) -> None:
    one, two, three, _ = ports
    await goes_on(folder, {"a": one, "b": two, "c": three}, {"a": two, "b": three, "c": one})


async def test_a_row_of_models_moves_up(folder: Folder, ports: list[int]) -> None:
    one, two, three, free = ports
    await goes_on(folder, {"a": one, "b": two, "c": three}, {"a": two, "b": three, "c": free})


async def test_a_model_is_renamed(folder: Folder, ports: list[int]) -> None:
    one, *_ = ports
    await goes_on(folder, {"a": one}, {"a-renamed": one})


async def test_a_port_that_a_model_leaves_is_the_next_ones(folder: Folder, ports: list[int]) -> None:
    one, two, *_ = ports
    await goes_on(folder, {"a": one, "b": two}, {"b": one})
