"""`beamlit bootstrap`: what it prints, and any number of Envoys that join with it."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from controller.gateway.process import envoy_binary
from tests.support.beamlit import Product, ask, beamlit, eventually, executed_beamlit, no_request_fails
from tests.support.data_plane.backends import Backends
from tests.support.e2e_manifests import endpoints, model, service, text_of
from tests.support.network import unused_port
from tests.support.processes import Child


async def printed(*arguments: object, **environment: str) -> dict:
    ended = await beamlit("bootstrap", *arguments, **environment)
    assert (ended.code, ended.errors) == (0, "")
    return yaml.safe_load(ended.output)


def token_of(bootstrap: dict) -> str:
    return bootstrap["node"]["metadata"]["beamlit_token"]


async def test_the_token_is_made_once_and_is_the_users_alone(tmp_path):
    state = tmp_path / "state"
    at_once = await asyncio.gather(*(printed("--state-dir", state) for _ in range(4)))
    later = await printed("--state-dir", state)
    (token,) = {token_of(one) for one in (*at_once, later)}
    assert len(token) >= 43  # 256 bits
    (file,) = state.iterdir()
    assert file.read_text() == f"{token}\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(state.stat().st_mode) == 0o700


async def test_the_state_folder_is_chosen_by_option_then_environment(tmp_path):
    (of_xdg, of_beamlit, of_option) = await asyncio.gather(
        printed(XDG_STATE_HOME=str(tmp_path / "xdg")),
        printed(XDG_STATE_HOME=str(tmp_path / "xdg"), BEAMLIT_STATE_DIR=str(tmp_path / "own")),
        printed("--state-dir", tmp_path / "option", BEAMLIT_STATE_DIR=str(tmp_path / "own")),
    )
    for bootstrap, folder in ((of_xdg, "xdg/beamlit"), (of_beamlit, "own"), (of_option, "option")):
        assert (tmp_path / folder / "node-token").read_text().strip() == token_of(bootstrap)


async def test_a_state_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").touch()
    ended = await beamlit("bootstrap", "--state-dir", tmp_path / "file" / "state")
    assert (ended.code, ended.output) == (1, "")
    assert ended.errors == f"Error: --state-dir {tmp_path}/file/state: Not a directory\n"


class Fleet:
    """A product without an Envoy of its own, one model, and Envoys that were started by hand."""

    def __init__(self, home: Path, backends: Backends) -> None:
        self.product = Product(home)
        self.port = unused_port()
        self.envoys: dict[str, Child] = {}
        self.product.save(
            "chat.yaml",
            text_of(model("chat", backends.remote), service("chat", self.port), endpoints("chat", *backends.local)),
        )

    async def join(self, node_id: str, **options: Path) -> None:
        """What a user types: print the bootstrap into a file, start an Envoy with it."""
        state = options.get("state_dir", self.product.state)
        ended = await executed_beamlit(
            *("bootstrap", "--xds-address", self.product.xds, "--node-id", node_id, "--state-dir", state)
        )
        assert ended.code == 0, ended.errors
        config = self.product.home / f"{node_id}.yaml"
        config.write_text(ended.output)
        command = (envoy_binary(), "-c", config, "--use-dynamic-base-id", "--concurrency", "1", "-l", "warning")
        self.envoys[node_id] = Child(command, self.product.home / f"{node_id}.log")

    async def connected(self, node_id: str, authorised: bool) -> None:
        async def log() -> list[str]:
            said = [line for line in self.product.log().splitlines() if f" node={node_id} " in line]
            # Its load reports may have begun before.
            words = "xds client connected" if authorised else "xds client does not carry the node token"
            return [line for line in said if words in line]

        lines = await eventually(log, bool)
        assert lines[0].endswith(f"authorised={authorised}")


@pytest.fixture
def fleet(tmp_path: Path, backends: Backends) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path, backends)
    yield fleet
    for envoy in fleet.envoys.values():
        envoy.kill()


async def test_envoys_join_serve_together_and_outlive_the_control_plane(fleet):
    product = fleet.product
    async with product.running():
        status, reason, _ = await eventually(lambda: product.condition("chat", "Programmed"), any)
        assert (status, reason) == ("False", "NoProxies")
        assert (await ask(fleet.port)).error == "ConnectError"
        await fleet.join("first")
        await fleet.connected("first", authorised=True)
        await product.programmed("chat")
        await eventually(lambda: ask(fleet.port), lambda reply: reply.side == "local")
        async with no_request_fails(fleet.port):
            await fleet.join("second")
            await fleet.connected("second", authorised=True)
            await product.programmed("chat")
            product.kill()
            assert {(await ask(fleet.port)).side for _ in range(20)} == {"local"}
            await product.start()
            await product.programmed("chat")
        # Either of them serves alone.
        fleet.envoys["first"].kill()
        await eventually(lambda: ask(fleet.port), lambda reply: reply.side == "local")
        assert fleet.envoys["second"].alive
        fleet.envoys["second"].kill()
        await eventually(lambda: product.condition("chat", "Ready"), lambda seen: seen[1] == "NotProgrammed")
        assert (await ask(fleet.port)).error == "ConnectError"


async def test_an_envoy_with_another_token_joins_without_being_trusted(fleet, tmp_path):
    """It is given routes, but is none of this user's: it shall get no secret."""
    async with fleet.product.running():
        await fleet.join("stranger", state_dir=tmp_path / "another-user")
        await fleet.connected("stranger", authorised=False)
        assert token_of(yaml.safe_load((tmp_path / "stranger.yaml").read_text())) not in fleet.product.log()


async def test_a_token_from_a_file_goes_before_that_of_the_state_folder(tmp_path):
    file = tmp_path / "node-token"
    file.write_text("of-the-cluster\n")
    assert token_of(await printed("--node-token-file", file, "--state-dir", tmp_path / "state")) == "of-the-cluster"
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize(
    ("content", "reason"), [(None, "No such file or directory"), (b" \n", "is empty"), (b"\xff", "is not text")]
)
async def test_a_token_file_that_cannot_be_used_is_named(tmp_path, content, reason):
    file = tmp_path / "node-token"
    if content is not None:
        file.write_bytes(content)
    ended = await beamlit("bootstrap", "--node-token-file", file)
    assert (ended.code, ended.output) == (1, "")
    assert ended.errors == f"Error: --node-token-file {file}: {reason}\n"
