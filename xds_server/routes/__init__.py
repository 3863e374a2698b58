"""From `status.route` to published resources: one record a route."""
