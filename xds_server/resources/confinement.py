"""A client's path stays behind the path prefix of the remote backend, whatever it is made of.

The front resolves dot segments as RFC 3986 (section 5.2.4) has it. It leaves an escaped slash alone, since it may be a
part of a name (`meta-llama%2FLlama`). So `..%2f` is a name to Envoy, and may be a way out to a server behind it.
"""

from __future__ import annotations

from envoy_data_plane.envoy.config.route.v3 import DirectResponseAction, Route, RouteMatch
from envoy_data_plane.envoy.type.matcher.v3 import RegexMatcher

from controller.api.route import RemoteRoute

# Two dots, each escaped or not, that begin a segment and end it, or go on with an escape; ";" ends a segment for
# servers that take parameters off. An escape may be escaped itself, any number of times.
_SLASH, _DOT = r"(?:[/\\]|%(?:25)*(?:2f|5c))", r"(?:\.|%(?:25)*2e)"
LEADS_OUT = rf"(?i).*{_SLASH}{_DOT}{{2}}(?:[/\\;%].*)?"

_REFUSAL = Route(
    name="leads_out",
    match=RouteMatch(safe_regex=RegexMatcher(regex=LEADS_OUT)),
    direct_response=DirectResponseAction(status=400),
)


def refusals(remote: RemoteRoute) -> list[Route]:
    """List what stands in front of the route to a remote backend: an answer for what could leave its path prefix.

    Without a prefix there is nothing to leave. The answer is 400, which is not sent again: it is the client's mistake.
    """
    return [_REFUSAL] if remote.path_prefix.strip("/") else []
