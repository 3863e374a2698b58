"""What the programs of a cluster export is what docs/cluster.md says."""

from __future__ import annotations

import resource
import time
from functools import partial

from tests.support.forked import Forked
from tests.support.kube.site import Site
from tests.support.metrics import differences, exported


async def test_both_programs_export_what_is_documented_and_nothing_else(site: Site) -> None:
    site.write(site.served("chat", [site.backend("local-1")], site.backend("remote")).overridden("remote=20"))
    await site.start(start=partial(Forked, limits={resource.RLIMIT_NOFILE: (500, 1000)}))
    await site.until_condition("chat", "Ready", "True")
    (controller,), (xds_server,) = site.controllers, site.xds_servers
    of_controller = (await controller.look("/metrics")).text
    assert differences("C", of_controller) == []
    assert differences("X", (await xds_server.look("/metrics")).text) == []
    assert exported(of_controller)["beamlit_model_ready"], "a metric without a sample would show no labels"
    for metric, value in {"ready": 1, "replicas": 1, "replicas_ready": 1, "split_ratio": 1}.items():
        assert await controller.metric(f"beamlit_model_{metric}") == value
    assert await controller.metric("beamlit_reconcile_duration_seconds_count") > 0
    assert await controller.metric("beamlit_reconcile_errors_total") == 0
    assert await controller.metric("beamlit_build_info", program="controller") == 1
    for program in (controller, xds_server):
        assert await program.metric("process_max_fds") == 1000, "as many open files as it may have"
    for program, option in ((controller, "--xds-cert"), (xds_server, "--tls-cert")):
        assert await program.metric("beamlit_certificate_expiry_timestamp_seconds", option=option) > time.time()
