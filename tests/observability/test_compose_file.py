"""docker-compose.yml, as the real `docker compose` reads it: it is one, and no container may do more than it has to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.processes import ROOT
from tests.tools import binaries

COMPOSE = Path(sys.executable).with_name("docker-compose")
OURS = "beamlit-compose"


def read(**variables: str) -> Mapping[str, Any]:
    """The file with variables and anchors resolved. It needs no engine."""
    environment = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **variables}
    command = [COMPOSE, "--file", ROOT / "docker-compose.yml", "config", "--format", "json"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: Mapping[str, Any] = json.loads(done.stdout)
    return found


PROJECT = read()
SERVICES: Mapping[str, Mapping[str, Any]] = PROJECT["services"]


@pytest.mark.parametrize("name", SERVICES)
def test_no_container_may_do_more_than_it_has_to(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert int(service["user"].partition(":")[0]) > 0
    assert {"mem_limit", "pids_limit"} <= service.keys()
    assert not {"privileged", "cap_add", "devices", "pid", "ipc"} & service.keys()
    assert all(volume["type"] == "volume" or volume["read_only"] for volume in service.get("volumes", ()))


@pytest.mark.parametrize("name", SERVICES)
def test_only_this_host_gets_at_a_port(name: str) -> None:
    assert all(port["host_ip"] == "127.0.0.1" for port in SERVICES[name].get("ports", ()))


def test_only_those_with_a_port_are_on_a_network_that_leads_outside() -> None:
    assert PROJECT["networks"]["models"]["internal"] is True
    outside = {name for name, one in SERVICES.items() if "outside" in (one.get("networks") or {})}
    assert outside == {name for name, one in SERVICES.items() if one.get("ports")}


@pytest.mark.parametrize("name", SERVICES)
def test_an_image_has_a_version(name: str) -> None:
    image = SERVICES[name]["image"]
    tag = image.rpartition(":")[2]
    assert image == OURS or tag not in (image, "latest")


def test_what_is_mounted_and_built_from_is_there() -> None:
    for service in SERVICES.values():
        for volume in service.get("volumes", ()):
            assert volume["type"] == "volume" or Path(volume["source"]).is_file()
        if build := service.get("build"):
            assert (Path(build["context"]) / build["dockerfile"]).is_file()


def test_images_and_ports_are_variables() -> None:
    digest = "@sha256:" + "0" * 64
    chosen = read(
        PROMETHEUS_IMAGE=f"prom/prometheus:v3.13.0{digest}",
        GRAFANA_IMAGE=f"grafana/grafana:12.2.1{digest}",
        ENVOY_IMAGE=f"envoyproxy/envoy:distroless-v1.40.0{digest}",
        PYTHON_IMAGE=f"python:3.13-slim{digest}",
        GRAFANA_PORT="13000",
    )["services"]
    assert chosen["prometheus"]["image"].endswith(digest)
    assert chosen["grafana"]["image"].endswith(digest)
    assert all(chosen["pod"]["build"]["args"][name].endswith(digest) for name in ("ENVOY_IMAGE", "PYTHON_IMAGE"))
    assert chosen["grafana"]["ports"][0]["published"] == "13000"


def test_prometheus_takes_its_configuration(tmp_path: Path) -> None:
    config = (ROOT / "deploy" / "compose" / "prometheus.yaml").read_text()
    rules = ROOT / "deploy" / "observability" / "rules.yaml"
    file = tmp_path / "prometheus.yaml"
    file.write_text(config.replace("/etc/prometheus/rules.yaml", str(rules)))
    done = subprocess.run([binaries.promtool(), "check", "config", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_grafana_finds_prometheus_and_the_dashboard() -> None:
    grafana = SERVICES["grafana"]
    mounted = {volume["target"]: volume["source"] for volume in grafana["volumes"] if volume["type"] == "bind"}
    # Grafana reads every file of these folders ("Provision Grafana").
    folders = {Path(target).parent: yaml.safe_load(Path(file).read_text()) for target, file in mounted.items()}
    provisioning = Path("/etc/grafana/provisioning")
    (source,) = folders[provisioning / "datasources"]["datasources"]
    (provider,) = folders[provisioning / "dashboards"]["providers"]
    (port,) = SERVICES["prometheus"]["ports"]
    assert (source["type"], source["url"]) == ("prometheus", f"http://prometheus:{port['target']}")
    assert source["isDefault"], "the dashboard takes the default one"
    home = grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert Path(home).parent == Path(provider["options"]["path"])
    assert Path(mounted[home]) == ROOT / "deploy" / "observability" / "dashboard.json"
    assert "prometheus" in grafana["depends_on"]
    assert set(grafana["networks"]) & set(SERVICES["prometheus"]["networks"])
