"""Kubernetes manifests as text: YAML and JSON, every mistake with its line."""
