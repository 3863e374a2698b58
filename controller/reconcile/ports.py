"""Which port of a Service a ModelDeployment means."""

from __future__ import annotations

from controller.api.core import Service, ServicePort
from controller.api.model import PortReference


class PortNotFoundError(Exception):
    """No port, or more than one, fits the reference; the message names the choices."""


def referred_port(reference: PortReference, service: Service) -> ServicePort:
    """Find the TCP port that `serviceRef` names.

    `targetPort` is compared with the Service's `port` first (what it meant from the beginning), then with its
    `targetPort`, then with its name. It may be left out if there is only one port.
    """
    ports = [port for port in service.spec.ports if port.protocol == "TCP"]
    wanted = reference.target_port
    if wanted is None:
        fitting = ports
    else:
        fitting = [port for port in ports if str(port.port) == str(wanted)]
        fitting = fitting or [port for port in ports if str(port.target_port or port.port) == str(wanted)]
        fitting = fitting or [port for port in ports if port.name and port.name == wanted]
    if len(fitting) == 1:
        return fitting[0]
    choices = ", ".join(f"{port.port} ({port.name})" if port.name else str(port.port) for port in ports) or "none"
    asked = "serviceRef.targetPort is not set" if wanted is None else f"serviceRef.targetPort is {wanted}"
    problem = "no TCP port fits" if not fitting else "more than one port fits"
    raise PortNotFoundError(f"{asked}, and {problem}; the Service's TCP ports: {choices}")
