"""The configuration file (`--config`)."""

from __future__ import annotations

from controller.api.base import ApiValue
from controller.api.model import RemoteBackend


class Configuration(ApiValue):
    """What holds for all models. `defaultRemoteBackend` serves those that name no backend of their own."""

    default_remote_backend: RemoteBackend | None = None
