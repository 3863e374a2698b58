"""What tests, benchmarks and the demo stand on. Nothing here knows of a single test.

* `processes`, `fork_server`, `beamlit`: any process, ours without the cost of its imports, and what can be seen of it.
* `network`, `waiting`, `http`, `clock`: addresses nobody else has, waiting for what becomes true, clients, a clock to set.
* `envoy`, `data_plane`, `failures`, `demo`: one Envoy; the xDS server around it with servers that fail; what fails, as a
  table; the demo as a process.
* `load`: the load generator, and production traces to replay.
* `kube`, `protocol`: a real API server with our programs in it; an xDS client without an Envoy.
* `objects`, `e2e_manifests`, `chat`, `routes`, `resources`, `store`, `world`, `loads`, `proxies`, `controlled`, `measured`,
  `betterproto`: builders of what a test states, and readers of what came of it.
* `progress`: how far a run of the tests is.
"""
