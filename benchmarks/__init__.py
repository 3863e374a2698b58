"""What is measured about the project, and the load tooling that the benchmarks, the tests and the demo share."""
