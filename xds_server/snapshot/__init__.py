"""What Envoy shall have: packed resources with content-hash versions, and what changed between two states."""
