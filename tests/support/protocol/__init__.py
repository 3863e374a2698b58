"""A client of the xDS server that is played by hand, and the smallest resources that a real Envoy serves."""
