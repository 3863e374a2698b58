"""Which ports of the gateway the controller gives to models, as it is configured."""

from __future__ import annotations

from tests.support.beamlit import eventually
from tests.support.kube.site import Site
from tests.support.network import unused_port

SHARED_PORT = 8080
"""Where the Envoys listen for all models, unless the xDS server is told otherwise."""


async def test_a_namespace_has_its_quota_and_no_model_has_a_port_of_a_program(site: Site) -> None:
    replica, remote = site.backend("local-1"), site.backend("remote")
    first, second = (site.served(name, [replica], remote) for name in ("first", "second"))
    site.write(first)
    configuration = site.folder / "configuration.yaml"
    gateway = f"{{namespace: {site.namespace}, name: gateway, adminPort: 10000}}"
    configuration.write_text(f"modelsPerNamespace: 1\nproxyService: {gateway}\n")
    xds_server, controller = site.xds_server(), site.controller("--config", configuration)
    await site.envoy()
    for program in (xds_server, controller):
        await program.ready()
    await site.until_condition("first", "Ready", "True")
    assert await site.port("first") == 10001
    await site.change(second)
    message = await site.until_condition("second", "Accepted", "False", "NoPort")
    assert message.startswith(
        f"namespace {site.namespace} has as many ports of the gateway as a namespace may have: 1 "
    )
    await site.remove(first)
    await site.until_condition("second", "Ready", "True")
    assert await site.port("second") == 10002
    await site.until_answered(10002, "local-1")
    # Nor does anything leave for the gateway, by whichever of its names.
    itself = f"Gateway.{site.namespace}.svc.cluster.local."
    await site.change(second.with_remote(f"{itself}:80"))
    message = await site.until_condition("second", "ResolvedRefs", "False", "LoopDetected")
    assert message.endswith(f"{itself.lower()}, port 80, is this gateway itself: what is sent there comes back")


async def test_a_fixed_port_is_had_again_and_a_shared_one_leads_by_host(site: Site) -> None:
    replica, other, remote = (site.backend(name) for name in ("local-1", "local-2", "remote"))
    first = site.served("first", [replica], remote).fixing(12345)
    second = site.served("second", [other], remote).fixing(12345)
    site.write(first)
    # A port that the controller hears of from the xDS server alone.
    of_program = next(port for port in iter(unused_port, None) if port < 30_000)
    xds_server = site.xds_server("--token-address", f"{site.host}:{of_program}")
    controller = site.controller()
    await site.envoy()
    for program in (xds_server, controller):
        await program.ready()
    await site.until_condition("first", "Ready", "True")
    assert await site.port("first") == 12345
    await site.change(second.fixing(of_program))
    message = await site.until_condition("second", "Accepted", "False", "Conflict")
    assert message == f"spec.servingPort: port {of_program} is one that a program of the gateway listens on"
    await site.change(second)
    message = await site.until_condition("second", "Accepted", "False", "Conflict")
    assert message == f"spec.servingPort: port 12345 is already that of ModelDeployment {site.namespace}/first"
    await site.change(second.fixing(80))
    message = await site.until_condition("second", "Accepted", "False", "Invalid")
    assert message.startswith("spec.servingPort: must be a port that the gateway has for models, 10000 to 29999")
    await site.remove(second)

    await site.remove(first)
    await site.change(second.fixing(10000), first)
    for name, port in (("first", 12345), ("second", 10000)):
        await site.until_condition(name, "Ready", "True")
        assert await site.port(name) == port

    for name, server in (("first", "local-1"), ("second", "local-2")):
        host = f"{name}.{site.namespace}"
        for form in (host, f"{host}.svc", f"{host}.svc.cluster.local", f"{host}:80"):
            # Each thread of the Envoy hears by itself of what has been acknowledged.
            await eventually(
                lambda form=form: site.ask(SHARED_PORT, Host=form), lambda seen, server=server: seen.server == server
            )
    assert (await site.ask(SHARED_PORT, Host="first.default")).error == "status 404"
