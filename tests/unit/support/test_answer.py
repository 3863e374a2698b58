"""Answers are read whole or not at all, however their bytes are cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.load.answer import Answer, AnswerError, AnswerReader

WITH_LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Beamlit-Route: local\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\nx-trailer: 1\r\n\r\n"
AFTER_INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n" + WITH_LENGTH


def answer_to(*pieces: bytes) -> Answer | None:
    reader = AnswerReader()
    answer = None
    for piece in pieces:
        answer = reader.feed(piece)
    return answer


@given(st.sampled_from([WITH_LENGTH, CHUNKED, AFTER_INTERIM]), st.data())
def test_where_the_bytes_are_cut_changes_nothing(wire, data):
    cut = data.draw(st.integers(1, len(wire) - 1))
    assert answer_to(wire[:cut]) is None
    answer = answer_to(wire[:cut], wire[cut:])
    assert answer is not None
    assert (answer.status, answer.body, answer.reusable) == (200, b"hello", True)


def test_the_route_is_a_header():
    assert answer_to(WITH_LENGTH).route == "local"
    assert answer_to(CHUNKED).route == ""


def test_chunks_without_trailers():
    assert answer_to(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n").body == b"hi"


@pytest.mark.parametrize("status", [204, 304])
def test_some_statuses_have_no_body(status):
    answer = answer_to(b"HTTP/1.1 %d -\r\n\r\n" % status)
    assert (answer.status, answer.body, answer.reusable) == (status, b"", True)


def test_a_connection_that_will_close_is_not_used_again():
    assert not answer_to(b"HTTP/1.1 200 OK\r\nConnection: close\r\ncontent-length: 0\r\n\r\n").reusable


@pytest.mark.parametrize("wire", [WITH_LENGTH[:-1], CHUNKED[:-3], b"HTTP/1.1 200 OK\r\nConte"])
def test_an_answer_cut_short_is_truncated(wire):
    reader = AnswerReader()
    assert reader.feed(wire) is None
    with pytest.raises(AnswerError, match="truncated"):
        reader.end()


def test_no_answer_at_all():
    with pytest.raises(AnswerError, match="closed"):
        AnswerReader().end()


def test_an_answer_without_a_length_lasts_to_the_end():
    reader = AnswerReader()
    assert reader.feed(b"HTTP/1.0 200 OK\r\n\r\nhi") is None
    answer = reader.end()
    assert answer.body == b"hi"
    assert not answer.reusable


@pytest.mark.parametrize("wire", [WITH_LENGTH + b"x", b"SSH-2.0\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n"])
def test_anything_else_is_an_error(wire):
    with pytest.raises(AnswerError):
        AnswerReader().feed(wire)
