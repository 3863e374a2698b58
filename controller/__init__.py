"""The split controller: it turns the state of each ModelDeployment into the share of traffic that goes where.

The way of one datum through the folders::

    store -> decision -> reconcile -> (status.route) -> xds_server

`api` and `decision` are pure; `store` reads the world and `reconcile` writes it; `cli` is the composition root.
"""
