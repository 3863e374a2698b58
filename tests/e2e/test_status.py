"""`beamlit status`, the admin address behind it, and what all commands have in common: help and exit codes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import pytest_asyncio
import yaml
from prometheus_client.parser import text_string_to_metric_families

from controller.api.timing import FolderTiming
from tests.support.beamlit import Product, beamlit, eventually, executed_beamlit
from tests.support.data_plane.backends import Backends
from tests.support.e2e_manifests import endpoints, model, service, text_of
from tests.support.forked import Forked
from tests.support.metrics import differences
from tests.support.network import unused_port
from tests.support.timing import PATIENT

pytestmark = pytest.mark.asyncio(loop_scope="module")

HEADINGS = ["NAMESPACE", "NAME", "MODEL", "READY", "PORT", "LOCAL", "SPLIT", "REASON", "AGE"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def product(backends: Backends, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Product]:
    """Two models, one of them down and in a namespace of its own, and a mistake in a third file."""
    product = Product(tmp_path_factory.mktemp("status"))
    product.save(
        "chat.yaml",
        text_of(
            model("chat", backends.remote, {"beamlit.com/override": "remote=20"}),
            service("chat", unused_port()),
            endpoints("chat", *backends.local),
        ),
    )
    product.save(
        "down.yaml",
        text_of(
            model("down", backends.remote, namespace="team"),
            service("down", unused_port(), namespace="team"),
            endpoints("down", *backends.local[:2], ready=False, namespace="team"),
        ),
    )
    product.save("wrong.yaml", "kind: Service\n")
    async with product.running("--envoy"):
        await product.programmed("chat")
        await product.programmed("down")
        yield product


def cells(output: str) -> list[list[str]]:
    return [re.split(r" {3,}", line) for line in output.splitlines()]


async def test_the_table_has_a_line_for_each_model_and_problems_go_to_stderr(product):
    ended = await executed_beamlit("status", "--server", f"http://{product.admin}")
    assert ended.code == 0
    headings, *rows = cells(ended.output)
    assert headings == HEADINGS
    listed = json.loads((await product.look("/status")).text)["items"]
    chat, down = [one["status"]["servingPort"] for one in listed]
    assert [row[:-1] for row in rows] == [
        ["default", "chat", "chat", "True", f"{chat}", "3/3", "80/20", "Override"],
        ["team", "down", "down", "True", f"{down}", "0/2", "0/100", "LocalDown"],
    ]
    assert all(re.fullmatch(r"\d+s", row[-1]) for row in rows)
    assert ended.errors == "beamlit: wrong.yaml:1: apiVersion: is required\n"


async def test_one_model_by_name_and_namespace(product):
    server = ("--server", f"http://{product.admin}/")
    chat, absent, elsewhere, whole, team = await asyncio.gather(
        beamlit("status", "chat", *server),
        beamlit("status", "down", *server),
        beamlit("status", "down", "-n", "team", *server),
        beamlit("status", "team/down", *server),
        beamlit("status", "-n", "team", *server),
    )
    assert [row[1] for row in cells(chat.output)] == ["NAME", "chat"]
    assert (absent.code, absent.output) == (1, "")
    assert "there is no ModelDeployment default/down" in absent.errors
    for found in (elsewhere, whole, team):
        assert [row[:2] for row in cells(found.output)[1:]] == [["team", "down"]]


async def test_json_and_yaml_are_the_objects_with_metadata_and_status(product):
    server = ("--server", f"http://{product.admin}")

    async def shown() -> tuple[list[Any], list[Any]]:
        as_json, as_yaml = await asyncio.gather(
            beamlit("status", "-o", "json", *server), beamlit("status", "chat", "-o", "yaml", *server)
        )
        return json.loads(as_json.output), yaml.safe_load(as_yaml.output)

    # A status may be written between the two.
    models, (chat,) = await eventually(shown, lambda seen: seen[1] == seen[0][:1])
    assert [one["metadata"]["name"] for one in models] == ["chat", "down"]
    assert chat["metadata"].keys() >= {"uid", "creationTimestamp", "generation", "resourceVersion"}
    status = chat["status"]
    assert status["observedGeneration"] == chat["metadata"]["generation"] == 1
    assert status["split"].keys() == {"local", "remote", "summary", "reason", "message", "since", "returns"}
    assert next(one["rule"] for one in status["verdicts"] if one["matched"]) == "Override"
    assert status["local"] == {"ready": 3, "total": 3, "summary": "3/3"}
    assert [one["type"] for one in status["conditions"]] == [
        *("Accepted", "ResolvedRefs", "Programmed", "LocalHealthy", "RemoteHealthy"),
        *("Offloading", "FailingOver", "Paused", "Ready"),
    ]
    assert all(one["observedGeneration"] == 1 and one["lastTransitionTime"] for one in status["conditions"])
    assert status["route"]["port"] == status["servingPort"]
    assert [entry["split"] for entry in status["history"]] == ["80/20"]


async def test_health_and_metrics(product):
    alive, ready = await product.look("/livez"), await product.look("/readyz")
    assert (alive.status_code, ready.status_code) == (200, 200)
    metrics = await product.look("/metrics")
    assert differences("R", metrics.text) == []
    samples = {
        (sample.name, *(value for name, value in sorted(sample.labels.items()) if name != "le")): sample.value
        for family in text_string_to_metric_families(metrics.text)
        for sample in family.samples
    }
    assert samples["beamlit_model_split_ratio", "chat", "default", "local"] == 0.8
    assert samples["beamlit_model_split_ratio", "chat", "default", "remote"] == 0.2
    assert samples["beamlit_model_split_ratio", "down", "team", "remote"] == 1
    assert samples["beamlit_xds_streams", "ADS"] == 1
    for kind in ("CDS", "EDS", "LDS", "RDS"):
        assert samples["beamlit_xds_responses_total", kind] >= 1
        assert samples["beamlit_xds_acks_total", kind] >= 1
        assert samples["beamlit_xds_push_seconds_count", kind] >= 1
    assert not any(value for (name, *_), value in samples.items() if name == "beamlit_xds_nacks_total")
    assert samples["beamlit_directory_problems",] == 1


async def test_not_ready_before_the_folder_was_read(tmp_path):
    """A file that does not come to rest is waited for, but not for ever."""
    restless = FolderTiming(quiet=60.0, first_list=8.0)
    product = Product(tmp_path, partial(Forked, context=replace(PATIENT, folder=restless)))
    product.save("restless.yaml", "# as long as this test takes\n")
    product.launch()
    async with stopped_after(product):

        async def said() -> tuple[int, str]:
            # One answer has both: by the next question it may have been read.
            if await product.readiness() == 0:
                return 0, ""
            answer = await product.look("/readyz")
            return answer.status_code, answer.text

        await eventually(said, (503, "the folder has not been read yet\n").__eq__)
        assert (await product.look("/livez")).status_code == 200
        await eventually(product.readiness, (200).__eq__)


@contextlib.asynccontextmanager
async def stopped_after(product: Product) -> AsyncIterator[None]:
    try:
        yield
    finally:
        product.kill()


@pytest.mark.parametrize("command", ["run", "status", "bootstrap", "envoy"])
async def test_help_has_examples_and_exit_codes(command):
    ended = await beamlit(command, "--help")
    assert (ended.code, ended.errors) == (0, "")
    assert f"Usage: beamlit {command} " in ended.output
    assert f"  Examples:\n    beamlit {command}" in ended.output
    assert re.search(r"^  Exit codes: 0 .*; 2 wrong usage", ended.output, re.MULTILINE)


async def test_help_of_the_program_names_the_commands():
    ended = await executed_beamlit("--help")
    assert ended.code == 0
    assert "Examples:" in ended.output
    for command in ("run", "status", "bootstrap", "envoy"):
        assert re.search(rf"^  {command} ", ended.output, re.MULTILINE)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "Usage: beamlit"),
        (("serve",), "No such command 'serve'"),
        (("run",), "Missing argument 'DIR'"),
        (("run", "/no/such/folder"), "'/no/such/folder' does not exist"),
        (("run", "/tmp", "--xds-address", "18000"), "'18000' is not HOST:PORT, such as 127.0.0.1:18000"),
        (("run", "/tmp", "--admin-address", "127.0.0.1:70000"), "is not HOST:PORT"),
        (("run", "/tmp", "--config", "/no/such/file"), "'/no/such/file' does not exist"),
        (("status", "-o", "wide"), "'wide' is not one of"),
        (("status", "one", "two"), "unexpected extra argument"),
        (("bootstrap", "--xds-address", "nowhere"), "is not HOST:PORT"),
        (("bootstrap", "name"), "unexpected extra argument"),
        (("envoy", "--envoy-binary", "/no/such/file"), "'/no/such/file' does not exist"),
        (("envoy", "--drain-seconds", "-1"), "-1.0 is not in the range x>=0"),
        (("envoy", "--drain-seconds", "nan"), "'nan' is not a number of seconds"),
        (("envoy", "--drain-delay-seconds", "inf"), "'inf' is not a number of seconds"),
        (("run", "/tmp", "--access-log", "some"), "'some' is not one of"),
        (("run", "/tmp", "--log-format", "xml"), "'xml' is not one of"),
        (("status", "--server", "http://["), "'http://[' is not the URL of a server"),
        (("status", "--server", "127.0.0.1:19000"), "is not the URL of a server, such as http://"),
        (("controller", "--metrics-addr", "nowhere"), "Invalid value for '--metrics-addr': must be an address"),
        (("controller", "--probe-addr", ":65536"), "Invalid value for '--probe-addr': must be an address"),
        (("controller", "--namespaces", "a,B"), "Invalid value for '--namespaces': must be the name of a namespace"),
        (("xds-server", "--namespaces", "a_b"), "Invalid value for '--namespaces': must be the name of a namespace"),
        (("controller", "--lease", "models"), "'models' is not NAMESPACE/NAME"),
        (("controller", "--xds-service", "Models/x"), "'Models/x' is not NAMESPACE/NAME"),
        (("xds-server", "--gateway-address", "gateway"), "'gateway' is not an IP address"),
        (("xds-server", "--tls-cert", "/tmp/tls.crt"), "--tls-cert, --tls-key and --client-ca are given together"),
        (("xds-server", "--token-address", "0.0.0.0:9443"), "--token-address is for --tls-cert, --tls-key and"),
        (("xds-server", "--refused-clients", "/tmp/list"), "--refused-clients is for --tls-cert, --tls-key and"),
        (("envoy", "--xds-token-file", "/tmp/token"), "or --xds-ca and --xds-token-file, or none of them"),
        (("bootstrap", "--xds-ca", "/tmp/a", "--xds-token-file", "/tmp/t"), "--xds-token-file needs --sds-directory"),
        (("bootstrap", "--xds-address", "unix:/x", "--xds-ca", "/tmp/a", "--xds-token-file", "/tmp/t"), "no TLS"),
        (("run", ".", "--xds-address", "unix:relative"), "is not unix:/PATH"),
        (("xds-server", "--client", "spiffe://a/b=gateway"), "--client is for --tls-cert, --tls-key and --client-ca"),
        (("controller", "--xds-ca", "/tmp/ca.crt"), "--xds-ca, --xds-cert and --xds-key are given together"),
        (("envoy", "--xds-server-name", "xds"), "--xds-ca, --xds-cert and --xds-key are given together"),
        (("bootstrap", "--sds-directory", "/tmp"), "--sds-directory is for --xds-ca, --xds-cert and --xds-key"),
        (("certs",), "give one of --out and --secrets"),
        (("xds-server", "--gateway-port", "12000"), "12000 is one of the ports for models, 10000 to 29999"),
    ],
)
async def test_wrong_usage_exits_with_2(arguments, said):
    ended = await beamlit(*arguments)
    assert (ended.code, ended.output) == (2, "")
    assert said in ended.errors


async def test_a_malformed_environment_variable_is_wrong_usage_too():
    ended = await beamlit("controller", BEAMLIT_METRICS_ADDR="nowhere")
    assert (ended.code, ended.output) == (2, "")
    assert "Invalid value for '--metrics-addr': must be an address" in ended.errors


@contextlib.contextmanager
def taken() -> Iterator[str]:
    """An address on which another program listens."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield f"127.0.0.1:{other.getsockname()[1]}"


@pytest.mark.parametrize("option", ["--xds-address", "--admin-address"])
async def test_a_taken_address_is_told_by_its_option(tmp_path, option):
    (tmp_path / "objects").mkdir()
    addresses = {"--xds-address": "127.0.0.1:0", "--admin-address": "127.0.0.1:0"}
    with taken() as address:
        options = [word for pair in (addresses | {option: address}).items() for word in pair]
        ended = await beamlit("run", tmp_path / "objects", "--envoy", *options, "--state-dir", tmp_path / "state")
    assert ended.code == 1, ended
    (message,) = (line for line in ended.errors.splitlines() if line.startswith("Error: "))
    assert message.startswith(f"Error: {option}")
    assert address in message
    assert "Traceback" not in ended.errors
    assert not list((tmp_path / "state" / "envoy").glob("*/process")), "no Envoy was started"


class Other(BaseHTTPRequestHandler):
    """Another program's server: JSON on one path, nothing elsewhere."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/json/status" else 404)
        self.end_headers()
        self.wfile.write(b'["something else"]')

    def log_message(self, *_: object) -> None:
        """Say nothing."""


async def test_status_exits_with_3_where_nothing_or_another_program_answers():
    other = ThreadingHTTPServer(("127.0.0.1", 0), Other)
    thread = threading.Thread(target=other.serve_forever)
    thread.start()
    try:
        there = f"http://127.0.0.1:{other.server_address[1]}"
        nowhere = f"http://127.0.0.1:{unused_port()}"
        servers = (nowhere, there, f"{there}/json")
        for server, ended in zip(
            servers, await asyncio.gather(*(beamlit("status", "--server", server) for server in servers)), strict=True
        ):
            assert (ended.code, ended.output) == (3, ""), server
            assert ended.errors.startswith(f"beamlit: {server} does not answer as `beamlit run` does: ")
            assert "kubectl get modeldeployments --all-namespaces" in ended.errors
            assert "Traceback" not in ended.errors
    finally:
        other.shutdown()
        thread.join()
        other.server_close()
