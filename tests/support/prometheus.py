"""A real Prometheus on loopback, and targets for it to scrape whose metrics a test sets."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.support.exposed import LOOPBACK, exposed
from tests.support.http import plain_http_now
from tests.support.network import unused_port
from tests.support.processes import Child
from tests.support.waiting import until_now
from tests.tools import binaries

_STARTED_WITHIN = 60.0


@dataclass(slots=True)
class Target:
    """What is scraped: the text at /metrics, which may change at any time. Without one it answers 503."""

    port: int
    text: str | None = ""
    scrapes: int = 0
    """How often it was asked."""

    @classmethod
    @contextmanager
    def running(cls, text: str = "") -> Iterator[Target]:
        target = cls(unused_port(), text)
        with exposed(target.port, "/metrics", target.answer):
            yield target

    @property
    def address(self) -> str:
        return f"{LOOPBACK}:{self.port}"

    def answer(self) -> str | None:
        """What it says to one scrape."""
        self.scrapes += 1
        return self.text


class Prometheus:
    """One that runs, and who asks it. `address` has no scheme, as people write it."""

    def __init__(self, port: int, client: httpx.Client) -> None:
        self.address = f"{LOOPBACK}:{port}"
        self.url = f"http://{self.address}"
        self._client = client

    @classmethod
    @contextmanager
    def running(
        cls,
        folder: Path,
        targets: Mapping[str, Target | str],
        *,
        interval: float = 1.0,
        rules: Path | None = None,
        options: tuple[str, ...] = (),
    ) -> Iterator[Prometheus]:
        """One that scrapes each target every `interval` seconds, as the job of its name, and has done so once.

        A target that is no `Target` is HOST:PORT. `rules` is a file with alert rules, tried as often.
        """
        port = unused_port()
        config = folder / "prometheus.yaml"
        config.write_text(json.dumps(_configuration(targets, interval, rules)))  # JSON is YAML
        command = (
            binaries.prometheus(),
            f"--config.file={config}",
            f"--storage.tsdb.path={folder / 'prometheus'}",
            f"--web.listen-address={LOOPBACK}:{port}",
            *options,
        )
        with ExitStack() as stack:
            child = Child(command, folder / "prometheus.log")
            stack.callback(child.stop)
            prometheus = cls(port, stack.enter_context(plain_http_now()))

            def scrapes() -> bool:
                child.check()
                return prometheus._up() == len(targets)

            until_now(scrapes, "Prometheus has scraped its targets", within=_STARTED_WITHIN)
            yield prometheus

    def query(self, promql: str) -> Mapping[str, Any]:
        """Ask with PromQL and return `data`: its `resultType` and its `result`."""
        answer = self._client.get(f"{self.url}/api/v1/query", params={"query": promql})
        found: Mapping[str, Any] = answer.raise_for_status().json()["data"]
        return found

    def await_value(self, promql: str, value: float) -> None:
        """Wait until a query of one series has this value."""

        def has() -> bool:
            result = self.query(promql)["result"]
            return len(result) == 1 and float(result[0]["value"][1]) == value

        until_now(has, f"{promql} is {value}")

    def _up(self) -> int:
        """How many targets answered the last scrape; none as long as it does not answer itself."""
        try:
            return len(self.query("up == 1")["result"])
        except httpx.HTTPError:
            return 0


def _configuration(targets: Mapping[str, Target | str], interval: float, rules: Path | None) -> dict[str, Any]:
    every = f"{int(interval * 1000)}ms"
    addresses = {name: one.address if isinstance(one, Target) else one for name, one in targets.items()}
    jobs = [
        {"job_name": name, "honor_labels": True, "static_configs": [{"targets": [address]}]}
        for name, address in addresses.items()
    ]
    times = {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": every}
    return {"global": times, "scrape_configs": jobs, **({"rule_files": [str(rules)]} if rules else {})}
