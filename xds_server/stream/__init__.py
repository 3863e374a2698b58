"""How clients get their snapshot: one pure state machine per client stream, and a thin gRPC server around it.

* `protocol` is the state machine: a request or a new snapshot goes in with the time, responses and the time to be woken
  come out. Its docstring is the theory of operation.
* `wire` translates between protobuf messages and those values.
* `load_reporting` is the other way round: what Envoys say of their load (LRS).
* `server` is the rest: `sessions` has the one task that holds every session, `clients` what others may know of them,
  `services` carries the bytes of each gRPC stream to the task and back, `server` puts that on a port, with `reflection`
  and health.
"""
