"""How clients get the snapshot: one pure state machine per client stream, and a thin gRPC server around it.

* `requests`, `subscription`, `holdings`, `ledger`, `rejections`, `ordering`, `plan` and `session` with its two dialects
  `delta` and `sotw` are pure: a request or a new snapshot goes in with the time, responses and the time to be woken
  come out.
* `wire` translates between protobuf messages and those values.
* `owner` is the one task that holds all sessions, `streams` what it keeps of each. `loop` carries the bytes of one gRPC
  stream to it and back; `services` and `server` put that on a port, with `reflection` and health.
* `clients` and `metrics` are what others may know of it.
"""
