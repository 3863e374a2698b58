"""How often the share of Threshold changes, whatever is measured and whatever fails (ADR 75)."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from controller.api.contract.health import RemoteHealth, unknown
from controller.api.resources.model import Behavior
from controller.decision import Facts, LocalFacts, Memory, Reason, RemoteFacts, SentRequests, Signal, Unknown, decide
from controller.intent.intent import Terms

START = datetime(2026, 1, 1, tzinfo=UTC)
UP, DOWN = RemoteHealth(healthy=True), RemoteHealth(healthy=False, message="503")
BY_MEASUREMENT = (Reason.OVERLOADED, Reason.COOLING_DOWN, Reason.SIGNALS_UNKNOWN, Reason.STEADY)
"""The rules behind those of health: what they send away is what the law asks for."""

spans = st.sampled_from([0, 1_000, 10_000, 60_000]) | st.integers(0, 60_000)
durations = spans.map(lambda ms: timedelta(milliseconds=ms))
behaviors = st.builds(
    Behavior,
    percentage=st.sampled_from([50, 100]) | st.integers(0, 100),
    offload_after=st.just(timedelta(0)) | durations,
    restore_after=durations,
    recover_after=durations,
    tolerance=st.just(0.1) | st.floats(0, 0.9),
    on_unknown=st.sampled_from(["Hold", "Local", "Remote"]),
)
ratios = st.sampled_from([0.0, 0.3, 2.0]) | st.floats(0, 20) | st.none()
locals_ = st.just(LocalFacts(3, 3)) | st.builds(LocalFacts, st.integers(0, 3), st.just(3), st.integers(0, 1))
remotes = st.just(UP) | st.sampled_from([UP, DOWN, unknown("?"), None])
traffics = st.just(Unknown("no Envoy reports load")) | st.builds(
    SentRequests, local=st.integers(0, 2000), remote=st.integers(0, 2000), seconds=st.sampled_from([0.0, 1.0, 10.0])
)
# What stays so for some looks: two metrics, whether what is not known was not asked yet, how old they are, the
# replicas, the remote backend, and the traffic; then how many looks, and how long each is after the last.
phases = st.lists(
    st.tuples(
        ratios.map(lambda one: (one, one)) | st.tuples(ratios, ratios),
        st.booleans(),
        st.sampled_from([0, 0, 0, 20]),
        locals_,
        remotes,
        traffics,
        st.integers(1, 5),
        st.integers(1, 40_000),
    ),
    max_size=8,
)


def measured(name, ratio, at, pending=False):
    if ratio is None:
        return Signal(name, "1", "Unknown", message="no answer", pending=pending)
    return Signal(name, "1", "Breached" if ratio >= 1 else "Clear", str(ratio), at=at, least=ratio, most=ratio)


def asked_for(memory):
    """How many percent the law asks for, whatever other rule is in force."""
    overload = memory.overload
    return overload.share if overload and not overload.withdrawn_at else 0


def looked_at(history):
    """Yield each moment with what is known at it."""
    now = START
    for known, pending, age, local, remote, traffic, looks, milliseconds in history:
        backends = (RemoteFacts("remote", remote),) if remote else ()
        for _ in range(looks):
            now += timedelta(milliseconds=milliseconds)
            at = now - timedelta(seconds=age)
            signals = tuple(measured(name, one, at, pending) for name, one in zip(("cpu", "queue"), known, strict=True))
            yield now, Facts(local, backends, signals=signals, traffic=traffic)


@given(behaviors, phases)
def test_a_share_of_threshold_stays_for_restore_after_but_for_a_new_surge_and_what_cannot_be_read(behavior, history):
    """Of what a measurement causes; replicas or remote backends that are lost, or back, change the split at once."""
    memory, share, last = Memory(), 0, None
    for now, facts in looked_at(history):
        decision, memory = decide(Terms(True, behavior=behavior), facts, memory, now)
        was, share = share, asked_for(memory)
        if decision.reason in BY_MEASUREMENT:
            assert decision.split.remote == share
        if share == was:
            continue
        could_be_read = any(one.state != "Unknown" for one in facts.signals)
        # What stayed to be measured leaves again when it has had its time, also if nothing could be.
        leaves_again = was and share == behavior.percentage
        if last is not None and (could_be_read or leaves_again):
            changed_at, was_read = last
            is_surge = not was and was_read
            assert now - changed_at >= (behavior.offload_after if is_surge else behavior.restore_after)
        assert could_be_read or leaves_again or (not share and behavior.on_unknown == "Local")
        last = now, could_be_read
