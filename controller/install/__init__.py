"""What is installed into a cluster, written from the models: custom resource definitions."""
