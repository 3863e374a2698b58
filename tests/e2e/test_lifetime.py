"""`beamlit run` starts and ends: what it keeps, and what it takes with it."""

from __future__ import annotations

import json
import os
import signal
import stat

import pytest

from tests.support.beamlit import Product, eventually, executed
from tests.support.chat import Chat
from tests.support.waiting import until


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_stop_ends_the_envoy_too(chat, number):
    async with chat.product.running("--envoy"):
        await chat.served()
        assert chat.product.envoy_pid()
        assert await chat.product.end(number) == 0
        assert chat.product.processes() == {}
    # An ordinary life leaves nothing that anybody would look into: `12:00:01 info started ...`.
    lines = chat.product.log().splitlines()
    assert lines
    assert [line for line in lines if line.split()[1:2] != ["info"]] == []


async def test_a_test_that_fails_leaves_nothing(chat):
    """Neither `beamlit run` nor an Envoy, which it starts again when that ends."""
    with pytest.raises(AssertionError, match="it failed"):
        async with chat.product.running("--envoy"):
            await until(lambda: len(chat.product.processes()) == 2, "both run")
            raise AssertionError("it failed")
    assert chat.product.processes() == {}


async def history_of(product: Product) -> list[str]:
    return [entry["split"] for entry in (await product.status("chat")).get("history", ())]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_a_status_survives_a_restart(chat, number):
    """Without an Envoy: nothing but the restart changes anything."""
    product = chat.product
    async with product.running():
        await eventually(lambda: product.split("chat"), "100/0 Steady".__eq__)
        chat.save(ready=False)
        await eventually(lambda: history_of(product), ["0/100", "100/0"].__eq__)
        # The last that is found out of it, and may be written by itself.
        await eventually(lambda: product.condition("chat", "RemoteHealthy"), lambda seen: seen[0] == "True")
        (before,) = (await product.look("/status")).json()["items"]

        async def is_on_disk() -> bool:
            kept = (product.state / "folders").glob("*.json")
            objects = [one for path in kept for one in json.loads(path.read_text())["objects"]]
            return before["status"] in [one["status"] for one in objects]

        await eventually(is_on_disk, bool)
        if number == signal.SIGTERM:
            assert await product.end(number) == 0
        else:
            product.kill()
        await product.start()
        (after,) = (await product.look("/status")).json()["items"]
        assert after["metadata"] == before["metadata"] | {"resourceVersion": after["metadata"]["resourceVersion"]}
        assert after["status"] == before["status"]
        assert len(after["status"]["history"]) == 2
        # A status that a restart lost would begin with a recovery from nothing.
        chat.save()
        await eventually(lambda: history_of(product), lambda history: history[1:] == ["0/100", "100/0"])


async def test_what_is_written_is_the_users_own_and_outside_the_watched_folder(tmp_path, backends):
    # Only what is executed has the umask of who starts it.
    chat = Chat(tmp_path, backends, executed)
    product = chat.product
    umask = os.umask(0)
    try:
        async with product.running("--envoy"):
            await chat.served()
            found = [product.state, *product.state.rglob("*")]
            modes = {str(path.relative_to(product.home)): stat.S_IMODE(path.stat().st_mode) for path in found}
            wanted = {str(path.relative_to(product.home)): 0o700 if path.is_dir() else 0o600 for path in found}
    finally:
        os.umask(umask)
    assert len(found) > 6
    assert modes == wanted
    assert [path.name for path in product.objects.rglob("*")] == ["chat.yaml"]
