"""`beamlit explain`, and directing a model by hand, over a folder: what is to be written, and that it is in force."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio

from tests.support.beamlit import Product, ask, beamlit, eventually, executed_beamlit
from tests.support.data_plane.backends import Backends
from tests.support.e2e_manifests import endpoints, model, service, text_of
from tests.support.network import unused_port

pytestmark = pytest.mark.asyncio(loop_scope="module")

NAMES = ("told", "directed", "briefly")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def product(backends: Backends, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Product]:
    """A model for each test, in a file of its own behind a comment."""
    product = Product(tmp_path_factory.mktemp("by-hand"))
    for name in NAMES:
        save(product, backends, name)
        product.save(f"{name}-service.yaml", text_of(service(name, unused_port()), endpoints(name, *backends.local)))
    async with product.running("--envoy"):
        for name in NAMES:
            await product.programmed(name)
        yield product


def save(product: Product, backends: Backends, name: str, **annotations: str) -> None:
    said = {f"beamlit.com/{key}": value for key, value in annotations.items()}
    product.save(f"{name}.yaml", f"# The {name} one.\n{text_of(model(name, backends.remote, said))}")


def text_in(product: Product, name: str) -> str:
    return (product.objects / f"{name}.yaml").read_text()


def at(product: Product) -> tuple[str, str]:
    return "--server", f"http://{product.admin}"


async def test_a_model_is_explained_with_the_envoys_that_have_it(product):

    async def shown() -> tuple[dict[str, Any], dict[str, Any]]:
        ended = await beamlit("explain", "told", "-o", "json", *at(product))
        return json.loads(ended.output), await product.status("told")

    def agree(seen: tuple[dict[str, Any], dict[str, Any]]) -> bool:
        explained, status = seen
        verdicts = [{**one, "decides": one["rule"] == "Steady"} for one in status["verdicts"]]
        return (explained["split"], explained["rules"]) == (status["split"], verdicts)

    text = await executed_beamlit("explain", "told", *at(product))
    assert (text.code, text.errors) == (0, "")
    assert text.output.startswith("default/told: every request stays local\n")
    assert "acknowledged this generation (1 of 1 Envoys)" in text.output
    # A status may be written between the two.
    explained, _ = await eventually(shown, agree)
    assert (explained["envoys"]["connected"], explained["envoys"]["programmed"]) == (1, 1)


async def test_the_server_may_be_named_once_for_all_commands(product):
    assert (await beamlit("explain", "told", BEAMLIT_SERVER=f"http://{product.admin}")).code == 0


async def test_what_is_not_there(product, tmp_path):
    absent, nobody, no_kubeconfig, both = await asyncio.gather(
        beamlit("explain", "absent", *at(product)),
        beamlit("pause", "told", "--server", "http://127.0.0.1:1"),
        beamlit("pause", "told", "--kubeconfig", tmp_path / "missing"),
        beamlit("pause", "told", "--context", "x", *at(product)),
    )
    assert (absent.code, absent.output) == (1, "")
    assert f"there is no ModelDeployment default/absent in the `beamlit run` at http://{product.admin}" in absent.errors
    assert (nobody.code, nobody.output) == (3, "")
    assert "does not answer as `beamlit run` does" in nobody.errors
    assert (no_kubeconfig.code, "missing: no such file" in no_kubeconfig.errors) == (3, True)
    assert (both.code, "give one" in both.errors) == (2, True)


async def test_a_file_is_its_authors_and_once_he_wrote_it_is_in_force(product, backends):
    before = text_in(product, "directed")
    asked = await executed_beamlit("set-split", "30", "directed", *at(product))
    assert (asked.code, text_in(product, "directed"), asked.errors) == (5, before, "")
    line = 1 + before.splitlines().index("  name: directed")
    assert f"where  {product.objects}/directed.yaml:{line}, in metadata.annotations:" in asked.output
    assert 'write   beamlit.com/override: "remote=30"' in asked.output

    waiting = asyncio.create_task(beamlit("set-split", "30", "directed", "--wait", "--timeout", "25s", *at(product)))
    save(product, backends, "directed", override="remote=30")
    waited = await waiting
    assert waited.code == 0, waited
    assert "in force      70/30 Override: set by hand: 30 % of the requests" in waited.output
    explained = await beamlit("explain", "directed", "-o", "json", *at(product))
    assert json.loads(explained.output)["split"]["summary"] == "70/30"

    again = await beamlit("set-split", "30", "directed", *at(product))
    assert (again.code, "as it was" in again.output) == (0, True)
    resume = await beamlit("resume", "directed", *at(product))
    assert (resume.code, "remove  beamlit.com/override" in resume.output) == (5, True)


async def test_where_requests_went_is_counted(product):
    """Every Envoy reports its load each few seconds; what it sent before it could follow the split does not count."""
    port = (await product.status("told"))["servingPort"]

    async def explained() -> str:
        await asyncio.gather(*(ask(port) for _ in range(5)))
        return (await beamlit("explain", "told", *at(product))).output

    await eventually(explained, lambda text: " s, 0%) left; no request is known to have gone elsewhere" in text)


async def test_waiting_ends_in_time(product):
    ended = await beamlit("failover", "told", "--wait", "--timeout", "1s", *at(product))
    assert (ended.code, "not in force  not written: the rules decide" in ended.output) == (6, True)


async def test_a_split_ends_by_itself_also_over_a_restart(product, backends):
    asked = await beamlit("failover", "briefly", "--for", "1h", *at(product))
    (written,) = [line for line in asked.output.splitlines() if "write " in line]
    until = datetime.fromisoformat(written.partition("until=")[2].rstrip('"'))
    assert timedelta(minutes=59) < until - datetime.now(UTC) <= timedelta(hours=1, seconds=1)

    save(product, backends, "briefly", override=f"remote=100 until={until:%Y-%m-%dT%H:%M:%SZ}")
    await eventually(lambda: product.split("briefly"), "0/100 Override".__eq__)
    split = (await product.status("briefly"))["split"]
    port = (await product.status("briefly"))["servingPort"]
    await eventually(lambda: ask(port), lambda reply: reply.side == "remote")
    (kept,) = (product.state / "folders").glob("*.json")

    async def is_on_disk() -> bool:
        return split in [(one["status"] or {}).get("split") for one in json.loads(kept.read_text())["objects"]]

    # What was decided is kept a moment later, and the kill may come before.
    await eventually(is_on_disk, bool)
    product.kill()
    await product.start("--envoy")
    after = (await product.status("briefly"))["split"]
    assert (after["changesAt"], after["message"]) == (split["changesAt"], split["message"])
    explained = await beamlit("explain", "briefly", *at(product))
    assert f"may change at {split['changesAt']}" in explained.output

    end = f"{datetime.now(UTC) + timedelta(seconds=5):%Y-%m-%dT%H:%M:%SZ}"
    save(product, backends, "briefly", override=f"remote=100 until={end}")
    await eventually(lambda: product.split("briefly"), "100/0 Steady".__eq__)
    assert datetime.now(UTC) >= datetime.fromisoformat(end)
    assert f"the override ended at {end}" in (await beamlit("explain", "briefly", *at(product))).output
