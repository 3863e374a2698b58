"""The client's original request: what it loses on its way to a remote backend, and gets back on its way to a replica.

A request that the split sends away is rewritten before the first attempt (path, host, headers), and Envoy retries what
it has already rewritten. So the front saves the originals in the filter state of the request, where the upstream filter
of the fallback cluster finds them (upstream filters see the state of the client's request, whichever attempt it is).
"""

from __future__ import annotations

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

from controller.api.contract.route import Remote
from controller.api.schema.client_headers import PRIVATE

# What a request that leaves is signed in (see `loops`): replicas get it as the front signed it.
LOOP_HEADER = "cdn-loop"

# An upstream filter may not write host and path (trap 3): it passes them on in headers, which no client can send.
PASSED_ON = {":authority": "x-beamlit-host", ":path": "x-beamlit-path"}

# The query stays with the path that is rewritten, so the path alone is saved.
_HOST_AND_PATH = {":authority": "%REQ(:authority)%", ":path": "%PATH(NQ:PATH)%"}


def changed_headers(remote: Remote) -> tuple[str, ...]:
    """List the headers that are removed, overwritten or added to for a remote backend, in a stable order."""
    return tuple(sorted({*PRIVATE, LOOP_HEADER, *(header.name.lower() for header in remote.headers_to_add)}))


def saving_filter(headers: tuple[str, ...]) -> SetFilterState:
    """Build the filter that saves host, path and these headers as the client sent them."""
    originals = {**_HOST_AND_PATH, **{header: f"%REQ({header})%" for header in headers}}
    return SetFilterState(on_request_headers=[filter_state(_key(header), value) for header, value in originals.items()])


def restoring_filter(headers: tuple[str, ...]) -> HeaderMutationFilter:
    """Build the upstream filter that restores these headers, and passes on host and path."""
    return HeaderMutationFilter(
        mutations=Mutations(
            request_mutations=[
                *(HeaderMutation(remove=name) for name in headers),
                *(_set(name, original(name)) for name in headers),
                *(_set(header, original(pseudo_header)) for pseudo_header, header in PASSED_ON.items()),
            ]
        )
    )


def receiving_filter() -> SetFilterState:
    """Build the filter that saves the host and the path that were passed on."""
    return SetFilterState(
        on_request_headers=[
            filter_state(_key(pseudo_header), f"%REQ({header})%") for pseudo_header, header in PASSED_ON.items()
        ]
    )


def original(header: str) -> str:
    """Write the format of a header as the client sent it; `:authority` and `:path` are host and path."""
    return f"%FILTER_STATE({_key(header)}:PLAIN)%"


def filter_state(key: str, value: str) -> FilterStateValue:
    """Save what the format `value` yields in the filter state of the request; nothing if that is empty."""
    return FilterStateValue(
        object_key=key,
        factory_key="envoy.string",
        skip_if_empty=True,
        format_string=SubstitutionFormatString(
            text_format_source=DataSource(inline_string=value), omit_empty_values=True
        ),
    )


def _key(header: str) -> str:
    return f"beamlit.{header.removeprefix(':')}"


def _set(header: str, value: str) -> HeaderMutation:
    return HeaderMutation(
        append=HeaderValueOption(
            header=HeaderValue(key=header, value=value),
            append_action=HeaderValueOptionHeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD,
        )
    )
