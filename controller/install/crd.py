"""CustomResourceDefinitions, written from the models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml
from pydantic import BaseModel

from controller.api.contract.status import ModelDeploymentStatus
from controller.api.resources import model, policy, tool
from controller.api.schema.cel import VALIDATIONS
from controller.install.schema import Schema, structural


@dataclass(frozen=True, slots=True)
class Column:
    """One column of `kubectl get`; a `wide` one appears with `-o wide` only."""

    name: str
    path: str
    description: str
    type: str = "string"
    wide: bool = False

    def as_object(self) -> dict[str, Any]:
        """Return the column as a definition has it."""
        column = {"name": self.name, "type": self.type, "jsonPath": self.path, "description": self.description}
        return {**column, "priority": 1} if self.wide else column


@dataclass(frozen=True, slots=True)
class Kind:
    """What users call a kind, and the models of its parts."""

    group: str
    name: str
    short: str
    model: type[BaseModel]
    spec: type[BaseModel]
    status: type[BaseModel]
    columns: tuple[Column, ...]

    @property
    def plural(self) -> str:
        """The name in URLs."""
        return f"{self.name.lower()[:-1]}ies" if self.name.endswith("y") else f"{self.name.lower()}s"


def definition_of(kind: Kind) -> dict[str, Any]:
    """Write the CustomResourceDefinition of a kind: v1alpha1, namespaced, with a status of its own."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{kind.group}"},
        "spec": {
            "group": kind.group,
            "scope": "Namespaced",
            "names": {
                "kind": kind.name,
                "listKind": f"{kind.name}List",
                "plural": kind.plural,
                "singular": kind.name.lower(),
                "shortNames": [kind.short],
                "categories": ["beamlit"],
            },
            "versions": [
                {
                    "name": "v1alpha1",
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [column.as_object() for column in kind.columns],
                    "schema": {"openAPIV3Schema": _whole(kind)},
                }
            ],
        },
    }


def _whole(kind: Kind) -> Schema:
    spec = structural(kind.spec)
    return {
        "description": (kind.model.__doc__ or "").strip(),
        "type": "object",
        # An object without a spec is one that says nothing: only a kind whose spec needs nothing may leave it out.
        **({"required": ["spec"]} if "required" in spec else {}),
        "properties": {
            "apiVersion": {"description": "The version of this schema.", "type": "string"},
            "kind": {"description": "The kind of this object.", "type": "string"},
            "metadata": {"type": "object"},
            "spec": spec,
            "status": _lenient(structural(kind.status, mode="serialization")),
        },
    }


def _lenient(status: Schema) -> Schema:
    """Take a status as programs of other versions write it: a refused status would stop the traffic from following."""
    return dict(_types_alone(status))


def _types_alone(schema: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
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


def _condition(type_: str, field: str) -> str:
    return f'.status.conditions[?(@.type=="{type_}")].{field}'


_AGE = Column("AGE", ".metadata.creationTimestamp", "The time since the object was made.", "date")

KINDS = (
    Kind(
        group=model.API_VERSION.partition("/")[0],
        name=model.KIND,
        short="mdep",
        model=model.ModelDeployment,
        spec=model.ModelDeploymentSpec,
        status=ModelDeploymentStatus,
        columns=(
            Column("MODEL", ".spec.model", "The name of the model."),
            Column("READY", _condition("Ready", "status"), "Whether Envoy serves the route asked for."),
            Column("LOCAL", ".status.local.summary", "The replicas that are ready, of all there are."),
            Column(
                "SPLIT", ".status.split.summary", "The shares of the requests that stay and that leave, in percent."
            ),
            Column("REASON", ".status.split.reason", "Why the split is what it is."),
            Column("REMOTE", ".status.remote.host", "The remote backend.", wide=True),
            Column("PROXIES", _condition("Programmed", "reason"), "Whether every Envoy has the route.", wide=True),
            _AGE,
        ),
    ),
    Kind(
        group=policy.API_VERSION.partition("/")[0],
        name=policy.KIND,
        short="bpol",
        model=policy.Policy,
        spec=policy.PolicySpec,
        status=policy.PolicyStatus,
        columns=(Column("TYPE", ".spec.type", "What is limited: places or kinds of machines."), _AGE),
    ),
    Kind(
        group=tool.API_VERSION.partition("/")[0],
        name=tool.KIND,
        short="tdep",
        model=tool.ToolDeployment,
        spec=tool.ToolDeploymentSpec,
        status=tool.ToolDeploymentStatus,
        columns=(_AGE,),
    ),
)


def files() -> Mapping[str, str]:
    """Write the files that define the kinds, by name."""
    return {f"{kind.name.lower()}.yaml": _text(definition_of(kind)) for kind in KINDS}


def _text(definition: dict[str, Any]) -> str:
    written: str = yaml.dump(definition, Dumper=_InFull, sort_keys=False, width=120, allow_unicode=True)
    return f"# Written by `make crds` from the models in controller/api; do not edit.\n{written}"


class _InFull(yaml.SafeDumper):
    """Writes a value that occurs twice as two."""

    def ignore_aliases(self, data: Any) -> bool:
        """Say that nothing is an alias of anything."""
        return True
