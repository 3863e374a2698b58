"""What load the Envoys of this replica report, by model.

* `counts` makes running counts of the reports of one stream.
* `backends` knows which models are sent to which remote backend, so that what is counted there finds its model.
* `loads` holds all streams, and is what others ask; `reading` tells it to those who follow, `metrics` to Prometheus.

Pure: reports go in with the time, counts come out.
"""
