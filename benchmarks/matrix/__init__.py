"""The failure matrix as a document."""
