"""What a request loses on its way to the remote backend, and gets back if it is sent to the replicas after all.

A request that the split sends away is rewritten before the first attempt (path, host, headers), and Envoy retries what
it has already rewritten. So the front keeps the originals in the filter state of the request, where the upstream filter
of the fallback cluster finds them (upstream filters see the state of the client's request, whichever attempt it is).
"""

from __future__ import annotations

from functools import lru_cache

from envoy_data_plane.envoy.config.common.mutation_rules.v3 import HeaderMutation
from envoy_data_plane.envoy.config.core.v3 import (
    DataSource,
    HeaderValue,
    HeaderValueOption,
    HeaderValueOptionHeaderAppendAction,
    SubstitutionFormatString,
)
from envoy_data_plane.envoy.extensions.filters.common.set_filter_state.v3 import FilterStateValue
from envoy_data_plane.envoy.extensions.filters.http.header_mutation.v3 import HeaderMutation as HeaderMutationFilter
from envoy_data_plane.envoy.extensions.filters.http.header_mutation.v3 import Mutations
from envoy_data_plane.envoy.extensions.filters.http.set_filter_state.v3 import Config as SetFilterState
from envoy_data_plane.google.protobuf import Any

from controller.api.contract.route import Remote
from controller.api.schema.http import CREDENTIAL_HEADERS
from xds_server.resources.packing import packed

# What belongs to the client or to the cluster. Browsers and HTTP libraries, too, drop a client's credentials when a
# request goes on to another host (Go's `net/http`, "Clients": Authorization and Cookie).
STAYS_INSIDE = (
    *CREDENTIAL_HEADERS,
    # Who asked, by way of whom.
    "forwarded",
    "x-envoy-external-address",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-real-ip",
    "x-request-id",
    # Servers exist that believe these more than the path, which is to stay behind the prefix.
    "x-original-url",
    "x-rewrite-url",
)

# An upstream filter may not write host and path (trap 3): it hands them on in headers, which no client can send.
HANDED_ON = {":authority": "x-beamlit-host", ":path": "x-beamlit-path"}

# The query stays with the path that is rewritten, so the path alone is kept.
_ORIGINALS = {":authority": "%REQ(:authority)%", ":path": "%PATH(NQ:PATH)%"}

# How many sets of headers are remembered with their filter; most models save the same.
_REMEMBERED = 256


def saved_headers(remote: Remote) -> tuple[str, ...]:
    """List the headers that are taken off or overwritten for a remote backend, in a stable order."""
    return tuple(sorted({*STAYS_INSIDE, *(header.name.lower() for header in remote.headers_to_add)}))


@lru_cache(_REMEMBERED)
def saving(headers: tuple[str, ...]) -> Any:
    """Build and pack the filter that keeps host, path and these headers."""
    originals = {**_ORIGINALS, **{header: f"%REQ({header})%" for header in headers}}
    return packed(SetFilterState(on_request_headers=[kept(_key(header), value) for header, value in originals.items()]))


def restoring(headers: tuple[str, ...]) -> HeaderMutationFilter:
    """Build the upstream filter that puts these headers back as the client sent them, and hands on host and path."""
    return HeaderMutationFilter(
        mutations=Mutations(
            request_mutations=[
                *(HeaderMutation(remove=name) for name in headers),
                *(_set(name, state_of(name)) for name in headers),
                *(_set(header, state_of(original)) for original, header in HANDED_ON.items()),
            ]
        )
    )


def reading_what_was_handed_on() -> SetFilterState:
    """Build the filter that takes over the host and the path that were handed on."""
    return SetFilterState(
        on_request_headers=[kept(_key(original), f"%REQ({header})%") for original, header in HANDED_ON.items()]
    )


def state_of(header: str) -> str:
    """Write the format of a header as the client sent it; `:authority` and `:path` are host and path."""
    return f"%FILTER_STATE({_key(header)}:PLAIN)%"


def _key(header: str) -> str:
    return f"beamlit.{header.removeprefix(':')}"


def kept(key: str, value: str) -> FilterStateValue:
    """Keep what a format yields in the filter state of the request; nothing if that is empty."""
    return FilterStateValue(
        object_key=key,
        factory_key="envoy.string",
        skip_if_empty=True,
        format_string=SubstitutionFormatString(
            text_format_source=DataSource(inline_string=value), omit_empty_values=True
        ),
    )


def _set(header: str, value: str) -> HeaderMutation:
    return HeaderMutation(
        append=HeaderValueOption(
            header=HeaderValue(key=header, value=value),
            append_action=HeaderValueOptionHeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD,
        )
    )
