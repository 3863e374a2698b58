"""The services of docker-compose.yml, as processes: they fit together, and survive what people kill."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import aiohttp
import httpx
import pytest
import yaml

from demo.waves import ask
from tests.support.beamlit import eventually
from tests.support.compose import Composed, command_of, services
from tests.support.http import plain_http
from tests.support.processes import ROOT
from tests.support.waiting import PATIENCE, until

REPLICAS = ("local-1", "local-2", "local-3")
PLACES = 12
"""How many requests the replicas work on at a time, all together."""


class Site:
    """What can be seen of the composed services from outside."""

    def __init__(self, composed: Composed) -> None:
        self.pod = composed.address("pod")
        self.url = f"http://{self.pod}:30080/v1/chat/completions"

    async def page(self, port: int, path: str) -> str:
        """What one of the admin addresses says; nothing while nobody does."""
        try:
            async with plain_http() as client:
                answer = await client.get(f"http://{self.pod}:{port}{path}")
        except httpx.TransportError:
            return ""
        return answer.text if answer.status_code == 200 else ""

    async def ready(self, port: int) -> None:
        await eventually(lambda: self.page(port, "/readyz"), bool)

    async def split(self) -> str:
        """The split of the model, and its reason."""
        async with plain_http() as client:
            models = (await client.get(f"http://{self.pod}:19000/status")).json()["items"]
        split = (models[0].get("status", {}) if models else {}).get("split") or {}
        return f"{split.get('summary')} {split.get('reason')}"

    async def answers(self, at_once: int, tokens: int = 20) -> Counter[str]:
        """Who answers so many requests that come together; or what goes wrong."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session:
            return Counter(await asyncio.gather(*(ask(session, self.url, tokens) for _ in range(at_once))))


@pytest.mark.timeout(600)
async def test_it_serves_whatever_is_killed(tmp_path: Path) -> None:
    with Composed(tmp_path).running() as composed:
        site = Site(composed)
        composed.run("prepare")
        composed.start(*REPLICAS, "remote", "tokens", "kubelet", "control-plane")
        await site.ready(19000)
        composed.start("envoy")
        await site.ready(19002)
        await eventually(site.split, lambda seen: seen == "100/0 Steady")

        # Few requests stay; of many, what the replicas have no place for leaves, over TLS and with a token.
        async def has_places() -> bool:
            return await site.answers(4) == {"local": 4}

        await until(has_places, "the replicas answer")

        async def leaves() -> bool:
            answers = await site.answers(3 * PLACES, tokens=100)
            assert set(answers) <= {"local", "remote"}, answers
            return 0 < answers["remote"] < 3 * PLACES

        await until(leaves, "what is too much leaves, and only that")

        # With the control plane killed Envoy goes on; it comes back on its own network.
        composed.kill("control-plane")
        assert set(await site.answers(4)) == {"local"}
        composed.start("control-plane")
        await site.ready(19000)

        composed.start("clients")
        await until(lambda: "local" in composed.log("clients"), "the clients say what became of their requests")

        composed.kill(*REPLICAS)
        await eventually(site.split, lambda seen: seen == "0/100 LocalDown")
        assert await site.answers(8) == {"remote": 8}
        composed.start(*REPLICAS)
        await eventually(site.split, lambda seen: seen == "100/0 Steady", within=2 * PATIENCE)

        async def are_back() -> bool:
            # The clients take places, too: not all of these find one.
            return "local" in await site.answers(4)

        await until(are_back, "Envoy follows the split, and believes the replicas")

        # With the remote backend gone too much waits, and does not fail.
        composed.kill("remote")
        assert set(await site.answers(2 * PLACES)) == {"local"}

        # Answers that had begun were cut off by the kill; nobody was told of an error.
        assert "status" not in composed.log("clients")
        for port, sample in (
            (19002, 'beamlit_gateway_requests_total{code="2xx",name="chat",namespace="default"}'),
            (19000, 'beamlit_model_ready{name="chat",namespace="default"} 1.0'),
        ):
            await eventually(lambda port=port: site.page(port, "/metrics"), lambda text, sample=sample: sample in text)


def test_prometheus_scrapes_where_the_programs_answer() -> None:
    config = yaml.safe_load((ROOT / "deploy" / "compose" / "prometheus.yaml").read_text())
    (job,) = config["scrape_configs"]
    targets = {target for one in job["static_configs"] for target in one["targets"]}
    admins = set()
    for name in ("control-plane", "envoy"):
        words = command_of(services()[name])
        admins.add(words[words.index("--admin-address") + 1].replace("0.0.0.0", "pod"))
    assert targets == admins
    assert job["honor_labels"] is True


@pytest.mark.parametrize("name", services())
def test_what_a_service_depends_on_is_there(name: str) -> None:
    assert set(services()[name].get("depends_on", ())) <= set(services())
