"""`beamlit run` starts and ends: what it keeps, what it takes with it, and what it cannot start with."""

from __future__ import annotations

import os
import signal
import stat

import pytest
import yaml

from tests.support.beamlit import (
    Product,
    ask,
    beamlit,
    eventually,
    executed,
    no_request_fails,
    processes_of,
)
from tests.support.chat import Chat
from tests.support.e2e_manifests import SEED, endpoints, service, text_of
from tests.support.network import unused_port

ANYWHERE = ("--xds-address", "127.0.0.1:0", "--admin-address", "127.0.0.1:0")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_stop_ends_the_envoy_too(chat, number):
    async with chat.product.running("--envoy"):
        await chat.served()
        assert chat.product.envoy_pid()
        assert await chat.product.end(number) == 0
        assert processes_of(chat.product.home) == {}
    assert "Traceback" not in chat.product.log()


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
        (before,) = (await product.look("/status")).json()["items"]
        (kept,) = (product.state / "folders").glob("*.json")

        async def is_on_disk() -> bool:
            # To the microsecond: the split before may be of the same second.
            return before["status"]["memory"]["splitSince"] in kept.read_text()

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


async def test_the_tutorial_model_leaves_for_the_default_backend_when_local_is_gone(tmp_path, backends):
    product, port = Product(tmp_path), unused_port()
    config = tmp_path / "config.yaml"
    remote = f"{backends.remote.host}:{backends.remote.port}"
    config.write_text(
        yaml.safe_dump({"defaultRemoteBackend": {"host": remote, "pathPrefix": "/$workspace/models/$model"}})
    )
    product.save("model.yaml", SEED)
    product.save("others.yaml", text_of(service("php-apache", port), endpoints("php-apache", *backends.local)))
    async with product.running("--envoy", "--config", config):
        await product.programmed("php-apache")
        await eventually(lambda: ask(port), lambda reply: reply.side == "local")
        assert (await product.condition("php-apache", "ResolvedRefs"))[:2] == ("True", "Resolved")
        async with no_request_fails(port):
            with backends.killed(*backends.local):
                await eventually(lambda: ask(port), lambda reply: reply.side == "remote")
                # What the kubelet would find.
                product.save(
                    "others.yaml",
                    text_of(service("php-apache", port), endpoints("php-apache", *backends.local, ready=False)),
                )
                await eventually(lambda: product.split("php-apache"), "0/100 LocalDown".__eq__)
                assert (await ask(port, probe="away")).side == "remote"
                assert [seen["target"] for seen in backends.remote.seen("away")] == ["/default/models/php-apache/"]
            product.save("others.yaml", text_of(service("php-apache", port), endpoints("php-apache", *backends.local)))
            await eventually(lambda: product.split("php-apache"), "100/0 Steady".__eq__)
            await eventually(lambda: ask(port), lambda reply: reply.side == "local")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("# no scheme\ndefaultRemoteBackend: {host: 'https://a.example'}", ":2: defaultRemoteBackend.host: "),
        ("defaultRemoteBackend: }", ":1: "),
        ("- a list", ":1: must be an object"),
        ("{}\n---\n{}", ":3: must be one document"),
    ],
)
async def test_a_config_that_cannot_be_read_is_told(tmp_path, text, said):
    config = tmp_path / "config.yaml"
    config.write_text(text)
    (tmp_path / "objects").mkdir()
    ended = await beamlit("run", tmp_path / "objects", "--config", config, *ANYWHERE, "--state-dir", tmp_path / "state")
    assert ended.code == 1, ended
    assert f"Error: {config}{said}" in ended.errors
    assert "Traceback" not in ended.errors


@pytest.mark.parametrize("place", ["objects/state", "file/state"])
async def test_a_state_folder_that_cannot_be_one_is_told(tmp_path, place):
    """Inside the watched folder its files would be read as objects; below a file there is none."""
    (tmp_path / "objects").mkdir()
    (tmp_path / "file").touch()
    ended = await beamlit("run", tmp_path / "objects", *ANYWHERE, "--state-dir", tmp_path / place)
    assert ended.code == 1, ended
    assert f"Error: --state-dir {tmp_path / place}: " in ended.errors
    assert "Traceback" not in ended.errors
    assert not list((tmp_path / "objects").rglob("*.json"))
