"""Where Kubernetes objects come from: the protocol of a store, a folder as a store, a cache of what a store said."""
