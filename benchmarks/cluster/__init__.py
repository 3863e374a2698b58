"""The parts of the benchmark on a Kubernetes API server: `benchmarks.kube`.

::

    objects -> crowd -> site with its programs -> changes -> figures
    pure       I/O      I/O, seen by watch        I/O        pure
                        and tap
"""
