"""What all Envoys say, gathered from every replica of the xDS server."""
