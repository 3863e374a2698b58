"""Objects that programs write into a folder's store: what survives, and what is the author's of a file alone."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from controller.store.directory import DirectoryStore
from controller.store.objects import ObjectRef
from controller.store.protocol import (
    AlreadyExistsError,
    ConflictError,
    FieldConflictError,
    NotFoundError,
    ObjectStore,
    Precondition,
    RefusedError,
    UnavailableError,
)
from tests.store.running_store import Running
from tests.support.manifests import KINDS, make_object, make_service, service, write
from tests.support.reader import Reader
from tests.support.waiting import time_limit

A = service("a")


async def listed(running: Running) -> Reader:
    """A reader that has read its first batch."""
    reader = Reader(running.store)
    await reader.next()
    return reader


async def test_what_a_program_wrote_survives_with_its_identity_status_and_owners(running: Running) -> None:
    await listed(running)
    await running.store.apply(make_service("a"), "one")
    await running.store.patch(A, {"spec": {"port": 81}})
    await running.store.patch_status(A, {"ready": True})
    before = await running.store.read(A)
    await running.restart()
    reader = Reader(running.store)
    batch = await reader.next()
    assert batch.complete
    assert batch.changed == (before,)
    with pytest.raises(FieldConflictError, match=r'"beamlit-controller": \.spec\.port'):
        await running.store.apply(make_service("a"), "one")
    after = await running.store.patch(A, {"spec": {"port": 82}}, Precondition.unchanged(before))
    assert (after.uid, after.generation) == (before.uid, before.generation + 1)
    assert int(after.resource_version) > int(before.resource_version)


async def test_what_a_program_deleted_does_not_come_back(running: Running) -> None:
    reader = await listed(running)
    await running.store.create(make_service("a"))
    await running.store.delete(A)
    await reader.until_gone(A)
    await running.restart()
    assert not (await listed(running)).names
    await running.store.close()
    state = json.loads(running.state_file.read_text())
    assert (state["objects"], state["written"]) == ([], [])


async def test_an_object_is_on_disk_before_the_store_is_closed(running: Running) -> None:
    await listed(running)
    await running.store.create(make_service("a", port=4711))
    async with time_limit(30):
        while not running.state_file.exists() or '"port":4711' not in running.state_file.read_text():
            await asyncio.to_thread(lambda: None)
    assert running.state_file.stat().st_mode & 0o777 == 0o600


async def test_a_state_of_a_version_that_wrote_no_objects_is_read(running: Running) -> None:
    write(running.folder / "a.yaml", make_service("a"))
    before = await Reader(running.store).until_seen(A)
    await running.store.close()
    state = json.loads(running.state_file.read_text())
    del state["written"]
    running.state_file.write_text(json.dumps(state))
    await running.restart()
    assert await Reader(running.store).until_seen(A) == before


WRITES: dict[str, Callable[[ObjectStore], Awaitable[object]]] = {
    "update": lambda store: store.update(make_service("a", port=81)),
    "apply": lambda store: store.apply(make_service("a", port=81), force=True),
    "patch": lambda store: store.patch(A, {"spec": {"port": 81}}),
    "delete": lambda store: store.delete(A),
}


@pytest.mark.parametrize("verb", WRITES)
async def test_what_a_file_defines_only_its_author_changes(running: Running, verb: str) -> None:
    write(running.folder / "mine.yaml", make_service("a"))
    before = await Reader(running.store).until_seen(A)
    with pytest.raises(RefusedError, match=r"Service default/a is given in mine\.yaml:5"):
        await WRITES[verb](running.store)
    assert await running.store.read(A) == before
    after = await running.store.patch_status(A, {"ready": True}, Precondition.unchanged(before))
    assert after.status == {"ready": True}


async def test_what_a_file_defines_is_not_created(running: Running) -> None:
    write(running.folder / "mine.yaml", make_service("a"))
    await Reader(running.store).until_seen(A)
    with pytest.raises(AlreadyExistsError, match=r"it is given in mine\.yaml:5"):
        await running.store.create(make_service("a", port=81))


async def test_a_file_that_begins_to_define_what_a_program_wrote_has_it_from_then_on(
    running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "controller.store")
    reader = await listed(running)
    before = await running.store.create(make_service("a"))
    await running.store.patch_status(A, {"ready": True})
    write(running.folder / "mine.yaml", make_service("a", port=81))
    after = await reader.until_field(A, "spec", {"port": 81})
    assert (after.uid, after.generation, after.status) == (before.uid, 2, {"ready": True})
    (record,) = (one for one in caplog.records if one.getMessage() == "a file defines what a program wrote")
    assert (vars(record)["object"], vars(record)["at"]) == ("Service default/a", "mine.yaml:5")
    with pytest.raises(RefusedError):
        await running.store.delete(A)
    (running.folder / "mine.yaml").unlink()
    await reader.until_gone(A)
    await running.restart()
    assert not (await listed(running)).names


async def test_files_that_come_and_go_leave_alone_what_programs_wrote(running: Running) -> None:
    reader = await listed(running)
    before = await running.store.create(make_service("a"))
    write(running.folder / "b.yaml", make_service("b"))
    await reader.until_seen(service("b"))
    (running.folder / "b.yaml").unlink()
    await reader.until_gone(service("b"))
    assert reader.find(A) == before
    assert reader.deleted == {service("b")}


async def test_a_file_that_takes_over_while_nothing_ran_has_it_from_the_first_batch(running: Running) -> None:
    await listed(running)
    before = await running.store.create(make_service("a"))
    await running.store.close()
    write(running.folder / "mine.yaml", make_service("a", port=81))
    await running.restart()
    (after,) = (await Reader(running.store).next()).changed
    assert (after.raw["spec"], after.uid, after.generation) == ({"port": 81}, before.uid, 2)


async def test_before_the_folder_was_read_nobody_knows_what_a_file_defines(folder: Path, tmp_path: Path) -> None:
    store = DirectoryStore(folder, tmp_path / "state.json", KINDS)
    with pytest.raises(UnavailableError, match="not read yet") as unavailable:
        await store.create(make_service("a"))
    assert unavailable.value.unsent
    async with store:
        await Reader(store).next()
        await store.create(make_service("a"))


async def test_what_is_not_valid_is_refused_with_its_fields_and_changes_nothing(running: Running) -> None:
    await listed(running)
    for refused in (
        lambda: running.store.create(make_service("a", port=0)),
        lambda: running.store.apply(make_service("a", port=0)),
    ):
        with pytest.raises(RefusedError, match=r"Service default/a is not valid: spec\.port: must be 1\.\.65535, is 0"):
            await refused()
    before = await running.store.create(make_service("a"))
    with pytest.raises(RefusedError, match=r"spec\.port"):
        await running.store.patch(A, {"spec": {"port": 70000}})
    with pytest.raises(RefusedError, match="neither kind nor name"):
        await running.store.patch(A, {"metadata": {"name": "b"}})
    with pytest.raises(RefusedError, match="Pod of v1 is not a kind that is used here"):
        await running.store.create(make_object("Pod", "a"))
    assert await running.store.read(A) == before


async def test_a_secret_is_not_written_down(running: Running) -> None:
    await listed(running)
    secret = make_object("Secret", "key", data={"token": "aHVudGVyMg=="})
    for refused in (running.store.create, running.store.apply):
        with pytest.raises(RefusedError, match="what is in a Secret is not saved here") as error:
            await refused(secret)
        assert "aHVudGVyMg" not in str(error.value)
    with pytest.raises(NotFoundError):
        await running.store.read(ObjectRef("Secret", "default", "key"))


async def test_what_a_program_wrote_and_is_no_longer_valid_is_not_brought_back(running: Running) -> None:
    await listed(running)
    await running.store.create(make_service("a"))
    await running.store.create(make_service("b", port=81))
    await running.store.close()
    running.state_file.write_text(running.state_file.read_text().replace('"port":80', '"port":0'))
    await running.restart()
    assert (await listed(running)).names == {"b"}


async def test_who_read_an_older_version_is_refused(running: Running) -> None:
    await listed(running)
    before = await running.store.create(make_service("a"))
    await running.store.patch_status(A, {"ready": True})
    with pytest.raises(ConflictError):
        await running.store.patch(A, {}, Precondition.unchanged(before))
    with pytest.raises(ConflictError):
        await running.store.delete(A, Precondition(uid="of-another"))
