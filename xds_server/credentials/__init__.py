"""From where a credential comes from to what it is: the one place that reads what Secrets and specs hold.

A value is wrapped the moment it is read and unwrapped where the message for Envoy is written. No problem told here, and
no exception raised here, holds any part of one.

* `sources` finds what a source names, `values` says what it must be for its use.
* `protection` does both for a whole route: what Envoy shall get of it, or why nothing may leave.
"""

from xds_server.credentials.sources import OwnSecrets

__all__ = ["OwnSecrets"]
