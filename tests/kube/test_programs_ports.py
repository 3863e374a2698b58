"""Which ports of the gateway the controller gives to models, as it is configured."""

from __future__ import annotations

from tests.support.kube.site import Site


async def test_a_namespace_has_its_quota_and_no_model_has_a_port_of_a_program(site: Site) -> None:
    replica, remote = site.backend("local-1"), site.backend("remote")
    first, second = (site.served(name, [replica], remote) for name in ("first", "second"))
    site.write(first)
    configuration = site.folder / "configuration.yaml"
    configuration.write_text("modelsPerNamespace: 1\nproxyService: {name: gateway, adminPort: 10000}\n")
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
    assert await site.port("second") == 10001
    await site.until_answered(10001, "local-1")
