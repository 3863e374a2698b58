"""Envoy messages that no package of generated ones has yet."""
