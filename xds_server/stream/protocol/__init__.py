"""The xDS protocol with one client, without I/O."""
