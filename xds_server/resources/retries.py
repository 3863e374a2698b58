"""What becomes of a request that was not answered, or not in time: who is asked next, and how often."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

from envoy_data_plane.envoy.config.route.v3 import (
    HedgePolicy,
    RetryPolicy,
    RetryPolicyRetryBackOff,
    RetryPolicyRetryHostPredicate,
    RetryPolicyRetryPriority,
)
from envoy_data_plane.envoy.extensions.retry.host.previous_hosts.v3 import PreviousHostsPredicate
from envoy_data_plane.envoy.extensions.retry.priority.previous_priorities.v3 import PreviousPrioritiesConfig

from xds_server.resources.packing import packed

# Sent again, once: a request that reached nobody (connect failure, refused stream), was cut off before the answer began
# (reset), or met a gateway error. Any other answer is the client's. Two upstream requests at the very worst.
# gRPC has one status for what 502, 503 and 504 say, UNAVAILABLE (gRPC, "HTTP to gRPC Status Code Mapping"), and Envoy's
# own answers have it too, those of the internal listeners above all. After a message it is in the trailers of an answer
# that has begun.
_RETRIED = RetryPolicy(
    retry_on="connect-failure,refused-stream,reset,retriable-status-codes,unavailable",
    retriable_status_codes=[502, 503, 504],
    num_retries=1,
    retry_back_off=RetryPolicyRetryBackOff(
        base_interval=timedelta(milliseconds=5), max_interval=timedelta(milliseconds=50)
    ),
)

# The retry skips the priority that was tried, so it goes to the other side.
ON_THE_OTHER_SIDE = replace(
    _RETRIED,
    retry_priority=RetryPolicyRetryPriority(
        name="envoy.retry_priorities.previous_priorities",
        typed_config=packed(PreviousPrioritiesConfig(update_frequency=1)),
    ),
)

# The retry asks the cluster specifier again, which names the fallback cluster for it.
ON_THE_NEXT_CLUSTER = replace(_RETRIED, refresh_cluster_on_retry=True)

# There is no other side: the retry goes to another replica. A replica that just died has the fewest requests in flight,
# so it is picked again and again: with five attempts, 3 % of the retries went to it once more.
ALONE: dict[str, Any] = {
    "retry_policy": replace(
        _RETRIED,
        retry_host_predicate=[
            RetryPolicyRetryHostPredicate(
                name="envoy.retry_host_predicates.previous_hosts", typed_config=packed(PreviousHostsPredicate())
            )
        ],
        host_selection_retry_max_attempts=100,
    )
}

# A request whose first try takes too long is sent to the other side as well, and the first good answer is the client's.
# Without this a first try that took too long would be given up, and every slow answer with it.
_HEDGED = HedgePolicy(hedge_on_per_try_timeout=True)


def asked_again(times: int) -> RetryPolicy:
    """Build the policy that asks the same backend so many times more."""
    return replace(_RETRIED, num_retries=times)


def helped_by_the_other_side(patience: timedelta | None) -> dict[str, Any]:
    """Return what becomes of a request that a replica does not answer, or not within `patience`."""
    if patience is None:
        return {"retry_policy": ON_THE_OTHER_SIDE}
    return {"retry_policy": replace(ON_THE_OTHER_SIDE, per_try_timeout=patience), "hedge_policy": _HEDGED}
