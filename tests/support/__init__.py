"""What several suites build their tests from: objects, a store in memory, decoded resources."""
