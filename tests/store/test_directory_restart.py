"""What survives a restart, and what must not be written down."""

from __future__ import annotations

import asyncio
import json
import logging

import pytest

from controller.store.objects import ObjectRef
from tests.store.running_store import Running
from tests.support.manifests import make_object, make_service, service, write
from tests.support.reader import Reader
from tests.support.store import at
from tests.support.waiting import time_limit


async def test_status_and_identity_survive(running: Running) -> None:
    write(running.folder / "a.yaml", make_service("a"))
    reader = Reader(running.store)
    stored = await reader.until_seen(service("a"))
    write(running.folder / "a.yaml", make_service("a", port=81))
    stored = await reader.until_field(service("a"), "spec", {"port": 81})
    await running.store.patch_status(service("a"), {"ready": True}, at(stored.resource_version))
    before = await reader.until_field(service("a"), "status", {"ready": True})
    await running.restart()
    after = await Reader(running.store).until_seen(service("a"))
    assert after == before


async def test_a_change_made_while_nothing_ran_is_a_new_generation(running: Running) -> None:
    write(running.folder / "a.yaml", make_service("a"))
    before = await Reader(running.store).until_seen(service("a"))
    await running.store.close()
    write(running.folder / "a.yaml", make_service("a", port=81))
    await running.restart()
    after = await Reader(running.store).until_seen(service("a"))
    assert (after.generation, after.metadata["uid"]) == (2, before.metadata["uid"])
    assert int(after.resource_version) > int(before.resource_version)


async def test_a_file_that_is_broken_at_the_start_keeps_what_it_last_said(running: Running) -> None:
    write(running.folder / "a.yaml", make_service("a"), make_service("b"))
    before = await Reader(running.store).until_seen(service("a"))
    await running.store.close()
    (running.folder / "a.yaml").write_text("kind: [")
    await running.restart()
    batch = await Reader(running.store).next()
    assert {stored.ref for stored in batch.changed} == {service("a"), service("b")}
    assert before in batch.changed
    assert [problem.file for problem in running.store.problems] == ["a.yaml"]


async def test_objects_removed_while_nothing_ran_are_gone(running: Running) -> None:
    write(running.folder / "a.yaml", make_service("a"))
    write(running.folder / "b.yaml", make_service("b"))
    await Reader(running.store).until_seen(service("a"))
    await running.store.close()
    (running.folder / "a.yaml").unlink()
    await running.restart()
    reader = Reader(running.store)
    await reader.next()
    assert reader.names == {"b"}
    await running.store.close()
    assert [entry["ref"]["name"] for entry in json.loads(running.state_file.read_text())["objects"]] == ["b"]


async def test_the_content_of_a_secret_is_not_written_down(running: Running) -> None:
    secret = make_object("Secret", "key", data={"token": "aHVudGVyMg=="}, stringData={"plain": "hunter2"})
    write(running.folder / "a.yaml", secret, make_service("a"))
    before = await Reader(running.store, "Secret").until_seen(ObjectRef("Secret", "default", "key"))
    await running.restart()
    assert await Reader(running.store, "Secret").until_seen(before.ref) == before
    await running.store.close()
    assert "aHVudGVyMg" not in running.state_file.read_text()
    assert "hunter2" not in running.state_file.read_text()
    assert "hunter2" not in repr(running.store._table.state(running.store._folder.manifests))
    assert running.state_file.stat().st_mode & 0o777 == 0o600
    assert running.state_file.parent.stat().st_mode & 0o777 == 0o700
    (running.folder / "a.yaml").write_text("kind: [")
    await running.restart()
    batch = await Reader(running.store, "Secret", "Service").next()
    assert [stored.ref for stored in batch.changed] == [service("a")]


@pytest.mark.parametrize("text", ["{", "[]", '{"version": 99}', '{"version": 1}', "\x00"])
async def test_a_state_file_nobody_understands_is_set_aside(
    running: Running, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    await running.store.close()
    running.state_file.write_text(text)
    write(running.folder / "a.yaml", make_service("a"))
    with caplog.at_level(logging.WARNING, "controller.store"):
        await running.restart()
    await Reader(running.store).until_seen(service("a"))
    assert running.state_file.with_name("state.json.corrupt").read_text() == text
    assert "state file set aside" in caplog.text


async def test_a_status_is_on_disk_before_the_store_is_closed(running: Running) -> None:
    write(running.folder / "a.yaml", make_service("a"))
    stored = await Reader(running.store).until_seen(service("a"))
    await running.store.patch_status(service("a"), {"ready": True}, at(stored.resource_version))
    async with time_limit(30):
        while not running.state_file.exists() or '"ready":true' not in running.state_file.read_text():
            await asyncio.to_thread(lambda: None)


async def test_what_is_no_longer_valid_is_not_brought_back(running: Running) -> None:
    write(running.folder / "a.yaml", make_service("a"), make_service("b"))
    await Reader(running.store).until_seen(service("a"))
    await running.store.close()
    running.state_file.write_text(running.state_file.read_text().replace('"port":80', '"port":0', 1))
    (running.folder / "a.yaml").write_text("kind: [")
    await running.restart()
    batch = await Reader(running.store).next()
    assert len(batch.changed) == 1
