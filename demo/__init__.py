"""The project in a minute on one machine: real processes, a real Envoy, real traffic, a burst, and every server killed.

The way through the modules::

    cli -> run -> timeline     what arrives when, and when servers are killed and brought back
               -> manifests    the YAML a cluster would hold
               -> cluster      the servers, and the kubelet that tells which are ready
               -> product      `beamlit run` with its Envoy, and what it decided
               -> play         the load, and everything that happens during it
               -> outcome, promises     what came of it, and whether that is what the README says
               -> console, plot

The programs that it starts: `model_server` (which streams a `completion` and keeps a `journal`), `token_server`.
"""
