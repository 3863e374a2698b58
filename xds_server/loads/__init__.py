"""The load that the Envoys of this replica report, by side of a route.

* `counts` turns the reports of one stream into running counts; it knows which routes are sent to which remote backend,
  so that what is counted there is counted for the right route.
* `loads` holds all streams and answers questions about them; `LoadReader` reports what is new, `metrics` the sums.

Pure: reports go in with the time, counts come out.
"""
