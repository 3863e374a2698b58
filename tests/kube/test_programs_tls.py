"""Both programs and `beamlit envoy` over mutual TLS: certificates and their authority are replaced under load."""

from __future__ import annotations

import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

from controller.api.timing import ReportTiming
from tests.support.data_plane.gateway import Gateway
from tests.support.forked import Forked
from tests.support.kube.site import Site, model, options_of
from tests.support.timing import PATIENT

IMPATIENT = partial(Forked, context=replace(PATIENT, reports=ReportTiming(forget_after=1.0)))


async def test_an_authority_is_replaced_in_two_runs_and_no_request_fails(site: Site, tmp_path: Path) -> None:
    certificates = site.certificates
    assert certificates
    replica, remote = site.backend("local-1"), site.backend("remote")
    site.write(site.served("chat", [replica], remote))
    await site.start(envoys=0)
    xds_server, controller = site.xds_servers[0], site.controllers[0]
    proof = (*options_of("xds", certificates.files("gateway")), "--xds-server-name", site.server_name)
    gateway = Gateway("gateway", site.replicas[0], "a token says nothing here", tmp_path, *proof)
    try:
        await gateway.ready()
        await site.until_condition("chat", "Programmed", "True")
        port = await site.port("chat")
        percentage = 50

        async def told_anew() -> None:
            """Whatever was replaced, a change gets to the Envoy, and the controller hears that it did."""
            nonlocal percentage
            percentage += 1
            await site.change(model("chat", remote).offloading(percentage=percentage))
            await site.until_condition("chat", "Programmed", "True")

        async with site.no_request_fails(port):
            certificates.renew(new_authority=True)
            await told_anew()
            certificates.renew()
            await told_anew()
            # Now everybody connects anew, with what the new authority signed, and those of before are gone.
            for old in (certificates.folder / "ca").glob("old-*.crt"):
                old.unlink()
            certificates.renew()
            xds_server.kill()
            xds_server.start()
            await xds_server.ready()
            await told_anew()
        assert (await controller.metric("beamlit_leader")) == 1
    finally:
        gateway.stop()


async def test_what_is_wrong_between_controller_and_xds_server_is_in_the_status(site: Site) -> None:
    assert site.certificates
    theirs = site.folder / "tls" / "controller"
    kept = site.folder / "kept"
    shutil.copytree(theirs, kept)
    for file in ("tls.crt", "tls.key"):
        shutil.copy(site.folder / "tls" / "reader" / file, theirs / file)
    site.write(site.served("chat", [site.backend("local-1")]))
    await site.start(start=IMPATIENT)
    await site.until_message("chat", "Programmed", "403 Forbidden: the client is no controller")
    for file in ("tls.key", "tls.crt"):
        shutil.copy(kept / file, theirs / file)
    await site.until_condition("chat", "Programmed", "True")
