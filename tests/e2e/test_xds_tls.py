"""Certificates on the command line: who makes them, who needs them, and what is said where they are missing."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
import yaml

from tests.support.beamlit import beamlit
from tests.support.tls import Certificates

REFUSED = "without TLS only programs of this host may join"


@pytest.mark.parametrize("address", ["0.0.0.0:18000", "[::]:18000", "10.0.0.1:18000", "xds.example:18000"])
async def test_nobody_listens_without_tls_where_others_come(tmp_path: Path, address: str) -> None:
    (tmp_path / "models").mkdir()
    run = ("run", tmp_path / "models", "--state-dir", tmp_path / "state")
    for command, instead in ((("xds-server",), "--tls-cert"), (run, "`beamlit xds-server`")):
        ended = await beamlit(*command, "--xds-address", address)
        assert ended.code == 1, ended
        (said,) = ended.errors.splitlines()[-1:]
        assert said.startswith(f"Error: --xds-address {address}: {REFUSED}")
        assert instead in said
        assert "--insecure-xds" in said


async def test_files_that_are_no_certificate_are_named_before_anything_is_served(tmp_path: Path) -> None:
    certificates = Certificates.make(tmp_path / "tls")
    certificate, key, ca = certificates.files("xds-server")
    other = certificates.files("gateway")[1]
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(
        yaml.safe_dump(
            {
                "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}],
                "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
                "users": [{"name": "u", "user": {"token": "t"}}],
                "current-context": "x",
            }
        )
    )
    server = (
        "xds-server",
        "--kubeconfig",
        kubeconfig,
        "--xds-address",
        "127.0.0.1:0",
        "--admin-address",
        "127.0.0.1:0",
    )
    for files, why in (
        ((tmp_path / "missing", key, ca), "No such file"),
        ((certificate, other, ca), "key values mismatch"),
        ((certificate, key, key), "no certificate, its key and authorities"),
    ):
        named = zip(("--tls-cert", "--tls-key", "--client-ca"), files, strict=True)
        ended = await beamlit(*server, *(one for pair in named for one in pair))
        assert ended.code == 1, ended
        said = ended.errors.splitlines()[-1]
        assert said.startswith("Error: --tls-cert, --tls-key, --client-ca: ")
        assert why.lower() in said.lower().replace("_", " ")
        assert "Traceback" not in ended.errors
    options = ("--tls-cert", certificate, "--tls-key", key, "--client-ca", ca, "--client", "spiffe://a/b=root")
    ended = await beamlit(*server, *options)
    assert (ended.code, "--client: 'root' is not gateway[/NODE]" in ended.errors) == (1, True)


async def test_certs_makes_what_the_other_commands_take_and_says_what_it_made(tmp_path: Path) -> None:
    out = tmp_path / "tls"
    made = await beamlit("certs", "--out", out, "--client", "gateway/edge-1", "--server-name", "xds.example.com")
    assert (made.code, made.errors) == (0, "")
    lines = dict(line.split(": ", 1) for line in made.output.splitlines())
    assert lines.keys() == {f"{out}/{one}" for one in ("ca", "xds-server", *CLIENTS, "gateway-edge-1")}
    assert "xds.example.com" in lines[f"{out}/xds-server"]
    assert stat.S_IMODE((out / "gateway" / "tls.key").stat().st_mode) == 0o600
    assert stat.S_IMODE(out.stat().st_mode) == 0o700

    files = (
        "--xds-ca",
        out / "gateway/ca.crt",
        "--xds-cert",
        out / "gateway/tls.crt",
        "--xds-key",
        out / "gateway/tls.key",
    )
    printed = await beamlit("bootstrap", *files, "--xds-address", "xds.example.com:18000", "--sds-directory", tmp_path)
    assert printed.code == 0, printed
    (cluster,) = yaml.safe_load(printed.output)["static_resources"]["clusters"]
    assert cluster["transport_socket"]["name"] == "envoy.transport_sockets.tls"
    assert (tmp_path / "xds_certificate.yaml").exists()
    assert yaml.safe_load(printed.output)["node"]["metadata"]["beamlit_token"] == ""
    assert "PRIVATE KEY" not in printed.output


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--client", "root"), "'root' is not gateway"),
        (("--client", "gateway/../x"), "is not gateway"),
        (("--server-name", "ä.example"), ""),
    ],
)
async def test_certs_says_what_it_cannot_make(tmp_path: Path, options: tuple[str, ...], why: str) -> None:
    ended = await beamlit("certs", "--out", tmp_path / "tls", *options)
    assert ended.code == 1, ended
    assert why in ended.errors
    assert "Traceback" not in ended.errors


async def test_an_envoy_without_its_files_does_not_start_and_says_so(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("ca.crt", "tls.crt", "tls.key")]
    named = zip(("--xds-ca", "--xds-cert", "--xds-key"), files, strict=True)
    ended = await beamlit("envoy", "--admin-address", "127.0.0.1:0", *(one for pair in named for one in pair))
    assert ended.code == 1, ended
    assert "--xds-ca" in ended.errors
    assert "No such file" in ended.errors


CLIENTS = ("gateway", "controller", "reader")
