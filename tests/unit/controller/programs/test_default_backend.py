"""The secret of the default backend in a file: read, followed, and kept while the file says nothing."""

import asyncio

import pytest

from controller.api.resources.configuration import DefaultRemoteBackend
from controller.api.schema.errors import InvalidObjectError
from controller.api.schema.values import parse
from controller.programs.default_backend import follow_secret, with_secret
from controller.programs.lifetime import CannotStartError
from tests.support.waiting import eventually

OAUTH = {"clientId": "me", "tokenUrl": "https://auth.example/token"}


def backend(**oauth):
    auth = {"type": "oauth", "oauthConfig": {**OAUTH, **oauth}}
    return parse(DefaultRemoteBackend, {"host": "remote.example", "authConfig": auth})


def secret_of(given):
    return given.auth_config.oauth_config.client_secret.get_secret_value()


def test_a_file_takes_the_place_of_the_field(tmp_path):
    file = tmp_path / "clientSecret"
    file.write_text("hush-hush\n")
    read = with_secret(backend(clientSecretFile=str(file)))
    assert secret_of(read) == "hush-hush"
    assert read == backend(clientSecret="hush-hush")
    assert "hush" not in repr(read)


def test_without_a_file_nothing_is_read():
    assert with_secret(None) is None
    given = backend(clientSecret="hush-hush")
    assert with_secret(given) is given


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "No such file"),
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"\xff\xfe", "is not text"),
        (b"x" * 9000, "8192"),
    ],
    ids=["missing", "empty", "blank", "binary", "long"],
)
def test_a_file_that_cannot_be_used_is_named_with_its_key(tmp_path, content, words):
    file = tmp_path / "clientSecret"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(CannotStartError, match=words) as raised:
        with_secret(backend(clientSecretFile=str(file)))
    assert "oauthConfig.clientSecretFile" in str(raised.value)
    assert str(file) in str(raised.value)


@pytest.mark.parametrize("beside", [{"clientSecret": "hush"}, {"clientSecretRef": {"name": "a-secret"}}], ids=str)
def test_two_secrets_are_a_mistake(beside):
    with pytest.raises(InvalidObjectError, match=f"clientSecretFile: may not be given beside {next(iter(beside))}"):
        backend(clientSecretFile="/a/file", **beside)


async def test_what_is_renewed_is_handed_over_and_what_cannot_be_read_is_not(tmp_path, caplog):
    file = tmp_path / "clientSecret"
    file.write_text("first")
    given, handed = backend(clientSecretFile=str(file)), []

    async def replace(renewed):
        handed.append(secret_of(renewed))

    async def seen():
        return tuple(handed), caplog.text

    following = asyncio.create_task(follow_secret(given, replace, 0.001, with_secret(given)))
    try:
        file.write_text("second")
        await eventually(seen, lambda found: found[0] == ("second",))
        file.unlink()
        await eventually(seen, lambda found: "not renewed" in found[1])
        file.write_text("third")
        await eventually(seen, lambda found: found[0] == ("second", "third"))
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
    assert "second" not in caplog.text
