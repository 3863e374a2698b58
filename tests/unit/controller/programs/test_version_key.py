"""The key of the versions of secrets: never one that anybody knows, where secrets are given."""

import pytest

from controller.programs.lifetime import CannotStartError
from controller.programs.xds_server import version_key


def test_it_is_the_node_token_or_made_of_the_servers_own_key(tmp_path):
    one, other = tmp_path / "one.key", tmp_path / "other.key"
    one.write_text("a private key")
    other.write_text("another one")
    assert version_key("token", one) == b"token"
    keys = {version_key("", one), version_key("", other)}
    assert len(keys) == 2
    assert all(len(key) == 32 and b"private" not in key for key in keys)
    assert version_key("", one) in keys, "the same key, the same versions"
    # Without TLS and without a token nobody is given a secret.
    assert version_key("", None) == b""


def test_a_key_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(CannotStartError, match="--tls-key"):
        version_key("", tmp_path / "absent")
