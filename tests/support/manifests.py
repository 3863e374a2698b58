"""Objects and files for tests of a store."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from controller.api.contract.credentials import CREDENTIAL
from controller.api.schema.errors import FieldError
from controller.store.objects import ObjectRef

MODEL = "deployment.beamlit.com/v1alpha1"


def make_object(kind: str, name: str, namespace: str = "default", **fields: Any) -> dict[str, Any]:
    version = {"ModelDeployment": MODEL, "EndpointSlice": "discovery.k8s.io/v1"}.get(kind, "v1")
    # A Secret without it is not seen in a cluster.
    labels = {"labels": {CREDENTIAL: "true"}} if kind == "Secret" else {}
    metadata = {"name": name, "namespace": namespace, **labels}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **fields}


def make_service(name: str, namespace: str = "default", port: object = 80) -> dict[str, Any]:
    return make_object("Service", name, namespace, spec={"port": port})


def service(name: str, namespace: str = "default") -> ObjectRef:
    return ObjectRef("Service", namespace, name)


def make_model(name: str, namespace: str, environment: str = "one") -> dict[str, Any]:
    source = {"kind": "Deployment", "name": name}
    spec = {"model": name, "modelSourceRef": source, "environment": environment}
    return make_object("ModelDeployment", name, namespace, spec=spec)


def model(name: str, namespace: str) -> ObjectRef:
    return ObjectRef("ModelDeployment", namespace, name)


def text_of(*objects: Mapping[str, Any]) -> str:
    return yaml.safe_dump_all(objects, sort_keys=False, explicit_start=True)


def write(path: Path, *objects: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text_of(*objects))


def port_errors(raw: Mapping[str, Any]) -> tuple[FieldError, ...]:
    port = raw["spec"]["port"]
    if isinstance(port, int) and 0 < port < 65536:
        return ()
    return (FieldError(("spec", "port"), f"must be 1..65535, is {port}"),)


def secret_errors(raw: Mapping[str, Any]) -> tuple[FieldError, ...]:
    wrong = [key for key, value in (raw.get("data") or {}).items() if not isinstance(value, str)]
    return tuple(FieldError(("data", key), f"must be a string, is {raw['data'][key]}") for key in wrong)


KINDS = {
    ("v1", "Service"): port_errors,
    ("v1", "Secret"): secret_errors,
    ("discovery.k8s.io/v1", "EndpointSlice"): lambda raw: (),
    (MODEL, "ModelDeployment"): lambda raw: (),
}
