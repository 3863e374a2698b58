"""The names that a taken-over Service and what belongs to it carry in a cluster (docs/adr/0043).

They are a contract with every version of the programs, and with `beamlit restore`: none of them may change.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

FRONTED_KEY = "beamlit.com/fronted"
"""The key that narrows the selector of a taken-over Service: the only trace on an object of the user."""

FRONTED_VALUE = "true"

SHADOW_OF = "beamlit.com/shadow-of"
"""The label of a shadow Service: the name of the Service whose pods it has."""

SLICES_OF = "beamlit-controller"
"""Who manages our EndpointSlices, by their label `endpointslice.kubernetes.io/managed-by`."""

CONTROLLER_CLASS = "beamlit.com/controller-class"
"""The label of shadows and slices that a controller of a class keeps; without it, the controller without a class."""

GATEWAY_PORTS = "beamlit.com/gateway-ports"
"""The annotation of a shadow: the gateway's ports that clients of the Service may still be led to."""

NARROWED = "beamlit.com/narrowed"
"""The annotation of a shadow: the uid of the Service that was narrowed, and no field of which is ours any more."""

RESETS = "beamlit.com/resets"
"""The annotation of a shadow: when the selector was set back by others, lately."""

FINALIZER = "modeldeployment.beamlit.com/finalizer"
"""The finalizer of a model while it fronts a Service: a deletion waits until the Service is as it was."""

_LONGEST_NAME = 63
_ENDING = "-beamlit"


def shadow_name(service: str) -> str:
    """Name the shadow of a Service: its own name with an ending, cut and hashed where that is too long."""
    if len(service) + len(_ENDING) <= _LONGEST_NAME:
        return f"{service}{_ENDING}"
    digest = hashlib.blake2b(service.encode(), digest_size=4).hexdigest()
    return f"{service[: _LONGEST_NAME - len(_ENDING) - len(digest) - 1].rstrip('-')}-{digest}{_ENDING}"


def is_narrowed(service: Mapping[str, Any]) -> bool:
    """Whether the selector of a Service carries our key."""
    return FRONTED_KEY in (service.get("spec", {}).get("selector") or {})


def owners_selector(service: Mapping[str, Any]) -> dict[str, str]:
    """Return the selector that the owner of a Service wrote: all of it but our key."""
    return without_our_key(service.get("spec", {}).get("selector") or {})


def without_our_key(selector: Mapping[str, str]) -> dict[str, str]:
    """Return a selector as its owner wrote it."""
    return {key: value for key, value in selector.items() if key != FRONTED_KEY}


# Characters of an annotation that are read: a Service has 100 ports at most. Owners may write on shadows, too.
_LONGEST_LIST = 1000


def ports_in(text: str) -> frozenset[int]:
    """Read a list of ports, as annotations have it; what is none is left out, as is what nobody here wrote so long."""
    words = text[:_LONGEST_LIST].split(",")
    return frozenset(int(word) for word in words if word.isascii() and word.isdigit() and len(word) <= 5)
