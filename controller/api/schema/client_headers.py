"""The one list of headers that do not pass the gateway as a client wrote them: by what becomes of them, and why.

Whatever reads or writes such a header has its name from here: the front (`xds_server/resources/listeners.py`), the way
to a remote backend (`original_request.py`), and what users may write (`http.py`). docs/data-plane.md shows the list
under "What leaves, and what stays inside".
"""

from __future__ import annotations

CREDENTIALS = ("api-key", "authorization", "cookie", "proxy-authorization", "x-api-key")
"""What is sent in these is a credential, whoever wrote it.

Browsers and HTTP libraries, too, drop a client's credentials when a request goes on to another host (Go's `net/http`,
"Clients": Authorization and Cookie).
"""

WHO_ASKED = (
    "cf-connecting-ip",
    "fastly-client-ip",
    "forwarded",
    "true-client-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-envoy-external-address",
    "x-forwarded-client-cert",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-original-forwarded-for",
    "x-original-forwarded-host",
    "x-real-ip",
    "x-request-id",
)
"""Who asked, by way of whom: it is the client's or the cluster's matter. Proxies and content networks in front of the
gateway write some of them; ingress-nginx has what it replaces in X-Original-Forwarded-*."""

BESIDE_THE_PATH = ("x-original-url", "x-rewrite-url")
"""Servers exist that believe these more than the path, which is to stay behind the prefix of the remote backend."""

PRIVATE = (*CREDENTIALS, *WHO_ASKED, *BESIDE_THE_PATH)
"""What stays inside: the replicas get it, no remote backend does (docs/adr/0012)."""

REMOVED = ("proxy",)
"""What nobody gets. `Proxy` is no header of HTTP: a server that runs programs by CGI takes it for `HTTP_PROXY`, through
which it then sends what it asks of others (https://httpoxy.org)."""

REMOVED_PREFIXES = ("x-envoy-", "x-beamlit-")
"""What nobody gets either, and nothing here reads: the first steers Envoy's router, the second is ours (trap 10)."""

WRITTEN_ANEW = ("x-forwarded-client-cert", "x-forwarded-proto")
"""What the front writes itself, whatever the client said: who it is, and whether it came over TLS."""
