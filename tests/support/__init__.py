"""What tests, benchmarks and the demo stand on. Nothing here knows of a single test.

* `processes`, `forked` (and its `fork_server`), `beamlit`: any process, ours without the cost of its imports, and what
  is seen of it.
* `network`, `waiting`, `http`, `clock`: addresses nobody else has, waiting for what becomes true, clients, a clock.
* `envoy`, `data_plane`: one Envoy; the xDS server around it, and servers that fail.
* `failures`, `demo`: what can fail, as a table with what is promised; the demo as a process.
* `load`: the load generator, and production traces to replay.
* `kube`, `protocol`: a real API server with our programs in it; an xDS client without an Envoy.
* `objects`, `manifests`, `e2e_manifests`, `chat`, `routes`, `resources`, `store`, `reader`, `indexed`, `loads`,
  `proxies`, `controlled`, `measured`, `betterproto`: builders of what a test states, and readers of what came of it.
* `workers`, `progress`: the processes of a run of the tests, and how far it is.
"""
