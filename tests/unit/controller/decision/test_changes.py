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

durations = st.integers(0, 60_000).map(lambda ms: timedelta(milliseconds=ms))
behaviors = st.builds(
    Behavior,
    percentage=st.sampled_from([50, 100]) | st.integers(0, 100),
    offload_after=st.just(timedelta(0)) | durations,
    restore_after=st.just(timedelta(seconds=60)) | durations,
    recover_after=durations,
    tolerance=st.just(0.1) | st.floats(0, 0.99),
    on_unknown=st.sampled_from(["Hold", "Local", "Remote"]),
)


def measured(name, ratio, at, pending=False):
    if ratio is None:
        return Signal(name, "1", "Unknown", message="no answer", pending=pending)
    return Signal(name, "1", "Breached" if ratio >= 1 else "Clear", str(ratio), at=at, least=ratio, most=ratio)


def asked_for(memory):
    """How many percent the law asks for, whatever other rule is in force."""
    overload = memory.overload
    return overload.share if overload and not overload.withdrawn_at else 0


def looked_at(chance, restore_after):
    """Yield each moment with what is known at it: surges, calms and what is around the target, each for some looks.

    Now and then nothing can be read, or was not asked for yet, or replicas or the remote backend are lost.
    """
    now = START
    for _ in range(12):
        level, other = (chance.choice([2.0, 2.0, 0.0, 0.0, 0.3, "around", None]) for _ in range(2))
        other, pending = level if chance.random() < 0.7 else other, chance.random() < 0.3
        local = LocalFacts(3, 3)
        if chance.random() < 0.3:
            local = LocalFacts(chance.randint(0, 2), 3, chance.randint(0, 1))
        remote = UP if chance.random() < 0.7 else chance.choice([DOWN, unknown("?"), None])
        backends = (RemoteFacts("remote", remote),) if remote else ()
        traffic = Unknown("no Envoy reports load")
        if chance.random() < 0.5:
            traffic = SentRequests(chance.randint(0, 2000), chance.randint(0, 2000), chance.choice([0.0, 1.0, 10.0]))
        pause = chance.choice([0.05, 0.3, 1.0]) * restore_after + timedelta(milliseconds=1)
        for _ in range(chance.randint(1, 8)):
            now += pause
            ratios = [chance.uniform(0, 2) if one == "around" else one for one in (level, other)]
            signals = tuple(
                measured(name, one, now, pending) for name, one in zip(("cpu", "queue"), ratios, strict=True)
            )
            yield now, Facts(local, backends, signals=signals, traffic=traffic)


@given(behaviors, st.randoms(use_true_random=True))
def test_a_share_of_threshold_stays_for_restore_after_but_for_a_new_surge_and_what_cannot_be_read(behavior, chance):
    """Of what a measurement causes; replicas or remote backends that are lost, or back, change the split at once."""
    memory, share, last = Memory(), 0, None
    for now, facts in looked_at(chance, behavior.restore_after):
        decision, memory = decide(Terms(True, behavior=behavior), facts, memory, now)
        was, share = share, asked_for(memory)
        if decision.reason in BY_MEASUREMENT:
            assert decision.split.remote == share
        if share == was:
            continue
        is_readable = any(one.state != "Unknown" for one in facts.signals)
        assert is_readable or behavior.on_unknown != "Hold"
        is_withdrawn = not share and memory.overload is not None
        if is_withdrawn:
            assert behavior.on_unknown == "Local" and not is_readable
        elif last is not None:
            changed_at, was_withdrawn = last
            is_surge = not was and not was_withdrawn
            assert now - changed_at >= (behavior.offload_after if is_surge else behavior.restore_after)
        last = now, is_withdrawn
