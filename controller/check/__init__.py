"""Whether what is installed in a cluster is well, and what is to be done where it is not. It writes nothing."""
