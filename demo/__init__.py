"""The project in a minute on one machine: real processes, a real Envoy, real traffic, and every local server killed.

The way through the modules::

    cli -> run -> manifests   the YAML a cluster would hold
               -> cluster     model servers, and the kubelet that tells which are ready
               -> product     `beamlit run` with its Envoy, and what it decided
               -> timeline    when the servers are killed and brought back
               -> console, plot
"""
