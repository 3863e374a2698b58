"""What a request pays in an Envoy, compared between Envoys that take turns.

The way of one figure through the modules::

    configs, product -> envoys   an Envoy that runs, by its configuration
    duties                       those that are to do the same do the same
    slots                        a short time of load on one of them, and the CPU it took
    comparison -> table          ratios within a round, medians over rounds, goals
"""
