"""Real model servers, a real Envoy and the xDS server around it: what the tests of the data plane stand on.

* `model_server` is the program of a replica or a remote backend, `backends` its processes,
  `ledger` how often each request came to a server.
* `witness` are servers in this process that keep the bytes of every request.
* `plane` is an xDS server in this process with Envoys and models.
* `model` is what a test asks of its model, and an answer of it.
* `bodies` are large ones, and what Envoy holds of them.
* `product` is `beamlit run` as a process of its own, for what happens when it is killed.
* `mutation` takes one setting out of what the xDS server builds, to show what it is there for; `trap` plays the same
  with that setting and without, at once.
"""
