"""The file that names the clients that are refused: a mistake in it lets nobody in, and stops a start."""

import asyncio

import pytest

from controller.programs.lifetime import CannotStartError
from controller.programs.refused_clients import follow_refused, refuse_from
from tests.support.waiting import until
from xds_server.stream.callers import Callers
from xds_server.stream.identity import ClientTable

NAME = "spiffe://beamlit/gateway"


async def test_what_is_written_counts_and_a_mistake_changes_nothing_and_is_told_once(tmp_path, caplog):
    file, callers = tmp_path / "clients", Callers(ClientTable())
    file.write_text("")
    refuse_from(file, callers)
    following = asyncio.create_task(follow_refused(file, callers, 0.01))
    try:
        file.write_text(f"{NAME}\n")
        await until(lambda: callers.refused == {NAME}, "the name is refused")
        for mistake in ("nobody\n", None):
            if mistake is None:
                file.unlink()
            else:
                file.write_text(mistake)

            def told(count=1 if mistake else 2):
                return sum("not renewed" in one.message for one in caplog.records) == count

            await until(told, "the mistake is told")
            assert callers.refused == {NAME}
        file.write_text(f"{NAME}2\n{NAME}\n")
        await until(lambda: callers.refused == {NAME, f"{NAME}2"}, "another one is refused besides")
        file.write_text("# all are let in again\n")
        await until(lambda: not callers.refused, "nobody is refused")
    finally:
        following.cancel()


@pytest.mark.parametrize(("text", "words"), [("nobody", "line 1"), (None, "No such file"), ("x" * (2 << 20), "bytes")])
def test_a_server_does_not_start_with_a_list_that_cannot_be_read(tmp_path, text, words):
    file = tmp_path / "clients"
    if text is not None:
        file.write_text(text)
    with pytest.raises(CannotStartError, match=rf"--refused-clients {file}: .*{words}"):
        refuse_from(file, Callers(ClientTable()))
