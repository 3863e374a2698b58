"""Where the API server is: which source counts, and one clear error when it says nothing."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
from pathlib import Path

import aiohttp
import pytest
import trustme

from controller.store.kube.access import Source, find_source, load_access, proxy_for
from controller.store.protocol import ConfigurationError

IN_POD = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "443"}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / ".kube").mkdir()
    (tmp_path / ".kube" / "config").write_text("{}")
    return tmp_path


def data(pem: bytes) -> str:
    return base64.b64encode(pem).decode()


def kubeconfig(folder: Path, user: object, server: str = "http://127.0.0.1:1", authority: bytes = b"") -> Source:
    file = folder / "given"
    document = {
        "clusters": [{"name": "c", "cluster": {"server": server, "certificate-authority-data": data(authority)}}],
        "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "one", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "one",
    }
    file.write_text(json.dumps(document))
    return Source(str(file))


def test_the_file_given_comes_first(home: Path) -> None:
    file = home / ".kube" / "config"
    assert find_source(file, "one", IN_POD | {"KUBECONFIG": "/other"}) == Source(str(file), "one")


def test_then_the_environment_where_files_may_be_missing(home: Path) -> None:
    names = f"{home}/missing:{home}/.kube/config"
    assert find_source(None, None, IN_POD | {"KUBECONFIG": names}) == Source(names)


def test_then_the_pod_unless_a_context_is_asked_for(home: Path) -> None:
    environ = IN_POD | {"HOME": str(home)}
    assert find_source(None, None, environ) == Source(None)
    assert find_source(None, "one", environ) == Source(f"{home}/.kube/config", "one")


def test_then_the_file_of_the_user(home: Path) -> None:
    assert find_source(None, None, {"HOME": str(home)}) == Source(f"{home}/.kube/config")


def test_nothing_of_all_that_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"no API server to talk to.*\.kube/config"):
        find_source(None, None, {"HOME": str(tmp_path)})


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="missing: no such file"):
        find_source(tmp_path / "missing", None, {})
    with pytest.raises(ConfigurationError, match="missing: no such file"):
        find_source(None, None, {"KUBECONFIG": f"{tmp_path}/missing"})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("users: [secret", "is not YAML: line 1"),
        ("", "is not a kubeconfig"),
        ("[]", "is not a kubeconfig"),
        ("{}", "no context is chosen .--context.: there is none"),
        ("{contexts: [{name: one}, {name: two}]}", "no context is chosen .--context.: there are one, two"),
        ("{current-context: three, contexts: [{name: one}, {name: two}]}", "there is no context three: there are one"),
        ("{contexts: secret}", "is not a kubeconfig"),
        ("{current-context: one, contexts: []}", "one"),
        ("{current-context: one, contexts: [{name: one, context: {cluster: c}}], clusters: []}", "name c"),
        (
            "{current-context: one, contexts: [{name: one, context: {cluster: c}}], clusters: [{name: c, cluster: "
            "{server: 'https://x', certificate-authority: nowhere.pem}}]}",
            "nowhere.pem",
        ),
    ],
)
async def test_a_file_at_fault_is_named_with_the_reason_and_without_its_secrets(
    tmp_path: Path, text: str, words: str
) -> None:
    file = tmp_path / "given"
    file.write_text(text)
    with pytest.raises(ConfigurationError, match=words) as raised:
        await load_access(Source(str(file)))
    assert str(file) in str(raised.value)
    assert "secret" not in str(raised.value)


async def test_a_context_that_is_not_there_is_named(tmp_path: Path) -> None:
    source = kubeconfig(tmp_path, {"token": "t"})
    with pytest.raises(ConfigurationError, match="other"):
        await load_access(Source(source.kubeconfig, "other"))


async def test_an_exec_plugin_that_fails_is_an_error(tmp_path: Path) -> None:
    plugin = {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "false"}}
    with pytest.raises(ConfigurationError, match="exec plugin"):
        await load_access(kubeconfig(tmp_path, plugin))


async def test_certificates_and_keys_in_a_kubeconfig_are_read_as_often_as_they_are_needed(tmp_path: Path) -> None:
    authority = trustme.CA()
    client = authority.issue_cert("client.example")
    certificate = b"".join(one.bytes() for one in client.cert_chain_pems)
    key = client.private_key_pem.bytes()
    user = {"client-certificate-data": data(certificate), "client-key-data": data(key)}
    source = kubeconfig(tmp_path, user, "https://127.0.0.1:1", authority.cert_pem.bytes())
    # A second time when the API server refuses what was read: the files that the library wrote are gone by then.
    for _ in range(2):
        access = await load_access(source)
        assert authority.cert_pem.bytes().decode() in access.cluster
        await access.close()


async def test_the_server_is_known(tmp_path: Path) -> None:
    access = await load_access(kubeconfig(tmp_path, {"token": "t"}))
    assert access.server == "http://127.0.0.1:1"
    assert "Token" not in repr(access)
    await access.close()


@pytest.mark.parametrize("turns", range(40))
async def test_a_request_that_is_under_way_when_everything_is_closed_got_no_answer(tmp_path: Path, turns: int) -> None:
    """Whoever renews the credentials closes the connections of before, at any moment of a request."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        access = await load_access(kubeconfig(tmp_path, {"token": "t"}, f"http://127.0.0.1:{port}"))
        limits = aiohttp.ClientTimeout(total=30)
        asked = asyncio.create_task(access.open("GET", "/api", {}, None, limits))
        for _ in range(turns):
            await asyncio.sleep(0)
        await access.close()
        with pytest.raises((aiohttp.ClientError, OSError)):
            await asked


def test_the_environment_names_the_proxy_of_a_server() -> None:
    environ = {"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": "10.0.0.1,.cluster.local"}
    assert proxy_for("https://api.example.com:6443", environ) == "http://proxy:3128"
    assert proxy_for("http://api.example.com:6443", environ) is None
    assert proxy_for("https://10.0.0.1:443", environ) is None
    assert proxy_for("https://kubernetes.default.svc.cluster.local", environ) is None
    assert proxy_for("https://api.example.com", environ | {"no_proxy": "*"}) is None
    assert proxy_for("https://api.example.com", {}) is None


@pytest.mark.parametrize(("namespace", "home"), [("models", "models"), (None, "default")])
async def test_home_is_the_namespace_of_the_context(tmp_path: Path, namespace: str | None, home: str) -> None:
    source = kubeconfig(tmp_path, {"token": "t"})
    document = json.loads((tmp_path / "given").read_text())
    document["contexts"][0]["context"]["namespace"] = namespace
    (tmp_path / "given").write_text(json.dumps(document))
    access = await load_access(source)
    assert access.namespace == home
    await access.close()
