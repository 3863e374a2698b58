"""`Route` and endpoints in, packed Envoy messages out: pure, and the only place where Envoy is configured.

`translator` puts together what the other modules build: listeners, routing, clusters, remote_backend with its
credential_injector, and secret, whose resources come from elsewhere. Envoy messages are written once, in one
expression, packed, and never passed on. Why each setting is there: the numbers of the traps refer to
`docs/data-plane.md`.
"""
