"""One Envoy and its life: bootstrap, process, admin interface, drain."""
