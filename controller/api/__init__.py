"""The API of the project: custom resources, the Kubernetes objects they refer to, and `Route`, all pure values."""
