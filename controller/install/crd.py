"""CustomResourceDefinitions, written from the registry and the models of our kinds."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from controller.api.registry import KINDS, Definition, Kind, PrinterColumn
from controller.api.schema.cel import VALIDATIONS
from controller.install.schema import Schema, structural


@functools.cache
def definitions() -> Mapping[str, Mapping[str, Any]]:
    """Return the CustomResourceDefinition of each kind of ours, by its name in a cluster."""
    return {
        kind.resource: _custom_resource(kind, kind.definition) for kind in KINDS.values() if kind.definition is not None
    }


def definition_files() -> Mapping[str, str]:
    """Write the CustomResourceDefinition of each kind of ours into a file, by its name."""
    return {f"{one['spec']['names']['singular']}.yaml": _text(one) for one in definitions().values()}


def _custom_resource(kind: Kind, definition: Definition) -> dict[str, Any]:
    """Write one: namespaced, in one version, with a status of its own."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": kind.resource},
        "spec": {
            "group": kind.group,
            "scope": "Namespaced",
            "names": {
                "kind": kind.kind,
                "listKind": f"{kind.kind}List",
                "plural": kind.plural,
                "singular": kind.kind.lower(),
                "shortNames": [definition.short_name],
                "categories": ["beamlit"],
            },
            "versions": [
                {
                    "name": kind.version,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [_column(one) for one in definition.columns],
                    "schema": {"openAPIV3Schema": _object_schema(kind, definition)},
                }
            ],
        },
    }


def _column(column: PrinterColumn) -> dict[str, Any]:
    written = {
        "name": column.name,
        "type": column.type,
        "jsonPath": column.json_path,
        "description": column.description,
    }
    return {**written, "priority": 1} if column.wide else written


def _object_schema(kind: Kind, definition: Definition) -> Schema:
    spec = structural(definition.spec)
    return {
        "description": (kind.schema.__doc__ or "").strip(),
        "type": "object",
        # An object without a spec is one that says nothing: only a kind whose spec needs nothing may leave it out.
        **({"required": ["spec"]} if "required" in spec else {}),
        "properties": {
            "apiVersion": {"description": "The version of this schema.", "type": "string"},
            "kind": {"description": "The kind of this object.", "type": "string"},
            "metadata": {"type": "object"},
            "spec": spec,
            "status": _lenient(structural(definition.status, mode="serialization")),
        },
    }


def _lenient(status: Schema) -> Schema:
    """Drop every bound: a status that another version wrote must not be refused, or traffic would not follow it."""
    return dict(_types_only(status))


def _types_only(schema: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    keys = schema.get("x-kubernetes-list-map-keys")
    for key, value in schema.items():
        match key:
            case "properties":
                yield key, {name: _lenient(one) for name, one in value.items()}
            case "items":
                yield key, {**_lenient(value), **({"required": keys} if keys else {})}
            case "description" | "type" | "format":
                yield key, value
            case _ if key.startswith("x-kubernetes-") and key != VALIDATIONS:
                yield key, value


def _text(definition: Mapping[str, Any]) -> str:
    written: str = yaml.dump(definition, Dumper=_WithoutAliases, sort_keys=False, width=120, allow_unicode=True)
    return f"# Written by `make manifests` from the models in controller/api; do not edit.\n{written}"


class _WithoutAliases(yaml.SafeDumper):
    """Writes out a value that occurs twice both times."""

    def ignore_aliases(self, data: Any) -> bool:
        """Ignore all."""
        return True
