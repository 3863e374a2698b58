"""Directing a model by hand: annotations, words for them, and whether they are in force."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.api.contract.health import RemoteHealth
from controller.intent.intent import parse_override
from controller.observe.proxies import Programmed
from controller.plan.by_hand import (
    PAUSE,
    RESUME,
    Standing,
    ahead_of_us,
    beside_limit,
    enforcement,
    in_words,
    is_already,
    other_managers,
    overruling,
    to_split,
    unanswered,
    undo,
    with_annotations,
)
from controller.plan.explanation import explain
from tests.support.objects import a_model, a_service, a_slice
from tests.support.observations import planned
from tests.support.proxies import AllProgrammed

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PAUSED, OVERRIDE = "beamlit.com/paused", "beamlit.com/override"
MODEL = a_model().with_remote("r").annotated(other="x")


def model(**annotations):
    return MODEL.annotated(other="x", **{f"beamlit.com/{name}": value for name, value in annotations.items()})


@given(
    remote=st.integers(0, 100),
    seconds=st.floats(1, 365 * 86400),
    now=st.datetimes(datetime(2020, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),
)
def test_what_is_written_is_read_back_and_ends_not_before_its_time(remote, seconds, now):
    lasting = timedelta(seconds=seconds)
    read = parse_override(to_split(remote, lasting, now)[OVERRIDE])
    assert read.remote == remote
    assert timedelta(0) <= read.until - (now + lasting) < timedelta(seconds=1)
    assert parse_override(to_split(remote, None, now)[OVERRIDE]).until is None


@pytest.mark.parametrize(
    ("told", "ahead"),
    [
        (0, 0),
        (0.25, 0),
        (-1.25, 0),  # a second is cut off, and it may be the first of what the question took
        (-1.5, -0.25),
        (180, 181.25),
        (-180, -178.75),
    ],
)
def test_how_far_another_clock_is_ahead_of_ours(told, ahead):
    """A question that takes half a second, and an answer that is of its middle by the other clock, cut to a second."""
    asked, half = NOW - timedelta(seconds=0.25), timedelta(seconds=0.5)
    assert ahead_of_us(asked, NOW + timedelta(seconds=told), asked + half) == timedelta(seconds=ahead)


@given(ahead=st.floats(-1000, 1000), took=st.floats(0, 10), at=st.floats(0, 1))
def test_what_ends_by_another_clock_ends_not_before_its_time(ahead, took, at):
    asked = NOW + timedelta(seconds=0.5)
    theirs = asked + timedelta(seconds=ahead + at * took)
    found = ahead_of_us(asked, theirs.replace(microsecond=0), asked + timedelta(seconds=took))
    if found:
        assert timedelta(seconds=-0.001) <= found - timedelta(seconds=ahead) <= timedelta(seconds=1 + took)
    else:
        assert abs(ahead) <= 1 + took


def test_a_while_that_would_be_over_at_once_is_refused():
    with pytest.raises(ValueError, match="at least 1s"):
        to_split(30, timedelta(milliseconds=999), NOW)


def test_only_the_annotations_that_direct_are_changed():
    after = with_annotations(model(paused="true").stored(), {**RESUME, **to_split(30, None, NOW)})
    assert after.metadata["annotations"] == {"other": "x", OVERRIDE: "remote=30"}
    assert with_annotations(after, RESUME).metadata["annotations"] == {"other": "x"}


def test_what_is_so_already_need_not_be_written():
    assert is_already(model(paused="true").stored(), PAUSE)
    assert not is_already(model(paused="false").stored(), PAUSE)
    assert is_already(a_model().stored(), RESUME)
    assert not is_already(model(override="remote=0").stored(), RESUME)


@pytest.mark.parametrize(
    ("annotations", "words"),
    [
        ({}, "the rules decide"),
        ({"paused": "true"}, "paused until `beamlit resume`"),
        (
            {"override": "remote=30"},
            "set by hand: 30 % of the requests go to the remote backend, until `beamlit resume`",
        ),
        (
            {"override": "remote=30 until=2026-01-01T00:10:00Z"},
            "set by hand: 30 % of the requests go to the remote backend, until 2026-01-01T00:10:00Z",
        ),
        (
            {"override": "remote=30 until=2026-01-01T00:10:00Z", "paused": "true"},
            "set by hand: 30 % of the requests go to the remote backend, until 2026-01-01T00:10:00Z; paused until "
            "`beamlit resume`, with the split that was set by hand",
        ),
        (
            {"override": "remote=30 until=2025-01-01T00:00:00Z"},
            "the override ended at 2025-01-01T00:00:00Z; the rules decide",
        ),
        (
            {"override": "remote=half"},
            "metadata.annotations.beamlit.com/override: remote must be a whole number from 0 to 100, is 'half', so it "
            "has no effect; the rules decide",
        ),
    ],
)
def test_in_words(annotations, words):
    assert in_words(model(**annotations).stored(), NOW) == words


@pytest.mark.parametrize(
    ("before", "after", "commands"),
    [
        ({}, {}, ()),
        ({}, {"paused": "true"}, ("resume",)),
        ({}, {"override": "remote=30"}, ("resume",)),
        ({"override": "remote=20"}, {"override": "remote=30"}, ("set-split 20",)),
        ({"override": "remote=20 until=2026-01-01T00:09:31Z"}, {"override": "remote=1"}, ("set-split 20 --for 571s",)),
        ({"paused": "true"}, {}, ("pause",)),
        ({"paused": "true", "override": "remote=20"}, {}, ("pause", "set-split 20")),
        ({"paused": "true"}, {"paused": "true", "override": "remote=30"}, ("resume", "pause")),
        ({"override": "remote=20"}, {"override": "remote=20", "paused": "true"}, ("resume", "set-split 20")),
        ({"override": "remote=20 until=2025-01-01T00:00:00Z"}, {}, ()),
        ({"override": "nonsense"}, {"override": "remote=30"}, ("resume",)),
    ],
)
def test_how_to_undo_it(before, after, commands):
    assert undo(model(**before).stored(), model(**after).stored(), NOW) == commands


def test_who_else_manages_an_annotation():
    def entry(manager, *names):
        return {"manager": manager, "fieldsV1": {"f:metadata": {"f:annotations": {f"f:{name}": {} for name in names}}}}

    managed = [
        entry("argocd-controller", OVERRIDE, "other"),
        entry("beamlit-controller", OVERRIDE),
        entry("kubectl", "other"),
        {"manager": "strange", "fieldsV1": {"f:metadata": None}},
        {"manager": "older"},
    ]
    stored = model()._with(managed, "metadata", "managedFields").stored()
    assert other_managers(stored, to_split(30, None, NOW)) == ("argocd-controller",)
    assert other_managers(stored, PAUSE) == ()
    assert other_managers(model().stored(), PAUSE) == ()


def standing(annotations, *, decided=None, slices=None, proxies=None, generation=1):
    """How far these annotations have come where the controller decided on `decided`, on the same unless it is said."""
    slices = slices or a_slice().ready("10.0.0.1")
    was = model(**(annotations if decided is None else decided))
    status = planned(was, a_service().port(80), slices, proxies=proxies).as_object()
    found = enforcement(explain(model(**annotations).stored(status=status, generation=generation), NOW))
    return found.standing


class NoEnvoy(AllProgrammed):
    def report(self, model, route):
        return Programmed(connected=0, programmed=0)


SPLIT = {"override": "remote=30"}
FOR_A_WHILE = {"override": "remote=30 until=2026-01-01T00:10:00Z"}


@pytest.mark.parametrize("annotations", [{}, {"paused": "true"}, SPLIT, FOR_A_WHILE, {**SPLIT, "paused": "true"}])
def test_what_was_decided_on_is_in_force(annotations):
    assert standing(annotations) is Standing.IN_FORCE


@pytest.mark.parametrize(
    ("annotations", "decided"),
    [
        (SPLIT, {}),
        ({}, SPLIT),
        ({"paused": "true"}, {}),
        ({}, {"paused": "true"}),
        (SPLIT, {"override": "remote=31"}),
        (FOR_A_WHILE, SPLIT),
        (FOR_A_WHILE, {"override": "remote=30 until=2026-01-01T00:11:00Z"}),
        ({**SPLIT, "paused": "true"}, SPLIT),
    ],
)
def test_what_the_controller_has_not_read_yet_is_pending(annotations, decided):
    assert standing(annotations, decided=decided) is Standing.PENDING


def test_an_edit_that_was_not_looked_at_is_pending():
    assert standing(SPLIT, generation=2) is Standing.PENDING


def test_what_a_rule_before_it_decides_is_overruled():
    disabled = MODEL.disabled().overridden("remote=30")
    status = planned(disabled, a_service().port(80), a_slice().ready("10.0.0.1")).as_object()
    found = enforcement(explain(disabled.stored(status=status), NOW))
    assert found.standing is Standing.OVERRULED
    assert found.message.startswith("Disabled comes before it and decides: 100/0, spec.enabled is false")


def test_what_no_envoy_has_is_decided_and_not_in_force():
    assert standing(SPLIT, proxies=NoEnvoy()) is Standing.DECIDED


def test_which_rule_would_overrule_a_hand_is_known_before():
    def found(model):
        status = planned(model, a_service().port(80), a_slice().not_ready("10.0.0.1")).as_object()
        return overruling(explain(model.stored(status=status), NOW))

    assert found(MODEL.disabled()).rule == "Disabled"
    assert found(a_model()).rule == "NothingAnswers"
    assert found(MODEL.offloading(mode="Shadow")).rule == "Shadow"
    assert found(MODEL) is None
    assert found(MODEL.overridden("remote=30")) is None
    assert overruling(explain(MODEL.stored(), NOW)) is None


class Down(AllProgrammed):
    """One Envoy, and a remote backend that does not answer."""

    def remote(self, model, remote):
        return RemoteHealth(healthy=False, message="it answered 503", reason="BadStatus")


def test_that_the_remote_backend_does_not_answer_is_known_before_anything_is_sent_there():
    def said(wanted, proxies=None):
        status = planned(MODEL, a_service().port(80), a_slice().ready("10.0.0.1"), proxies=proxies).as_object()
        return unanswered(explain(MODEL.stored(status=status), NOW), wanted)

    for remote in (1, 100):
        assert said(to_split(remote, timedelta(hours=1), NOW), Down()) == (
            "the remote backend does not answer (BadStatus: it answered 503): what is sent there comes back to the "
            "replicas, and fails where none is ready"
        )
    assert [said(one, Down()) for one in (to_split(0, None, NOW), PAUSE, RESUME)] == ["", "", ""]
    assert said(to_split(100, None, NOW)) == "", "nobody knows"
    assert unanswered(explain(MODEL.stored(), NOW), to_split(100, None, NOW)) == ""


LIMITED = MODEL.offloading(maxRequestsPerReplica=4)


def test_that_the_excess_leaves_whatever_is_set_by_hand_is_known_before():
    def said(wanted, model=LIMITED):
        status = planned(model, a_service().port(80), a_slice().ready("10.0.0.1", "10.0.0.2")).as_object()
        return beside_limit(explain(model.stored(status=status), NOW), wanted)

    for remote in (0, 30):
        assert said(to_split(remote, None, NOW)).startswith(
            "what is more than 8 requests in flight leaves all the same"
        )
    assert [said(one) for one in (to_split(100, None, NOW), PAUSE, RESUME)] == ["", "", ""]
    assert [said(to_split(0, None, NOW), one) for one in (MODEL, LIMITED.disabled())] == ["", ""]


def test_what_is_set_by_hand_says_that_the_excess_leaves():
    def message(override):
        overridden = LIMITED.overridden(override)
        return planned(overridden, a_service().port(80), a_slice().ready("10.0.0.1")).split.message

    beside = "; what is more than 4 in flight for each replica leaves, too"
    assert message("remote=0").endswith(f"until the annotation is removed{beside}")
    assert beside not in message("remote=100")


def test_what_is_in_force_says_that_nobody_answers_there():
    overridden = MODEL.overridden("remote=100")
    for proxies, words in ((Down(), "; but the remote backend does not answer (BadStatus: it"), (None, "")):
        status = planned(overridden, a_service().port(80), a_slice().ready("10.0.0.1"), proxies=proxies).as_object()
        found = enforcement(explain(overridden.stored(status=status), NOW))
        assert found.standing is Standing.IN_FORCE
        assert ("; but " in found.message) is bool(words) and words in found.message
