"""Objects of Kubernetes itself, as far as they are read here."""
