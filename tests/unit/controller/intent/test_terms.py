"""What an object asks for."""

from datetime import UTC, datetime, timedelta

import pytest

from controller.api.resources.backend import RemoteBackend
from controller.intent.intent import Override, parse_override
from controller.intent.remotes import remotes_of
from tests.support.objects import a_model

NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "override"),
    [
        ("remote=0", Override(0)),
        ("remote=30", Override(30)),
        ("remote=100", Override(100)),
        ("  remote=30  ", Override(30)),
        ("remote=30 until=2026-01-01T00:00:00Z", Override(30, NEW_YEAR)),
        ("until=2026-01-01T00:00:00Z remote=30", Override(30, NEW_YEAR)),
        ("remote=30 until=2026-01-01T02:00:00+02:00", Override(30, NEW_YEAR)),
    ],
)
def test_an_override(text, override):
    assert parse_override(text) == override


NUMBER = "remote must be a whole number from 0 to 100, is "
TIME = "until must be a time such as 2026-01-01T00:00:00Z, is "
FORM = "write it as 'remote=30 until=2026-01-01T00:00:00Z'"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("30", f"has the unknown word '30'; {FORM}"),
        ("local=30", f"has the unknown word 'local'; {FORM}"),
        ("remote=30, until=x", f"{NUMBER}'30,'"),
        ("remote", f"{NUMBER}''"),
        ("remote=", f"{NUMBER}''"),
        ("remote=half", f"{NUMBER}'half'"),
        ("remote=101", f"{NUMBER}'101'"),
        ("remote=-1", f"{NUMBER}'-1'"),
        ("remote=30%", f"{NUMBER}'30%'"),
        ("remote=0.5", f"{NUMBER}'0.5'"),
        ("remote=٣", f"{NUMBER}'٣'"),
        (" ", f"{NUMBER}''"),
        ("until=2026-01-01T00:00:00Z", f"{NUMBER}''"),
        ("remote=30 until=", f"{TIME}''"),
        ("remote=30 until=tomorrow", f"{TIME}'tomorrow'"),
        ("remote=30 until=2026-01-01", f"{TIME}'2026-01-01'"),
        ("remote=30 until=2026-01-01T00:00:00", f"{TIME}'2026-01-01T00:00:00'"),
        ("remote=30 until=0001-01-01T00:00:00+14:00", f"{TIME}'0001-01-01T00:00:00+14:00'"),
    ],
)
def test_what_is_no_override(text, words):
    with pytest.raises(ValueError) as caught:
        parse_override(text)
    assert str(caught.value) == words


def test_a_number_too_long_to_be_one_is_refused_in_words():
    with pytest.raises(ValueError, match="remote must be a whole number"):
        parse_override("remote=" + "9" * 10_000)


def test_it_ends_at_the_moment_it_names():
    override = Override(30, NEW_YEAR)
    assert override.in_force(NEW_YEAR - timedelta(microseconds=1))
    assert not override.in_force(NEW_YEAR)
    assert Override(30).in_force(datetime.max.replace(tzinfo=UTC))


def test_the_terms_of_a_model():
    intent = a_model().offloading(recoverAfter="7s", stepInterval="2s").paused().intent()
    terms = intent.terms
    assert (terms.enabled, intent.offloads, terms.paused, terms.override) == (True, True, True, None)
    assert (terms.behavior.recover_after, terms.behavior.step_interval) == (timedelta(seconds=7), timedelta(seconds=2))
    assert intent.faults == ()


@pytest.mark.parametrize(("model", "default"), [(a_model(), RemoteBackend(host="r")), (a_model().offloading(), None)])
def test_nothing_leaves_without_a_config_and_a_backend(model, default):
    assert remotes_of(model.intent(), default) == ()


def test_an_annotation_that_cannot_be_read_is_told_and_has_no_effect():
    annotated = a_model().annotated(**{"beamlit.com/paused": "yes", "beamlit.com/override": "half"})
    intent = annotated.intent()
    terms, errors = intent.terms, intent.faults
    assert (terms.paused, terms.override) == (False, None)
    assert [error.dotted for error in errors] == [
        "metadata.annotations.beamlit.com/override",
        "metadata.annotations.beamlit.com/paused",
    ]
    assert errors[1].message == 'must be "true" or "false", is \'yes\''
