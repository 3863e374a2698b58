"""The split controller: it turns the state of each ModelDeployment into the share of traffic that goes where.

The way of one datum through the folders::

    store -> intent -> observe -> decision -> plan -> reconcile -> (status.route) -> xds_server

`api` has the values, `runtime` what any controller needs, `programs` composes; see CONTRIBUTING.md, "The rooms".
"""
