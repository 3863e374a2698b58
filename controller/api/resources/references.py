"""How our objects name others."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from controller.api.schema.scalars import PortNumberOrName, SecretName, Shape
from controller.api.schema.values import ApiValue

# As the API server checks the keys in a Secret.
SecretKey = Annotated[
    str, Field(max_length=253), Shape(r"[-._a-zA-Z0-9]+", "a key of a Secret: letters, digits, '-', '_' and '.'")
]


class Reference(ApiValue):
    """A Kubernetes ObjectReference."""

    api_version: str = ""
    """The API version of the object, such as apps/v1."""
    kind: str = ""
    """The kind of the object."""
    name: Annotated[str, Field(min_length=1, max_length=253)]
    """The name of the object."""
    namespace: str = ""
    """The namespace of the object. Default: the namespace of this ModelDeployment."""
    uid: str = ""
    """The UID of the object. Not read: the name decides."""
    resource_version: str = ""
    """The version of the object. Not read: the present one counts."""
    field_path: str = ""
    """A part of the object. Not read."""


class PortReference(Reference):
    """A Service and one port of it."""

    target_port: PortNumberOrName | None = None
    """The port of the Service: first its `port` counts, then its `targetPort`, then its name. It may be left out if the
    Service has only one TCP port."""


class PolicyReference(ApiValue):
    """A policy that applies to the model."""

    ref_type: Literal["remotePolicy", "localPolicy"] = "remotePolicy"
    """Where the policy is: localPolicy is a Policy object in the cluster, remotePolicy one on the platform."""
    name: Annotated[str, Field(max_length=253)] = ""
    """The name of the policy."""
    namespace: str = ""
    """The namespace of a local policy. Default: the namespace of this ModelDeployment."""
    api_version: str = ""
    """The API version of the policy. Not read."""
    kind: str = ""
    """The kind of the policy. Not read."""
    uid: str = ""
    """The UID of the policy. Not read."""
    resource_version: str = ""
    """The version of the policy. Not read."""
    field_path: str = ""
    """A part of the policy. Not read."""


class SecretKeyReference(ApiValue):
    """A key of a Secret in the namespace of this ModelDeployment; Secrets of other namespaces cannot be named."""

    name: SecretName
    """The name of the Secret."""
    key: SecretKey | None = None
    """The key in the Secret."""
