"""The laws of the decision against a queueing model of the replicas."""
