"""`beamlit run` with a configuration and a state folder of its own: what they do, and what is wrong with them."""

from __future__ import annotations

import pytest
import yaml

from tests.support.beamlit import Product, ask, beamlit, eventually, no_request_fails
from tests.support.e2e_manifests import SEED, endpoints, service, text_of
from tests.support.network import unused_port

ANYWHERE = ("--xds-address", "127.0.0.1:0", "--admin-address", "127.0.0.1:0")


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
