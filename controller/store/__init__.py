"""Where Kubernetes objects live: the protocol of a store, two stores (a folder, the API server), a cache of a watch."""
