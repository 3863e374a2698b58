"""A real API server for the tests: processes of their own, or a cluster that exists; users, namespaces, faults."""
