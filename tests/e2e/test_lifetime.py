"""`beamlit run` ends, is killed and starts again: what its Envoy, its clients and its statuses go through."""

from __future__ import annotations

import os
import signal
import stat
from pathlib import Path

import pytest
import yaml

from tests.support.beamlit import (
    Product,
    Start,
    ask,
    beamlit,
    eventually,
    executed,
    no_request_fails,
    processes_of,
)
from tests.support.data_plane.backends import Backends
from tests.support.e2e_manifests import SEED, endpoints, model, service, text_of
from tests.support.fork_server import Forked
from tests.support.network import unused_port

ANYWHERE = ("--xds-address", "127.0.0.1:0", "--admin-address", "127.0.0.1:0")


class Chat:
    """A product of one test, and its one model."""

    def __init__(self, home: Path, backends: Backends, start: Start = Forked) -> None:
        self.product = Product(home, start)
        self.port = unused_port()
        self._backends = backends
        self.save()

    def save(self, ready: bool = True) -> None:
        self.product.save(
            "chat.yaml",
            text_of(
                model("chat", self._backends.remote),
                service("chat", self.port),
                endpoints("chat", *self._backends.local, ready=ready),
            ),
        )

    async def served(self) -> None:
        await self.product.programmed("chat")
        await eventually(lambda: ask(self.port), lambda reply: reply.side == "local")


@pytest.fixture
def chat(tmp_path: Path, backends: Backends) -> Chat:
    return Chat(tmp_path, backends)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_stop_ends_the_envoy_too(chat, number):
    async with chat.product.running("--envoy"):
        await chat.served()
        assert chat.product.envoy_pid()
        assert await chat.product.end(number) == 0
        assert processes_of(chat.product.home) == {}
    assert "Traceback" not in chat.product.log()


async def test_the_envoy_of_a_killed_run_serves_on_until_the_next_run_takes_it_over(chat):
    product = chat.product
    async with product.running("--envoy"):
        await chat.served()
        envoy = product.envoy_pid()
        async with no_request_fails(chat.port):
            product.kill()
            assert (await ask(chat.port)).side == "local"
            assert product.envoy_pid() == envoy
            await product.start("--envoy")
            await product.programmed("chat")
            # It does what it is told again.
            chat.save(ready=False)
            await eventually(lambda: ask(chat.port), lambda reply: reply.side == "remote")
        assert product.envoy_pid() == envoy
        assert await product.end(signal.SIGTERM) == 0
        assert processes_of(product.home) == {}


async def test_an_envoy_that_looks_for_the_control_plane_elsewhere_is_replaced(chat):
    product = chat.product
    async with product.running("--envoy"):
        await chat.served()
        envoy = product.envoy_pid()
        product.kill()
        product.xds = f"127.0.0.1:{unused_port()}"
        await product.start("--envoy")
        await chat.served()
        assert product.envoy_pid() not in (0, envoy)


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


async def test_an_object_that_was_removed_meanwhile_is_gone_after_a_restart(chat):
    product = chat.product
    async with product.running("--envoy"):
        await chat.served()
        product.kill()
        product.remove("chat.yaml")
        await product.start("--envoy")
        await eventually(lambda: product.status("chat"), {}.__eq__)
        await eventually(lambda: ask(chat.port), lambda reply: reply.error == "ConnectError")


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
