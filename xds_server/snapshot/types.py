"""The resource types served, in make-before-break order.

Source: Envoy, "xDS protocol", section "Eventual consistency considerations": CDS, EDS, LDS, RDS on the way in; what was
removed of CDS and EDS goes after RDS. Secrets come first, since clusters and listeners warm until they have theirs.
"""

PREFIX = "type.googleapis.com/"

SECRET = PREFIX + "envoy.extensions.transport_sockets.tls.v3.Secret"
CLUSTER = PREFIX + "envoy.config.cluster.v3.Cluster"
ENDPOINT = PREFIX + "envoy.config.endpoint.v3.ClusterLoadAssignment"
LISTENER = PREFIX + "envoy.config.listener.v3.Listener"
ROUTE = PREFIX + "envoy.config.route.v3.RouteConfiguration"

MAKE_BEFORE_BREAK = (SECRET, CLUSTER, ENDPOINT, LISTENER, ROUTE)

SHORT = {SECRET: "SDS", CLUSTER: "CDS", ENDPOINT: "EDS", LISTENER: "LDS", ROUTE: "RDS"}
