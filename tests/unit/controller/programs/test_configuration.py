"""Where the configuration comes from, and how its mistakes are told."""

import re
from pathlib import Path

import pytest

from controller.api.destinations import CHECKS_PORT, OUTSIDE
from controller.api.resources.configuration import Configuration
from controller.api.schema.values import parse
from controller.cli.main import main
from controller.gateway.bootstrap import HostPort
from controller.programs.configuration import ConfigurationFileError, load_configuration, ports_of_programs

DOCS = Path(__file__).parents[4] / "docs"


def written(folder: Path, text: str) -> Path:
    path = folder / "config.yaml"
    path.write_text(text)
    return path


def test_without_anything_the_defaults_hold():
    assert load_configuration(None, {}) == Configuration()


def test_an_empty_file_configures_nothing(tmp_path: Path):
    assert load_configuration(written(tmp_path, ""), {}) == Configuration()


def test_json_is_read_too(tmp_path: Path):
    assert load_configuration(written(tmp_path, '{"namespaces": ["models"]}'), {}).namespaces == ("models",)


def test_what_the_command_line_says_goes_before_the_file(tmp_path: Path):
    path = written(tmp_path, "namespaces: [models]\nmetricsAddr: ':9090'\nenableLeaderElection: true\n")
    configuration = load_configuration(path, {"namespaces": "a,b", "enable_leader_election": False})
    assert configuration.namespaces == ("a", "b")
    assert configuration.metrics_addr == ":9090"
    assert configuration.enable_leader_election is False


def test_a_mistake_in_the_file_names_its_line(tmp_path: Path):
    path = written(tmp_path, "metricsAddr: ':9090'\nnamespace: a\n")
    with pytest.raises(ConfigurationFileError, match=r"config\.yaml:2: namespace: is not a known field; is namespaces"):
        load_configuration(path, {})


def test_two_documents_are_one_too_many(tmp_path: Path):
    with pytest.raises(ConfigurationFileError, match=r"config\.yaml:3: must be one document"):
        load_configuration(written(tmp_path, "metricsAddr: ':1'\n---\nprobeAddr: ':2'\n"), {})


def test_where_programs_listen_unless_they_are_told_otherwise_is_never_a_port_of_a_model():
    listening = {
        str(option.default).rpartition(":")[2]
        for command, names in {
            "xds-server": {"--xds-address", "--admin-address", "--reports-address", "--gateway-port"},
            "envoy": {"--admin-address"},
        }.items()
        for option in main.commands[command].params
        if names & set(option.opts)
    }
    ports = ports_of_programs(Configuration(), ())
    assert {*map(int, listening), CHECKS_PORT} == ports
    for document in ("cluster.md", "adr/0032-a-namespace-has-a-quota-of-ports.md"):
        (listed,) = re.findall(
            r"([\d, and]+), `proxyService\.adminPort`", " ".join((DOCS / document).read_text().split())
        )
        assert {*map(int, re.findall(r"\d+", listed))} == ports, document


def test_where_requests_may_go_is_read_from_the_file(tmp_path: Path):
    (tmp_path / "c.yaml").write_text("remoteBackends:\n  allow: [10.7.0.0/16]\n  deny: [private, '*.Corp']\n")
    found = load_configuration(tmp_path / "c.yaml", {}).destinations(OUTSIDE)
    assert found.refused_host("10.7.0.1") is None
    assert found.refused_host("10.8.0.1") == "a private address"
    assert found.refused_host("db.corp")
    assert found.refused_host("127.0.0.1") == "a loopback address"


def test_a_range_that_is_none_is_a_mistake_with_its_line(tmp_path: Path):
    (tmp_path / "c.yaml").write_text("remoteBackends:\n  deny:\n  - 10.0.0.0/8\n  - 10.0.0.1/8\n")
    with pytest.raises(ConfigurationFileError, match=r"c.yaml:4: remoteBackends.deny\[1\]: must be a range such as"):
        load_configuration(tmp_path / "c.yaml", {})


def test_what_is_configured_is_no_port_of_a_model_either():
    configuration = parse(Configuration, {"proxyService": {"name": "gateway", "adminPort": 10_000}})
    assert ports_of_programs(configuration, [HostPort("0.0.0.0", 10_001)]) >= {10_000, 10_001}
