"""What a user, an editor or a volume does to files, and what comes of it."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from controller.store.directory import DirectoryStore
from controller.store.protocol import StoreError
from tests.store.running_store import Running
from tests.support.manifests import make_object, make_service, service, text_of, write
from tests.support.reader import Reader
from tests.support.waiting import PATIENCE


async def reader_of(running: Running, *names: str) -> Reader:
    reader = Reader(running.store)
    await reader.until(lambda cache: set(names) == {ref.name for ref in cache.objects("Service")})
    return reader


async def seen_at_rest(running: Running, reader: Reader, name: str) -> None:
    """The folder has been read after everything that was written before: another file's object shows it."""
    write(running.folder / f"{name}.yaml", make_service(name))
    await reader.until_seen(service(name))


async def test_several_documents_lists_json_and_folders_below(running: Running) -> None:
    write(running.folder / "two.yaml", make_service("a"), make_service("b"))
    items = {"apiVersion": "v1", "kind": "List", "items": [make_service("c"), make_service("d")]}
    write(running.folder / "below" / "further" / "list.yml", items)
    (running.folder / "e.json").write_text(json.dumps(make_service("e"), indent="\t"))
    await reader_of(running, "a", "b", "c", "d", "e")


async def test_what_windows_writes_is_read(running: Running) -> None:
    one, two = (json.dumps(make_service(name)) for name in "ab")
    running.folder.joinpath("utf-8.yaml").write_bytes(f"{one}\r\n---\r\n{two}\r\n".encode("utf-8-sig"))
    running.folder.joinpath("utf-16.yaml").write_bytes(json.dumps(make_service("c")).encode("utf-16"))
    await reader_of(running, "a", "b", "c")


async def test_a_namespace_left_out_is_default_and_server_fields_are_not_taken(running: Running) -> None:
    raw = make_service("a") | {"status": {"from": "file"}}
    raw["metadata"] = {"name": "a", "uid": "given", "resourceVersion": "7", "generation": 9, "managedFields": []}
    write(running.folder / "a.yaml", raw)
    stored = await Reader(running.store).until_seen(service("a"))
    assert stored.status == {}
    assert stored.generation == 1
    assert stored.metadata["uid"] != "given"
    assert "managedFields" not in stored.metadata


async def test_hidden_files_and_backups_are_not_read(running: Running) -> None:
    for name in (".hidden.yaml", "a.yaml~", ".a.yaml.swp", "#a.yaml#", "a.yaml.bak", "4913", "notes.txt"):
        write(running.folder / name, make_service("wrong"))
    write(running.folder / ".git" / "x.yaml", make_service("wrong"))
    write(running.folder / "a.yaml", make_service("a"))
    await reader_of(running, "a")


async def test_other_kinds_are_ignored_and_said_once(running: Running, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "controller.store")
    write(running.folder / "a.yaml", make_object("Pod", "x"), make_service("a"))
    reader = await reader_of(running, "a")
    write(running.folder / "a.yaml", make_object("Pod", "x"), make_service("a", port=81))
    await reader.until_field(service("a"), "spec", {"port": 81})
    notes = [vars(record)["note"] for record in caplog.records if record.getMessage() == "note on a file"]
    assert notes == ["line 2: Pod is not a kind that is used here"]
    assert not running.store.problems


async def test_an_invalid_file_keeps_its_last_good_objects_until_it_is_fixed(running: Running) -> None:
    file = running.folder / "a.yaml"
    write(file, make_service("a"), make_service("b"))
    reader = await reader_of(running, "a", "b")
    write(file, make_service("a", port=81), make_service("b", port=70000))
    (problem,) = await running.until_problems(bool)
    assert str(problem) == "a.yaml:16: spec.port: must be 1..65535, is 70000"
    await seen_at_rest(running, reader, "other")
    assert reader.find(service("a")).raw["spec"] == {"port": 80}
    assert not reader.deleted
    write(file, make_service("a", port=81), make_service("b"))
    await reader.until_field(service("a"), "spec", {"port": 81})
    assert not await running.until_problems(lambda problems: not problems)


async def test_a_syntax_error_is_told_with_its_line(running: Running) -> None:
    (running.folder / "a.yaml").write_text("kind: Service\nmetadata:\n\tname: a\n")
    (problem,) = await running.until_problems(bool)
    assert str(problem) == "a.yaml:3: is indented with a tab; YAML wants spaces"


async def test_an_unknown_kind_of_our_own_group_is_a_problem(running: Running) -> None:
    raw = make_object("ModelDeployment", "a") | {"kind": "ModelDeploymnt"}
    write(running.folder / "a.yaml", raw)
    (problem,) = await running.until_problems(bool)
    assert str(problem) == "a.yaml:3: kind: must be one of ModelDeployment, is ModelDeploymnt"


async def test_a_file_that_is_not_text_is_a_problem(running: Running) -> None:
    (running.folder / "a.yaml").write_bytes(b"kind: Service\n\xff\xfe\n")
    (problem,) = await running.until_problems(bool)
    assert str(problem) == "a.yaml:2: is not UTF-8 text"


async def test_a_half_written_file_changes_nothing_else(running: Running) -> None:
    write(running.folder / "b.yaml", make_service("b"))
    write(running.folder / "a.yaml", make_service("a"))
    reader = await reader_of(running, "a", "b")
    text = text_of(make_service("a", port=81), make_service("c"))
    with (running.folder / "a.yaml").open("w") as file:
        file.write(text[: text.index("81")] + "{")  # Cut in the middle of a value, at rest for a while.
        file.flush()
        await running.until_problems(bool)
        await seen_at_rest(running, reader, "x")
        file.seek(text.index("81"))
        file.write(text[text.index("81") :])
    await reader.until_seen(service("c"))
    assert reader.find(service("a")).raw["spec"] == {"port": 81}
    assert not reader.deleted
    await running.until_problems(lambda problems: not problems)


async def test_chunks_that_follow_each_other_are_read_as_one(running: Running) -> None:
    names = [f"s{number}" for number in range(20)]
    write(running.folder / "a.yaml", *map(make_service, names))
    reader = await reader_of(running, *names)
    with (running.folder / "a.yaml").open("w") as file:
        for name in names:
            file.write(text_of(make_service(name, port=81)))
            file.flush()
            await asyncio.sleep(0)
    await reader.until(lambda cache: all(o.raw["spec"]["port"] == 81 for o in cache.objects("Service").values()))
    assert not reader.deleted


@pytest.mark.parametrize(
    "script",
    [
        pytest.param("sed -i s/80/81/ a.yaml", id="sed -i: a new file renamed over the old"),
        pytest.param("cp a.yaml a.yaml~ && sed s/80/81/ a.yaml~ > a.yaml", id="truncated and written in place"),
        pytest.param(
            "mv a.yaml a.yaml~ && sed s/80/81/ a.yaml~ > a.yaml && rm a.yaml~", id="vim: moved away, written anew"
        ),
        pytest.param("sed s/80/81/ a.yaml > .#a && mv .#a a.yaml", id="temporary file renamed"),
        pytest.param("sed s/80/81/ a.yaml > .t && touch -r a.yaml .t && cp -p .t a.yaml", id="same size, same mtime"),
    ],
)
async def test_every_way_to_save_is_one_change(running: Running, script: str) -> None:
    # On a busy machine a shell may rest for a while between two of its steps.
    running.timing = replace(running.timing, losing=PATIENCE, emptied=PATIENCE)
    await running.restart()
    write(running.folder / "a.yaml", make_service("a"), make_service("b"))
    reader = await reader_of(running, "a", "b")
    await asyncio.to_thread(subprocess.run, script, shell=True, cwd=running.folder, check=True, timeout=60)
    await reader.until_field(service("a"), "spec", {"port": 81})
    assert not reader.deleted
    assert reader.find(service("a")).generation == 2
    assert not running.store.problems


async def test_a_removed_document_and_a_removed_file_remove_their_objects(running: Running) -> None:
    write(running.folder / "a.yaml", make_service("a"), make_service("b"))
    write(running.folder / "c.yaml", make_service("c"))
    reader = await reader_of(running, "a", "b", "c")
    write(running.folder / "a.yaml", make_service("a"))
    await reader.until_gone(service("b"))
    (running.folder / "c.yaml").unlink()
    await reader.until_gone(service("c"))
    assert reader.names == {"a"}


async def test_an_emptied_file_is_believed_in_the_end(running: Running) -> None:
    write(running.folder / "a.yaml", make_service("a"))
    reader = await reader_of(running, "a")
    (running.folder / "a.yaml").write_text("# nothing is left\n")
    await reader.until_gone(service("a"))


async def test_what_moves_to_another_file_is_not_deleted(running: Running) -> None:
    write(running.folder / "a.yaml", make_service("a"), make_service("b"))
    reader = await reader_of(running, "a", "b")
    (running.folder / "a.yaml").rename(running.folder / "renamed.yaml")
    await seen_at_rest(running, reader, "x")
    write(running.folder / "new.yaml", make_service("b", port=81))
    write(running.folder / "renamed.yaml", make_service("a"))
    stored = await reader.until_field(service("b"), "spec", {"port": 81})
    assert stored.generation == 2
    assert not reader.deleted


async def test_the_file_that_had_an_object_keeps_it_and_the_other_takes_over(running: Running) -> None:
    write(running.folder / "z.yaml", make_service("a", port=1))
    reader = await reader_of(running, "a")
    write(running.folder / "b.yaml", make_service("other"), make_service("a", port=2))
    await reader.until_seen(service("other"))
    (problem,) = await running.until_problems(bool)
    assert str(problem) == "b.yaml:13: metadata.name: Service default/a is already given in z.yaml:5, which counts"
    assert reader.find(service("a")).raw["spec"] == {"port": 1}
    (running.folder / "z.yaml").unlink()
    await reader.until_field(service("a"), "spec", {"port": 2})
    await running.until_problems(lambda problems: not problems)
    assert not reader.deleted


async def test_a_mounted_config_map_is_swapped_at_once(running: Running) -> None:
    for version, port in (("..1", 80), ("..2", 81)):
        write(running.folder / version / "a.yaml", make_service("a", port=port))
    (running.folder / "..data").symlink_to("..1")
    (running.folder / "a.yaml").symlink_to("..data/a.yaml")
    reader = await reader_of(running, "a")
    (running.folder / "..tmp").symlink_to("..2")
    (running.folder / "..tmp").rename(running.folder / "..data")
    await reader.until_field(service("a"), "spec", {"port": 81})
    assert not running.store.problems


async def test_a_link_to_a_folder_is_followed_and_a_circle_is_not(running: Running, tmp_path: Path) -> None:
    write(tmp_path / "elsewhere" / "a.yaml", make_service("a"))
    (running.folder / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(running.folder)
    reader = await reader_of(running, "a")
    write(tmp_path / "elsewhere" / "a.yaml", make_service("a", port=81))  # Not reported by the system: seen by looking.
    await reader.until_field(service("a"), "spec", {"port": 81})
    assert not running.store.problems


async def test_three_hundred_files_come_as_one_batch(running: Running) -> None:
    for number in range(300):
        write(running.folder / f"{number}.yaml", make_service(f"s{number}"))
    await running.restart()
    batch = await Reader(running.store).next()
    assert batch.complete
    assert len(batch.changed) == 300


async def test_saving_an_equal_file_is_silent(running: Running) -> None:
    write(running.folder / "a.yaml", make_service("a"))
    reader = await reader_of(running, "a")
    write(running.folder / "a.yaml", make_service("a"))
    reader.batches.clear()
    await seen_at_rest(running, reader, "x")
    assert {stored.ref.name for batch in reader.batches for stored in batch.changed} == {"x"}
    assert reader.find(service("a")).generation == 1


async def test_no_words_of_ours_quote_a_secret(running: Running, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "controller.store")
    write(running.folder / "invalid.yaml", make_object("Secret", "a", data={"key": 31337}))
    (running.folder / "alias.yaml").write_text("kind: Secret\ndata: *hunter31337\n")
    tagged = "apiVersion: v1\nkind: Secret\nmetadata: {name: b}\ndata: !hunter31337\n"
    (running.folder / "tag.yaml").write_text(tagged)
    problems = await running.until_problems(lambda problems: len(problems) == 3)
    assert [str(problem) for problem in problems] == [
        "alias.yaml:2: found undefined alias",
        "invalid.yaml:10: data.key: is not valid",
        "tag.yaml:4: data: has a YAML tag, which Kubernetes does not know",
    ]
    assert "31337" not in caplog.text


async def test_closing_ends_watches_and_tasks(running: Running) -> None:
    reader = Reader(running.store)
    await reader.next()
    reading = asyncio.create_task(anext(reader.watch, None))
    await asyncio.sleep(0)
    await running.store.close()
    assert await reading is None
    assert await anext(running.store.watch(["Service"]), None) is None
    names = {task.get_name() for task in asyncio.all_tasks()}
    assert not names & {"folder-monitor", "state-writer", "folder-store"}


async def test_a_store_that_fails_ends_its_watches_with_an_error(folder: Path, tmp_path: Path) -> None:
    def fail(problems: object) -> None:
        raise ZeroDivisionError

    async with DirectoryStore(folder, tmp_path / "state.json", {}, fail) as store:
        reader = Reader(store)
        await reader.next()
        (folder / "a.yaml").write_text("a: b: c")
        with pytest.raises(StoreError, match="ZeroDivisionError"):
            await reader.next()


async def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await DirectoryStore(tmp_path / "none", tmp_path / "state.json", {}).start()


async def test_a_state_file_among_the_manifests_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must be outside"):
        DirectoryStore(tmp_path, tmp_path / "state.json", {})
    DirectoryStore(tmp_path, tmp_path / ".beamlit" / "state.json", {})


async def test_a_folder_that_vanishes_keeps_its_objects(running: Running) -> None:
    write(running.folder / "a.yaml", make_service("a"))
    reader = await reader_of(running, "a")
    running.folder.rename(running.folder.with_name("away"))
    (problem,) = await running.until_problems(bool)
    assert problem.message == "cannot be listed: No such file or directory"
    running.folder.with_name("away").rename(running.folder)
    await running.until_problems(lambda problems: not problems)
    await seen_at_rest(running, reader, "x")
    assert not reader.deleted


async def test_what_cannot_be_listed_keeps_its_objects_and_stops_nothing_else(running: Running) -> None:
    write(running.folder / "below" / "a.yaml", make_service("a"))
    reader = await reader_of(running, "a")
    (running.folder / "below").rename(running.folder / ".away")
    (running.folder / "below").symlink_to("below")  # A link to itself: as good as no permission, also for root.
    (problem,) = await running.until_problems(bool)
    assert str(problem) == "below:1: cannot be listed: Too many levels of symbolic links"
    await seen_at_rest(running, reader, "x")
    await running.restart()
    again = Reader(running.store)
    await again.next()
    assert again.names == {"a", "x"}
    (running.folder / "below").unlink()
    (running.folder / ".away").rename(running.folder / "below")
    await running.until_problems(lambda problems: not problems)
    await seen_at_rest(running, again, "z")
    assert not reader.deleted | again.deleted
