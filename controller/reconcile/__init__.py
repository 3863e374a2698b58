"""The loop: which models are due, and writing what shall be."""
