"""The queries of docs/autoscaling.md answer with the whole demand of a model, or not at all.

A real Prometheus scrapes two xDS servers, each of which hears of one Envoy, and a controller, which knows how many xDS
servers there are. Beside the queries stands the plain sum, which is smaller when a part is missing: an autoscaler would
shrink for that.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import yaml
from prometheus_client import CollectorRegistry, generate_latest

from tests.support.documents import yaml_of
from tests.support.loads import away, hears, serves, to_backend, to_local
from tests.support.processes import ROOT
from tests.support.prometheus import Prometheus, Target
from tests.support.routes import A
from tests.support.waiting import until_now
from xds_server.loads.loads import Loads
from xds_server.loads.metrics import LoadMetrics
from xds_server.stream.load_reporting.wire import LoadStream

DOCUMENT = ROOT / "docs" / "autoscaling.md"
OF_THE_MODEL = 'namespace="default",name="a"'
PLAIN = f"sum(beamlit_model_requests_in_flight{{{OF_THE_MODEL}}})"
LOCAL, LEFT = 3, 2
"""In flight through each Envoy."""
WHOLE = 2 * (LOCAL + LEFT)


def query_of_keda() -> str:
    """What KEDA asks by its manifest, for the model of this test."""
    (trigger,) = yaml.safe_load(yaml_of(DOCUMENT, "ScaledObject"))["spec"]["triggers"]
    return str(trigger["metadata"]["query"]).replace('name="php-apache"', 'name="a"')


def query_of_the_adapter() -> str:
    """What prometheus-adapter asks by its rule, for the model of this test."""
    (rule,) = yaml.safe_load(yaml_of(DOCUMENT, "externalRules"))["externalRules"]
    filled = {"Series": rule["name"]["as"], "LabelMatchers": OF_THE_MODEL, "GroupBy": "namespace"}
    query = str(rule["metricsQuery"])
    for name, value in filled.items():
        query = query.replace(f"<<.{name}>>", value)
    return query


class XdsServer:
    """The metrics of one that hears what some Envoys report; of those that are `connected` others may say nothing."""

    def __init__(self, *envoys: str) -> None:
        loads, self._registry, self.connected = Loads(), CollectorRegistry(), set(envoys)
        serves(loads, A, away=50, credential=True)
        clusters = (to_local(A, now=LOCAL), away(A, now=LEFT), to_backend(now=LEFT, credential=True))
        for envoy in envoys:
            hears(loads, LoadStream(envoy, 1.0), clusters, 1.0)
        LoadMetrics(self._registry, loads, lambda: 1.0, lambda: self.connected)

    def page(self) -> str:
        return generate_latest(self._registry).decode()


class Scraped:
    """Two xDS servers and a controller, of which Prometheus reads what `first`, `second` and `controller` show.

    `seen` is all that the queries of the document ever answered.
    """

    def __init__(self, prometheus: Prometheus, *targets: Target) -> None:
        self._prometheus = prometheus
        self.first, self.second, self.controller = targets
        self.seen = set[float]()

    def knows(self, *, plain: int, whole: int | None) -> None:
        """Wait until the plain sum is so many requests, and the queries of the document say this, or nothing."""
        self._prometheus.await_value(PLAIN, plain)
        wanted = [] if whole is None else [whole]
        for query in (query_of_keda(), query_of_the_adapter()):
            until_now(partial(self._is_answered, query, wanted), f"the answers to {query} are {wanted}")

    def _is_answered(self, query: str, wanted: list[int]) -> bool:
        answers = [float(one["value"][1]) for one in self._prometheus.query(query)["result"]]
        self.seen.update(answers)
        return answers == wanted


@contextmanager
def scraped(folder: Path, *pages: str) -> Iterator[Scraped]:
    with ExitStack() as stack:
        targets = [stack.enter_context(Target.running(page)) for page in pages]
        named = {f"program-{number}": target for number, target in enumerate(targets)}
        yield Scraped(stack.enter_context(Prometheus.running(folder, named)), *targets)


TWO = "beamlit_xds_servers 2\n"


def test_a_demand_of_which_a_part_is_missing_is_none(tmp_path: Path) -> None:
    one, other = XdsServer("envoy-1"), XdsServer("envoy-2")
    with scraped(tmp_path, one.page(), other.page(), TWO) as site:
        site.knows(plain=WHOLE, whole=WHOLE)
        # An Envoy of one of them hangs, or has just come.
        other.connected.add("envoy-3")
        site.second.text = other.page()
        site.knows(plain=WHOLE // 2, whole=None)
        other.connected.remove("envoy-3")
        site.second.text = other.page()
        site.knows(plain=WHOLE, whole=WHOLE)
        # Prometheus cannot scrape one of them.
        site.second.text = None
        site.knows(plain=WHOLE // 2, whole=None)
        site.second.text = other.page()
        site.knows(plain=WHOLE, whole=WHOLE)
        # Nobody says how many there are.
        site.controller.text = None
        site.knows(plain=WHOLE, whole=None)
        assert site.seen == {WHOLE}


def test_an_xds_server_that_is_not_scraped_is_missed_and_one_without_an_envoy_is_not(tmp_path: Path) -> None:
    with scraped(tmp_path, XdsServer("envoy-1", "envoy-2").page(), "", TWO) as site:
        site.knows(plain=WHOLE, whole=None)
        site.second.text = XdsServer().page()
        site.knows(plain=WHOLE, whole=WHOLE)
