"""The gRPC server around the protocol."""
