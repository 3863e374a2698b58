"""What is installed into a cluster, written from the registry: custom resource definitions, and roles."""

from __future__ import annotations

from collections.abc import Mapping

from controller.install.crd import definition_files
from controller.install.rbac import role_files


def manifests() -> Mapping[str, str]:
    """Write every file of `deploy`, by its path in there."""
    return {
        **{f"crds/{name}": text for name, text in definition_files().items()},
        **{f"rbac/{name}": text for name, text in role_files().items()},
    }
