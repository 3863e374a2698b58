"""What is installed into a cluster, written from the registry: definitions, roles, and parts of the chart."""

from __future__ import annotations

from collections.abc import Mapping

from controller.install.chart import chart_files
from controller.install.crd import definition_files
from controller.install.rbac import role_files


def manifests() -> Mapping[str, str]:
    """Write every file of `deploy` that is not written by hand, by its path in there."""
    return {
        **{f"crds/{name}": text for name, text in definition_files().items()},
        **{f"rbac/{name}": text for name, text in role_files().items()},
        **{f"chart/{name}": text for name, text in chart_files().items()},
    }
