"""How well a burst is divided between replicas that are full and a remote backend, policy by policy.

The way of one figure through the modules::

    load.trace -> pool, plan      what the replicas take, and when requests come
    policies                      who decides what leaves
    replicas, stage, replay       a real Envoy for each policy, and the trace replayed through it
    oracle -> outcome -> table    what had to leave, what did, goals
"""
