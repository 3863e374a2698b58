"""The one list of headers that do not pass the gateway as a client wrote them: by what becomes of them, and why.

Whatever reads or writes such a header has its name from here: the front (`xds_server/resources/listeners.py`), the way
to a remote backend (`original_request.py`), and what users may write (`http.py`). docs/data-plane.md shows the list
under "What leaves, and what stays inside".
"""

from __future__ import annotations

LONG_KNOWN_CREDENTIALS = ("api-key", "authorization", "cookie", "proxy-authorization", "x-api-key")
"""What each version of the programs takes for a credential.

Browsers and HTTP libraries, too, drop a client's credentials when a request goes on to another host (Go's `net/http`,
"Clients": Authorization and Cookie).
"""

CREDENTIALS = (
    *LONG_KNOWN_CREDENTIALS,
    "cf-access-jwt-assertion",
    "ocp-apim-subscription-key",
    "x-amzn-oidc-accesstoken",
    "x-amzn-oidc-data",
    "x-auth-request-access-token",
    "x-auth-token",
    "x-forwarded-access-token",
    "x-goog-api-key",
    "x-goog-iap-jwt-assertion",
    "x-ms-token-aad-access-token",
    "x-ms-token-aad-id-token",
)
"""What is sent in these is a credential, whoever wrote it: the client, or a proxy that asked it to log in.

* `cf-access-jwt-assertion`: Cloudflare One, "Validate JWTs"
* `ocp-apim-subscription-key`: Azure API Management, "Subscriptions"
* `x-amzn-oidc-*`: AWS, "Authenticate users using an Application Load Balancer"
* `x-auth-request-access-token`, `x-forwarded-access-token`: OAuth2 Proxy, "Overview" of its configuration
  (`set-xauthrequest`, `pass-access-token`)
* `x-auth-token`: OpenStack, "Identity API v3", "Authentication and token management"
* `x-goog-api-key`: Google Cloud, "Use API keys to access APIs"
* `x-goog-iap-jwt-assertion`: Google Cloud, "Securing your app with signed headers"
* `x-ms-token-aad-*`: Azure App Service, "Work with OAuth tokens"
"""

WHO_ASKED = (
    "cf-connecting-ip",
    "cf-connecting-ipv6",
    "fastly-client-ip",
    "fly-client-ip",
    "forwarded",
    "true-client-ip",
    "wl-proxy-client-ip",
    "x-amzn-oidc-identity",
    "x-appengine-user-ip",
    "x-azure-clientip",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-envoy-external-address",
    "x-forwarded-client-cert",
    "x-forwarded-email",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-forwarded-user",
    "x-original-forwarded-for",
    "x-original-forwarded-host",
    "x-real-ip",
    "x-request-id",
)
"""Who asked, by way of whom: it is the client's or the cluster's matter. Proxies and content networks in front of the
gateway write some of them.

* `cf-connecting-ip`, `cf-connecting-ipv6`, `true-client-ip`: Cloudflare, "Cloudflare HTTP headers"
* `fastly-client-ip`: Fastly, "Fastly-Client-IP"; `true-client-ip`: Akamai, too
* `fly-client-ip`: Fly.io, "Request headers"
* `forwarded`: RFC 7239
* `wl-proxy-client-ip`: Oracle, "Understanding the use of WebLogic Plugin Enabled"
* `x-amzn-oidc-identity`: as above
* `x-appengine-user-ip`: Google App Engine, "Request headers and responses"
* `x-azure-clientip`: Azure Front Door, "Protocol support for HTTP headers"
* `x-client-ip`: Apache, "mod_remoteip"; `x-cluster-client-ip`: Rackspace, "Cloud Load Balancers"
* `x-envoy-external-address`, `x-forwarded-*`, `x-request-id`: Envoy, "HTTP header manipulation"
* `x-forwarded-email`, `x-forwarded-user`: OAuth2 Proxy, `pass-user-headers`
* `x-original-forwarded-*`: ingress-nginx, which has there what it replaces; `x-real-ip`: nginx, too
"""

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
