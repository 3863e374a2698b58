"""Our programs are found by what Deployments run, whatever the Deployments are called."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from controller.check.installation import RunningProgram, programs_of


def deployment(
    *words: str, command: tuple[str, ...] = (), image: str = "registry/beamlit:1", **pod: Any
) -> dict[str, Any]:
    container = {"name": "c", "image": image, "args": list(words), "command": list(command), **pod.pop("container", {})}
    return {
        "metadata": {"name": "d", "namespace": "n"},
        "spec": {
            "replicas": 3,
            "selector": {"matchLabels": {"b": "2", "a": "1"}},
            "template": {"spec": {"serviceAccountName": "s", "containers": [{"image": "sidecar"}, container], **pod}},
        },
        "status": {"readyReplicas": 2},
    }


def only(raw: dict[str, Any]) -> RunningProgram:
    (program,) = programs_of(raw)
    return program


def test_a_program_is_known_by_its_first_word() -> None:
    found = only(deployment("controller", "--lease", "n/l", "--xds-service=n/x"))
    assert (found.program, found.namespace, found.name, str(found.account)) == ("controller", "n", "d", "n/s")
    assert (found.ready, found.wanted, found.selector) == (2, 3, "a=1,b=2")
    assert (found.option("--lease"), found.option("--xds-service"), found.option("--none")) == ("n/l", "n/x", "")
    assert only(deployment("envoy", command=("/usr/bin/beamlit",), image="mine")).program == "envoy"
    assert list(programs_of(deployment("controller", image="another/controller"))) == []
    assert list(programs_of(deployment("status"))) == []
    assert list(programs_of({"metadata": {}, "spec": {}})) == []


def test_the_chart_says_by_a_label_which_program_it_is() -> None:
    """The image of its gateway begins with the name of the program, so that the words do not."""
    labels = {"app.kubernetes.io/name": "beamlit", "app.kubernetes.io/component": "gateway"}
    words = ("--xds-address=xds:18000", "--admin-address=0.0.0.0:19003")
    raw = deployment(*words, image="mirror/gateway", container={"name": "envoy"})
    assert list(programs_of(raw)) == []
    raw["metadata"]["labels"] = labels
    found = only(raw)
    assert (found.program, found.port("--admin-address", 19000)) == ("envoy", 19003)
    raw["metadata"]["labels"] = {**labels, "app.kubernetes.io/component": "certs"}
    assert list(programs_of(raw)) == []


def test_variables_and_the_environment_count() -> None:
    env = [
        {"name": "POD_NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
        {"name": "BEAMLIT_NAMESPACES", "value": "a, b"},
        {"name": "BEAMLIT_TOKEN", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
    ]
    found = only(
        deployment("controller", "--xds-service=$(POD_NAMESPACE)/x", "--lease=$(NONE)/l", container={"env": env})
    )
    assert (found.option("--xds-service"), found.option("--lease")) == ("n/x", "$(NONE)/l")
    assert found.namespaces == ("a", "b")
    assert (
        found.port("--probe-addr", 8081),
        only(deployment("controller", "--probe-addr", ":9")).port("--probe-addr", 1),
    ) == (8081, 9)


def test_the_configuration_file_is_found_in_its_config_map() -> None:
    volumes = [{"name": "config", "configMap": {"name": "beamlit"}}]
    mounts = [{"name": "config", "mountPath": "/etc/beamlit"}]
    words = ("controller", "--config", "/etc/beamlit/config.yaml")
    found = only(deployment(*words, volumes=volumes, container={"volumeMounts": mounts}))
    assert found.configuration == {"configMap": "beamlit", "key": "config.yaml"}
    said = {"namespaces": "default,team", "proxyService": {"name": "gw"}, "metricInformer": {"type": "prometheus"}}
    read = replace(found, configuration=said)
    assert (read.namespaces, read.gateway_service, read.asks_prometheus) == (
        ("default", "team"),
        ("default", "gw"),
        True,
    )
    assert only(deployment("controller", "--config=/elsewhere/c.yaml", volumes=volumes)).configuration == {}
