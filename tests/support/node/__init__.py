"""A real Kubernetes node for the tests: every component of one, in pods too, in namespaces that end with the test run.

`namespaces` is the place where it lives, `components` what runs there and how it is told, `images` what its pods are
made of, `node` the whole, and `missing` what a machine lacks for it. `python -m tests.support.node` starts one by hand.
"""
