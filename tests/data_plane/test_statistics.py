"""What Envoy counts of a model with the bootstrap that we print, and with everything."""

from __future__ import annotations

import pytest

from tests.support.data_plane.model import Model, Wanted
from tests.support.data_plane.plane import Plane
from tests.support.envoy import Bootstrap, Envoy
from tests.support.statistics import documented
from xds_server.resources import names

pytestmark = pytest.mark.asyncio(loop_scope="module")


def everything(bootstrap: Bootstrap) -> None:
    """As `--all-statistics` has it."""
    del bootstrap["stats_config"], bootstrap["deferred_stat_options"]


async def counted(envoy: Envoy, model: Model) -> set[str]:
    """Name what is counted of a model, histograms included."""
    lines = (await envoy.all_stats()).splitlines()
    return {name for name, _, _ in (line.rpartition(": ") for line in lines) if str(model.key) in name}


async def test_what_is_counted_is_what_the_documentation_names(plane: Plane) -> None:
    model = await plane.serve(Wanted(away=50))
    for _ in range(20):
        await plane.ask(model)

    kept = await counted(plane.envoy, model)

    assert {name.rpartition(".")[2] for name in kept} <= {name.rpartition(".")[2] for name in documented()}
    for name in ("downstream_rq_total", "downstream_rq_2xx", "downstream_rq_time", "downstream_cx_tx_bytes_buffered"):
        assert f"http.{model.key}.{name}" in kept
    for name in ("upstream_rq_2xx", "upstream_rq_time"):
        assert f"cluster.{names.local_first_cluster(model.key)}.{name}" in kept
    for name in ("upstream_rq_total", "upstream_cx_connect_fail", "membership_healthy", "health_check.failure"):
        assert f"cluster.{names.local_cluster(model.key)}.{name}" in kept


async def test_all_of_it_is_there_for_who_wants_it(plane: Plane) -> None:
    model = await plane.serve(Wanted(away=50))
    whole = await plane.join("counts-everything", change=everything)

    kept, all_there_is = await counted(plane.envoy, model), await counted(whole, model)

    assert kept < all_there_is
    # Measured: 42 and 611 (docs/adr/0027); what a bootstrap keeps is to stay a small part.
    assert len(kept) < len(all_there_is) / 5
