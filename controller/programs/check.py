"""What `beamlit check` does: it looks at a cluster before or after an install, once or until all is well."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from controller.api.schema.text import one_line
from controller.api.timing import Timing
from controller.check.api_server import ANSWERS, REFUSES, check_api_server, check_apis, check_metrics
from controller.check.cluster import ClusterReader, Listed
from controller.check.control_plane import check_control_plane
from controller.check.definitions import check_definitions
from controller.check.installation import USUAL_NAMESPACE, Sought, find_installation
from controller.check.models import check_models, read_models
from controller.check.report import CheckReport, Finding, Topic, TopicFindings
from controller.check.rights import check_may_install, check_rights
from controller.store.kube import KubeClient
from controller.store.protocol import ConfigurationError

__all__ = ["CheckOptions", "ConfigurationError", "checked", "sought_of", "stands_on"]

_MOST_REQUESTS = 2000
_MOST_TOLD = 3


@dataclass(frozen=True, slots=True)
class CheckOptions:
    """What the command line says: where the cluster is, what of it to look at, and how long to wait for it to be well.

    Without `wait` it looks once. `before` an install nothing has to be there.
    """

    timing: Timing
    kubeconfig: Path | None = None
    context: str | None = None
    before: bool = False
    wait: timedelta | None = None
    sought: Sought = field(default_factory=Sought)


def sought_of(options: Mapping[str, object]) -> Sought:
    """Read what the command line says of the installation, by the names of its options."""
    given = {name: value for name, value in options.items() if value is not None}
    names = given.pop("namespaces", "")
    listed = tuple(name for one in str(names).split(",") if (name := one.strip()))
    return Sought(namespaces=listed, **given)  # type: ignore[arg-type]


def checked(options: CheckOptions, clock: Callable[[], datetime], say: Callable[[str], None]) -> CheckReport:
    """Look, and while that is waited for again and again; progress is given to `say`, line by line.

    Raises ConfigurationError when it cannot be told where the cluster is.
    """
    return asyncio.run(_checked(options, clock, say))


def stands_on(report: CheckReport) -> Finding | None:
    """Find what kept everything else from being looked at: the API server that gives no answer, or does not know us."""
    first = (Topic.API_SERVER, (ANSWERS, REFUSES))
    return next((one for one in report.failed if one.topic is first[0] and one.check in first[1]), None)


async def _checked(options: CheckOptions, clock: Callable[[], datetime], say: Callable[[str], None]) -> CheckReport:
    timing = options.timing.inspection
    loop = asyncio.get_running_loop()
    ends = loop.time() + (options.wait.total_seconds() if options.wait else 0)
    client = KubeClient.from_environment(options.kubeconfig, options.context, options.timing.kube)
    pause, told = timing.first_pause, ""
    async with client:
        while True:
            report = await _look(client, options, clock)
            left = ends - loop.time()
            if options.wait is None or report.is_well or left <= 0:
                return report
            if (words := _in_few_words(report)) != told:
                told = words
                say(words)
            await asyncio.sleep(min(pause, left))
            pause = min(pause * 1.5, timing.longest_pause)


def _in_few_words(report: CheckReport) -> str:
    failed = report.failed
    words = "; ".join(f"{one.name}: {one_line(one.message)}" for one in failed[:_MOST_TOLD])
    more = f"; and {len(failed) - _MOST_TOLD} more" if len(failed) > _MOST_TOLD else ""
    return f"waiting: {len(failed)} of {len(report.findings)} checks fail: {words}{more}"


async def _look(client: KubeClient, options: CheckOptions, clock: Callable[[], datetime]) -> CheckReport:
    """Look at everything once. What was found until the time is over is reported."""
    timing = options.timing.inspection
    reader = ClusterReader(client, _MOST_REQUESTS, timing.answer)
    found: list[Finding] = []
    try:
        async with asyncio.timeout(timing.whole):
            await _look_at_all(reader, options, clock, found)
    except TimeoutError:
        words = f"not everything was looked at within {timing.whole:.0f} s: the API server is slow"
        found.append(TopicFindings(Topic.API_SERVER).unseen("time", words))
    return CheckReport.of(found)


async def _look_at_all(
    reader: ClusterReader, options: CheckOptions, clock: Callable[[], datetime], found: list[Finding]
) -> None:
    first, server_time = await check_api_server(reader, clock)
    found += first
    if stands_on(CheckReport.of(first)):
        return
    now = server_time or clock()

    async def taken(findings: asyncio.Future[tuple[Finding, ...]]) -> None:
        found.extend(await findings)

    if options.before:
        namespace = options.sought.namespace or USUAL_NAMESPACE
        looks = (check_apis(reader), check_definitions(reader, before=True), check_may_install(reader, namespace))
        await asyncio.gather(*(taken(asyncio.ensure_future(one)) for one in looks))
        return
    installation = await find_installation(reader, options.sought)
    models = await read_models(reader, installation)
    items = models.items if isinstance(models, Listed) else ()
    asks_prometheus = any(one.asks_prometheus for one in installation.programs)
    after = (
        check_apis(reader),
        check_metrics(reader, items, prometheus=asks_prometheus),
        check_definitions(reader, before=False),
        check_rights(reader, installation),
        check_control_plane(reader, installation, now),
        check_models(reader, models, now),
    )
    await asyncio.gather(*(taken(asyncio.ensure_future(one)) for one in after))
