"""How clients reach Envoy: who has which Service and which port. Pure."""
