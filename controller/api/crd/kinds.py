"""The kinds that this project brings, and the files that define them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from controller.api import model, policy, tool
from controller.api.crd.definition import Column, Kind, definition_of
from controller.api.status import ModelDeploymentStatus


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
