"""`beamlit run` with a port that all models share, and a model that fixes its own."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

from controller.api.timing import FolderTiming
from tests.support.beamlit import Product, ask, eventually
from tests.support.data_plane.backends import Backends
from tests.support.e2e_manifests import endpoints, model, service, text_of
from tests.support.forked import Forked
from tests.support.network import unused_port
from tests.support.timing import PATIENT

TIMING = replace(PATIENT, folder=FolderTiming(relist=3600.0))


async def test_models_of_a_folder_are_called_by_host_and_on_ports_that_they_fix(
    backends: Backends, tmp_path: Path
) -> None:
    product, shared, fixed = Product(tmp_path, partial(Forked, context=TIMING)), unused_port(), unused_port()
    for name, replica in (("chat", backends.local[0]), ("embed", backends.local[1])):
        fixing = model(name, backends.remote)
        fixing["spec"]["servingPort"] = fixed if name == "embed" else shared
        objects = (fixing, service(name, unused_port()), endpoints(name, replica))
        product.save(f"{name}.yaml", text_of(*objects))
    async with product.running("--envoy", "--gateway-port", str(shared)):
        await product.programmed("embed")
        await eventually(lambda: ask(shared, Host="embed.default"), lambda reply: reply.server == "local-2")
        # A listener of its own: it may begin later than the shared one.
        await eventually(lambda: ask(fixed), lambda reply: reply.server == "local-2")
        assert (await ask(shared, Host="chat.default")).error == "status 404"
        needs = "needs itself (--xds-address, --admin-address, --gateway-port)"
        words = f"spec.servingPort: port {shared} is one that `beamlit run` {needs}"
        # Each model has its own write.
        await eventually(lambda: product.condition("chat", "Accepted"), ("False", "Conflict", words).__eq__)
        assert (await product.status("chat"))["conditions"][0]["type"] == "Accepted"

        moved = model("chat", backends.remote)
        product.save("chat.yaml", text_of(moved, service("chat", unused_port()), endpoints("chat", backends.local[0])))
        for host in ("chat.default", "chat.default.svc:80", "Chat.default.svc.cluster.local"):
            await eventually(lambda host=host: ask(shared, Host=host), lambda reply: reply.server == "local-1")

        moved["spec"]["offloadingConfig"]["remoteBackend"]["host"] = f"localhost:{shared}"
        product.save("chat.yaml", text_of(moved, service("chat", unused_port()), endpoints("chat", backends.local[0])))
        found = await eventually(lambda: product.condition("chat", "ResolvedRefs"), lambda said: said[0] == "False")
        assert found[1] == "LoopDetected"
