"""What a translation depends on besides the route: the settings of the Envoys that it is for."""

from __future__ import annotations

from dataclasses import dataclass

from controller.api.timing import REAL, GatewayTiming
from xds_server.resources.access_log import AccessLog

# Where Debian, Ubuntu and Envoy's own images keep the authorities that their system trusts.
SYSTEM_AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"


@dataclass(frozen=True, slots=True)
class EnvoySettings:
    """What all Envoys of one scope have in common: the gateways, or the sidecars of a namespace.

    `address` is where they listen: that of the pod for a gateway, loopback for a sidecar. `authorities` is the file
    where their system keeps the authorities that it trusts. `envoys` of them share what the replicas take, unless the
    translation of a route is given another number. `access_log` is which requests they log. `timing` has the times of
    their settings, and those by which the settings follow what happens.
    """

    address: str = "127.0.0.1"
    authorities: str = SYSTEM_AUTHORITIES
    envoys: int = 1
    access_log: AccessLog = AccessLog.OFF
    timing: GatewayTiming = REAL.gateway
