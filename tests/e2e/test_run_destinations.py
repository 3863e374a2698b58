"""`beamlit run` with a configuration that says where requests may go."""

from __future__ import annotations

import asyncio
from pathlib import Path

import yaml

from tests.support.beamlit import Product, ask, eventually
from tests.support.connections import accepting
from tests.support.data_plane.backends import Backends
from tests.support.e2e_manifests import endpoints, model, service, text_of
from tests.support.network import unused_port

DENIED = {"remoteBackends": {"deny": ["127.0.0.1", "::1"]}}


async def test_a_name_that_leads_to_a_denied_address_gets_nothing_also_while_no_replica_is_ready(
    tmp_path: Path, backends: Backends
) -> None:
    product, port, hidden, connections = Product(tmp_path), unused_port(), unused_port(), []
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(DENIED))
    remote = model("m", backends.remote)
    remote["spec"]["offloadingConfig"]["remoteBackend"]["host"] = f"localhost:{hidden}"
    product.save("m.yaml", text_of(remote, service("m", port), endpoints("m", *backends.local)))

    async def accepts(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer.get_extra_info("sockname"))

    async with accepting(accepts, port=hidden), product.running("--envoy", "--config", config):
        await product.programmed("m")
        words = "seen from the xDS server: localhost leads to an address that is refused"
        await eventually(lambda: product.condition("m", "RemoteHealthy"), ("False", "HostRefused", words).__eq__)
        assert (await product.condition("m", "ResolvedRefs"))[:2] == ("False", "HostRefused")
        assert {(await ask(port)).side for _ in range(10)} == {"local"}
        product.save("m.yaml", text_of(remote, service("m", port), endpoints("m", *backends.local, ready=False)))
        await eventually(lambda: product.split("m"), "100/0 NothingAnswers".__eq__)

        async def errors() -> set[str]:
            return {(await ask(port)).error for _ in range(10)}

        # The status says it before Envoy follows.
        await eventually(errors, {"status 503"}.__eq__)
    assert connections == []
