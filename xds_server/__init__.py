"""The xDS control plane: it turns `status.route` and endpoints into Envoy configuration and streams it to every Envoy.

The way of one datum through the folders::

    (status.route) -> routes -> resources -> snapshot -> stream -> Envoy -> loads, health -> reports

`control_plane` composes it.
"""
