"""What a remote backend is called: as the cluster that a route sends to, and as what the xDS server checks."""

from __future__ import annotations

from controller.api.contract.route import Remote, RouteKey
from xds_server.resources import names
from xds_server.resources.secret import secret_names

# What of a remote is the route's own: without it, routes that share a backend share the resource.
OF_THE_ROUTE = {
    "path_prefix": "",
    "headers_to_add": (),
    "answer_timeout": None,
    "retries": None,
    "through_gateway": None,
}


def backend_name(key: RouteKey, remote: Remote) -> str:
    """Name the cluster of a remote backend as this route uses it: the same for all that share it.

    It is a hash of what makes a backend distinct: everything but the path and the headers, which are the route's own.
    The name of the remote is a part of that, since answers carry it. So is where its secrets come from: what is another
    namespace's is never shared.

    Without a credential requests may go there from the front (`is_direct`), and then no other cluster counts them. So
    each namespace has a cluster of its own: what its requests meet says nothing to others (docs/adr/0086).
    """
    owner = () if remote.auth else (key.namespace,)
    return names.backend_cluster(names.digest("\n".join((*_distinct(key, remote), *owner))))


def check_name(key: RouteKey, remote: Remote) -> str:
    """Name what the xDS server checks of a remote backend: one for all namespaces that use the same."""
    return names.backend_cluster(names.digest("\n".join(_distinct(key, remote))))


def _distinct(key: RouteKey, remote: Remote) -> tuple[str, ...]:
    # What a backend does without is left out, so that a newer server has no new name for what it always was.
    without = {name for name in ("tls", "auth", "connect_timeout") if getattr(remote, name) is None}
    distinct = remote.model_dump_json(by_alias=True, exclude={*OF_THE_ROUTE, *without})
    return (distinct, *(one.name for one in secret_names(key, remote).keys))
