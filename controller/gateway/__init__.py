"""One Envoy and its life: the bootstrap it starts with, its process, its admin interface, and how it is drained."""
