"""What an API server says of its kinds, as JSON schemas that kubeconform reads: no field that it does not know."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.support.kube.cluster import Cluster

LOCATION = "{{ .Group }}_{{ .ResourceAPIVersion }}_{{ .ResourceKind }}.json"
"""How kubeconform finds the schema of a kind in the folder."""


def write_schemas(cluster: Cluster, folder: Path) -> None:
    """Write a schema for each kind of an API server."""
    with cluster.client() as client:
        definitions = client.get("/openapi/v2").raise_for_status().json()["definitions"]
    closed = {name: _closed(one) for name, one in definitions.items()}
    (folder / "definitions.json").write_text(json.dumps({"definitions": closed}))
    for name, one in definitions.items():
        for kind in one.get("x-kubernetes-group-version-kind", ()):
            # It takes the version for the group of what has none.
            file = f"{kind['group'] or kind['version']}_{kind['version']}_{kind['kind'].lower()}.json"
            reference = f"file://{folder}/definitions.json#/definitions/{name}"
            (folder / file).write_text(json.dumps({"$ref": reference}))


def _closed(schema: dict[str, Any]) -> dict[str, Any]:
    """Refuse unknown fields of an object; what is `int-or-string` is both."""
    if schema.get("format") == "int-or-string":
        return {"type": ["string", "integer"]}
    closed = {name: schema[name] for name in ("$ref", "type", "required") if name in schema}
    if "enum" in schema:
        closed["enum"] = list(dict.fromkeys(schema["enum"]))  # Kubernetes 1.27 says some values twice.
    if "properties" in schema:
        closed["properties"] = {name: _closed(one) for name, one in schema["properties"].items()}
        closed["additionalProperties"] = False
    for name in ("items", "additionalProperties"):
        if isinstance(schema.get(name), dict):
            closed[name] = _closed(schema[name])
    return closed
