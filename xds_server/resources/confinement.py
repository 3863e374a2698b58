"""A client's path stays behind the path prefix of the remote backend, whatever it is made of; and no TRACE leaves.

The front resolves dot segments as RFC 3986 (section 5.2.4) has it. It leaves an escaped slash alone, since it may be a
part of a name (`meta-llama%2FLlama`). So `..%2f` is a name to Envoy, and may be a way out to a server behind it.
"""

from __future__ import annotations

from envoy_data_plane.envoy.config.route.v3 import DirectResponseAction, HeaderMatcher, Route, RouteMatch
from envoy_data_plane.envoy.type.matcher.v3 import RegexMatcher, StringMatcher

from controller.api.contract.route import Remote

# Two dots, each escaped or not, that begin a segment and end it, or go on with an escape; ";" ends a segment for
# servers that take parameters off. An escape may be escaped itself, any number of times.
_SLASH, _DOT = r"(?:[/\\]|%(?:25)*(?:2f|5c))", r"(?:\.|%(?:25)*2e)"
LEADS_OUT = rf"(?i).*{_SLASH}{_DOT}{{2}}(?:[/\\;%].*)?"

_REFUSAL = Route(
    name="leads_out",
    match=RouteMatch(safe_regex=RegexMatcher(regex=LEADS_OUT)),
    direct_response=DirectResponseAction(status=400),
)


# What answers TRACE shows the client what it got, headers and all (RFC 9110, section 9.3.8): our credential, too.
_NO_TRACE = Route(
    name="trace",
    match=RouteMatch(
        prefix="/",
        headers=[HeaderMatcher(name=":method", string_match=StringMatcher(exact="TRACE", ignore_case=True))],
    ),
    direct_response=DirectResponseAction(status=405),
)


def refusals(remote: Remote) -> list[Route]:
    """List what stands in front of the route to a remote backend: answers for what may not get there.

    That is a TRACE, and what could leave the path prefix; without a prefix there is nothing to leave. The answers are
    405 and 400, which are not sent again: it is the client's mistake.
    """
    return [_NO_TRACE, *([_REFUSAL] if remote.path_prefix.strip("/") else [])]
