"""What a report of load costs the xDS server and the controller: `make bench NAME=load_reports`.

An Envoy reports every second on every cluster it has, busy or not, with its whole node (61 KB) each time. Here it has
1,000 models with a remote backend each, and all the clusters of a model.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeVar

from envoy.service.load_stats.v3 import lrs_pb2

from controller.api.contract.reports import LoadReport
from controller.api.contract.route import LocalBackend, Remote, Route, RouteKey, Split
from controller.api.schema.values import parse
from controller.signals.fleet_loads import FleetLoads
from controller.store.objects import ObjectRef
from xds_server.loads.loads import LoadReader, Loads
from xds_server.resources import names
from xds_server.resources.backend_names import backend_name
from xds_server.snapshot.snapshot import CLUSTER, ResourceKey
from xds_server.stream.load_reporting.wire import LoadStream, parse_load_request
from xds_server.stream.protocol.parts import at_once
from xds_server.stream.wire import TOKEN_FIELD

MODELS = [RouteKey.of_model("default", f"model-{number}") for number in range(1000)]
ROUNDS = 30

T = TypeVar("T")


def main() -> None:
    """Print CPU milliseconds for one report: of nobody, of a tenth of the models, and of all."""
    print("models with requests   report   parsed   counted   told   bytes told   merged by the controller")
    for busy in (0, 100, 1000):
        _measure(busy)


def _measure(busy: int) -> None:
    raw, loads, fleet = report(busy), _serving(), FleetLoads()
    reader = LoadReader(loads)
    stream, times, told = LoadStream("envoy", 1.0), list[list[float]](), b""
    for second in range(ROUNDS):
        now = float(second)
        parsed, parsing = _timed(lambda: parse_load_request(raw))
        _, counting = _timed(lambda: at_once(loads.report_received(stream, parsed.loads, now)))  # noqa: B023
        told, telling = _timed(lambda: _lines(reader, now))  # noqa: B023
        _, merging = _timed(lambda: _merge(fleet, told))  # noqa: B023
        times.append([parsing, counting, telling, merging])
    parsing, counting, telling, merging = (statistics.median(column) for column in zip(*times, strict=True))
    print(
        f"{busy:20}   {len(raw) / 1000:4.0f} KB   {parsing:3.1f} ms   {counting:4.1f} ms"
        f"   {telling:3.1f} ms   {len(told) / 1000:7.1f} KB   {merging:3.1f} ms"
    )


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    begin = time.process_time()
    return work(), (time.process_time() - begin) * 1000


def _lines(reader: LoadReader, now: float) -> bytes:
    return b"\n".join(one.model_dump_json(by_alias=True).encode() for one in reader.news(now))


def _merge(fleet: FleetLoads, told: bytes) -> None:
    now = datetime.now(UTC)
    fleet.add_report(parse(LoadReport, json.loads(told)), now)
    fleet.load(ObjectRef(*MODELS[0]), now)


def _serving() -> Loads:
    loads = Loads()
    for model in MODELS:
        local = LocalBackend(namespace=model.namespace, service=model.name)
        route = Route.between(port=80, split=Split.away(50), local=local, remote=_remote(model))
        loads.set_route(model, route, [ResourceKey(CLUSTER, _backend(model))])
    return loads


def _remote(model: RouteKey) -> Remote:
    host = f"{model.name}.example"
    return Remote(host=host, port=80, authority=host)


def _backend(model: RouteKey) -> str:
    return backend_name(model, _remote(model))


def report(busy: int, token: str = "") -> bytes:
    """Write the report of an Envoy that has 1,000 models, so many of them with requests."""
    message = lrs_pb2.LoadStatsRequest()
    message.node.id, message.node.metadata[TOKEN_FIELD] = "envoy", token
    for number in range(516):
        message.node.extensions.add(name=f"envoy.extension.{number:03}", category="c" * 40, type_urls=["t" * 40])
    for number, model in enumerate(MODELS):
        sides = names.local_cluster(model), names.remote_cluster(model), _backend(model)
        for cluster in (*sides, names.local_first_cluster(model), names.fallback_cluster(model)):
            stats = message.cluster_stats.add(cluster_name=cluster)
            stats.load_report_interval.FromMicroseconds(1_000_123)
            if number < busy and cluster in sides:
                stats.upstream_locality_stats.add(
                    total_issued_requests=10,
                    total_successful_requests=9,
                    total_error_requests=1,
                    total_requests_in_progress=3,
                )
    packed: bytes = message.SerializeToString()
    return packed


if __name__ == "__main__":
    main()
