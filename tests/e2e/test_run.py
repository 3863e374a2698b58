"""`beamlit run DIR --envoy`: what saving, breaking and removing files does to the traffic, without a restart."""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
import pytest_asyncio

from controller.api.timing import EnvoyTiming, FolderTiming
from controller.gateway.admin import EnvoyAdmin
from controller.gateway.memory import memory_limit
from tests.support.beamlit import Product, Reply, ask, beamlit, eventually, no_request_fails
from tests.support.data_plane.backends import Backends
from tests.support.e2e_manifests import SEED, endpoints, model, service, text_of
from tests.support.envoy import heap_for, heap_in
from tests.support.forked import Forked
from tests.support.load import closed_loop
from tests.support.network import unused_port
from tests.support.timing import PATIENT

pytestmark = pytest.mark.asyncio(loop_scope="module")

_NUMBERS = itertools.count(1)
STEADY = "steady"
TIMING = replace(
    PATIENT,
    folder=FolderTiming(relist=3600.0),
    gateway=replace(PATIENT.gateway, vacated=1.0, departed=1.0),
    envoy=EnvoyTiming(first_restart=0.1),
)
"""Nobody looks at the folder by and by: a change is seen when it is made, or not while these tests last."""


class Model:
    """A model of one test: a file of its own with all its objects, and a port of its own."""

    def __init__(self, product: Product, backends: Backends) -> None:
        self.name = f"m{next(_NUMBERS)}"
        self.file = f"{self.name}.yaml"
        self.port = unused_port()
        self._product = product
        self._backends = backends

    def text(self, replicas: int = 1, port: int = 0, **annotations: str) -> str:
        return text_of(
            model(
                self.name, self._backends.remote, {f"beamlit.com/{name}": text for name, text in annotations.items()}
            ),
            service(self.name, port or self.port),
            endpoints(self.name, *self._backends.local[:replicas]),
        )

    def save(self, **wanted: int | str) -> None:
        self._product.save(self.file, self.text(**wanted))

    async def served(self) -> None:
        await self._product.programmed(self.name)
        await eventually(lambda: ask(self.port), lambda reply: reply.side)


@pytest.fixture(scope="module")
def steady() -> int:
    """The port of the model that all tests leave alone."""
    return unused_port()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def product(backends: Backends, steady: int, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Product]:
    """The product without a default remote backend, and a model that all tests leave alone."""
    product = Product(tmp_path_factory.mktemp("run"), partial(Forked, context=TIMING))
    product.save(
        "steady.yaml",
        text_of(model(STEADY, backends.remote), service(STEADY, steady), endpoints(STEADY, backends.local[0])),
    )
    async with product.running("--envoy"):
        await product.programmed(STEADY)
        yield product


@pytest.fixture
def models(product: Product, backends: Backends) -> Iterator[Callable[[], Model]]:
    """Builds models whose files are gone after the test."""
    built = []

    def build() -> Model:
        built.append(Model(product, backends))
        return built[-1]

    yield build
    for one in built:
        (product.objects / one.file).unlink(missing_ok=True)


async def sides(port: int, requests: int = 400) -> tuple[int, int]:
    """How many of so many requests went local and remote; none fails."""
    summary = (await closed_loop(f"http://127.0.0.1:{port}/", 8, requests)).summary
    assert summary.failed == 0
    return summary.local, summary.remote


async def test_the_tutorial_model_is_served_and_says_that_it_has_no_remote(product, backends):
    port = unused_port()
    product.save("seed.yaml", SEED)
    product.save("seed-service.yaml", text_of(service("php-apache", port)))
    product.save("seed-endpoints.yaml", text_of(endpoints("php-apache", *backends.local[:2])))
    await product.programmed("php-apache")
    assert (await eventually(lambda: ask(port), lambda reply: reply.side)).side == "local"
    # Each file may be seen by itself, and Envoy has the replicas before the status says so.
    await eventually(lambda: product.split("php-apache"), "100/0 NoRemoteBackend".__eq__)
    status, reason, message = await product.condition("php-apache", "ResolvedRefs")
    assert (status, reason) == ("False", "NoRemoteBackend")
    assert "remoteBackend is not set" in message
    for file in ("seed.yaml", "seed-service.yaml", "seed-endpoints.yaml"):
        product.remove(file)
    await eventually(lambda: ask(port), lambda reply: reply.error == "ConnectError")


async def test_an_edited_override_moves_the_weights_at_once(product, steady, models):
    one = models()
    one.save()
    await one.served()
    async with no_request_fails(one.port, steady):
        for remote in (30, 100, 0):
            one.save(override=f"remote={remote}")
            await eventually(lambda: product.split(one.name), lambda split: split.endswith("Override"))
            await eventually(lambda: product.split(one.name), f"{100 - remote}/{remote} Override".__eq__)
            if remote in (0, 100):
                side = "remote" if remote else "local"
                await eventually(lambda: ask(one.port), lambda reply, side=side: reply.side == side)
            else:
                await product.programmed(one.name)
                await eventually(lambda: sides(one.port, 40), lambda found: found[1])
                _, away = await sides(one.port, 1000)
                assert abs(away - 300) < 4.5 * (1000 * 0.3 * 0.7) ** 0.5
        one.save()
        await eventually(lambda: product.split(one.name), "100/0 Steady".__eq__)


async def test_an_override_ends_by_itself(product, models):
    one = models()
    one.save(override="remote=100")
    await eventually(lambda: product.split(one.name), "0/100 Override".__eq__)
    until = datetime.now(UTC) + timedelta(seconds=2)
    one.save(override=f"remote=100 until={until:%Y-%m-%dT%H:%M:%SZ}")
    await eventually(lambda: product.split(one.name), "100/0 Steady".__eq__)
    assert datetime.now(UTC) >= until.replace(microsecond=0)
    assert [entry["split"] for entry in (await product.status(one.name))["history"]] == ["100/0", "0/100"]


async def test_a_pause_holds_the_split_until_its_annotation_goes(product, models):
    one = models()
    one.save(override="remote=40")
    await eventually(lambda: product.split(one.name), "60/40 Override".__eq__)
    one.save(paused="true")
    await eventually(lambda: product.split(one.name), "60/40 Paused".__eq__)
    assert (await product.condition(one.name, "Paused"))[:2] == ("True", "Paused")
    one.save()
    await eventually(lambda: product.split(one.name), "100/0 Steady".__eq__)
    assert (await product.condition(one.name, "Paused"))[:2] == ("False", "NotPaused")


async def test_an_annotation_that_cannot_be_read_changes_nothing_and_says_why(product, models):
    one = models()
    one.save(override="remote=20")
    await eventually(lambda: product.split(one.name), "80/20 Override".__eq__)
    one.save(override="remote=half")
    (problem,) = await eventually(lambda: product.problems(one.file), bool)
    assert "beamlit.com/override" in problem
    assert "'half'" in problem
    assert await product.split(one.name) == "80/20 Override"


async def test_a_new_model_and_a_new_replica_are_served_without_a_restart(product, steady, models):
    one = models()
    async with no_request_fails(steady):
        one.save()
        await one.served()
        async with no_request_fails(one.port):
            one.save(replicas=3)
            seen: set[str] = set()

            async def servers() -> set[str]:
                seen.add((await ask(one.port)).server)
                return seen

            await eventually(servers, {"local-1", "local-2", "local-3"}.__eq__)

    async def local() -> object:
        return (await product.status(one.name))["local"]

    # What is merely counted is written once a second.
    await eventually(local, {"ready": 3, "total": 3, "summary": "3/3"}.__eq__)


@dataclass(frozen=True, slots=True)
class Mistake:
    """A change to a good text, words of the line it is on, and what is said of it."""

    change: Callable[[str], str]
    where: str
    said: str

    def line(self, text: str) -> int:
        return line_with(text, self.where)


def line_with(text: str, words: str) -> int:
    return next(number for number, line in enumerate(text.splitlines(), 1) if words in line)


def replaced(old: str, new: str) -> Callable[[str], str]:
    return lambda text: text.replace(old, new, 1)


def cut(text: str) -> str:
    """End in the middle of a quoted string."""
    return text.partition("percentage: 50")[0] + 'percentage: "5'


MISTAKES = {
    "half a file": Mistake(cut, "percentage:", "found unexpected end of stream"),
    "a tab": Mistake(replaced("spec:", "\tspec:"), "\tspec:", "is indented with a tab; YAML wants spaces"),
    "a wrong field": Mistake(
        replaced("percentage: 50", "percentag: 50"),
        "percentag:",
        "spec.offloadingConfig.behavior.percentag: is not a known field; is percentage meant?",
    ),
    "a number out of range": Mistake(
        replaced("percentage: 50", "percentage: 120"),
        "percentage:",
        "spec.offloadingConfig.behavior.percentage: must be at most 100, is 120",
    ),
    "another object of the file": Mistake(
        replaced("nodePort: ", "nodePort: 7000000 # "),
        "nodePort:",
        "spec.ports[0].nodePort: must be at most 65535, is 7000000",
    ),
    "no address": Mistake(replaced("- 127.", "- here-127."), "- here-127.", "endpoints[0].addresses[0]: "),
}


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES.keys())
async def test_a_mistake_changes_nothing_and_is_told_by_file_line_and_field(product, steady, models, mistake):
    one = models()
    one.save(override="remote=0")
    await one.served()
    async with no_request_fails(one.port, steady):
        broken = mistake.change(one.text(replicas=2, override="remote=100"))
        product.save(one.file, broken)
        (problem,) = await eventually(lambda: product.problems(one.file), bool)
        place = f"{one.file}:{mistake.line(broken)}"
        assert problem.startswith(f"{place}: {mistake.said}")
        (told,) = (line for line in product.log().splitlines() if f"at={place} " in line)
        assert f" error mistake in a file at={place} problem=" in told
        assert mistake.said in told
        assert await product.split(one.name) == "100/0 Override"
        assert (await ask(one.port)).side == "local"
        one.save(replicas=2, override="remote=100")
        await eventually(lambda: product.problems(one.file), [].__eq__)
        await eventually(lambda: product.split(one.name), "0/100 Override".__eq__)
    assert f"file accepted file={one.file}" in product.log()


async def test_an_object_in_two_files_counts_where_it_was_first(product, steady, models):
    one, other = models(), models()
    one.save(override="remote=0")
    await one.served()
    async with no_request_fails(one.port, steady):
        second = one.text(override="remote=100")
        product.save(other.file, second)
        problems = await eventually(lambda: product.problems(other.file), bool)
        assert len(problems) == 3
        line = line_with(second, f"name: {one.name}")
        assert (
            f"{other.file}:{line}: metadata.name: ModelDeployment default/{one.name} is already given in "
            f"{one.file}:{line}, which counts"
        ) in problems
        assert await product.split(one.name) == "100/0 Override"
        # The other file takes over as the first one goes.
        product.remove(one.file)
        await eventually(lambda: product.problems(other.file), [].__eq__)
        await eventually(lambda: product.split(one.name), "0/100 Override".__eq__)


async def test_what_a_secret_holds_is_told_nowhere(product, models):
    one = models()
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "key"}, "data": {"key": ["told-nowhere"]}}
    product.save(one.file, text_of(secret))
    (problem,) = await eventually(lambda: product.problems(one.file), bool)
    assert problem.startswith(f"{one.file}:6: data.key: ")
    assert "told-nowhere" not in problem + product.log() + (await product.look("/status")).text


async def test_a_removed_object_is_served_no_more_and_nobody_else_notices(product, steady, models):
    one, other = models(), models()
    one.save()
    other.save()
    await one.served()
    await other.served()
    async with no_request_fails(steady, other.port):
        product.remove(one.file)
        await eventually(lambda: ask(one.port), Reply(error="ConnectError").__eq__)
        await eventually(lambda: product.status(one.name), {}.__eq__)

    async def split_ratios() -> str:
        return "".join(line for line in (await product.look("/metrics")).text.splitlines(True) if "split_ratio" in line)

    # The controller hears of it as everybody does, and then forgets it.
    await eventually(split_ratios, lambda text: f'name="{one.name}"' not in text)


async def test_what_is_in_flight_ends_well_after_its_model_is_removed(product, backends, models):
    one = models()
    one.save()
    await one.served()
    (folder,) = product.state.glob("envoy/*")
    async with EnvoyAdmin.connect(folder) as envoy:

        async def arrived() -> int:
            return sum(backend.count() for backend in backends.local)

        async def clusters() -> str:
            return (await envoy.client.get("/clusters")).text

        before = await arrived()
        request = asyncio.create_task(ask(one.port, **{"on-local": f"held={one.name}"}))
        await eventually(arrived, lambda count: count > before)
        assert f"default/{one.name}/" in await clusters()
        product.remove(one.file)
        await eventually(lambda: ask(one.port), Reply(error="ConnectError").__eq__)
        # Nothing is kept of the model any more.
        await eventually(clusters, lambda text: f"default/{one.name}/" not in text)
        for backend in backends.local:
            backend.release(one.name)
        assert (await request).side == "local"


@contextmanager
def taken(port: int) -> Iterator[None]:
    """Another program that listens on a port."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        yield


async def test_a_taken_port_is_told_in_envoys_words_and_the_others_work(product, steady, models):
    one, other = models(), models()
    async with no_request_fails(steady):
        with taken(one.port):
            one.save()
            status, _, message = await eventually(
                lambda: product.condition(one.name, "Programmed"), lambda seen: seen[1] == "Refused"
            )
            assert status == "False"
            assert f"port/{one.port}" in message
            assert message.endswith(f"cannot bind '127.0.0.1:{one.port}': Address already in use")
            assert (await product.condition(one.name, "Ready"))[:2] == ("False", "NotProgrammed")
            other.save()
            await other.served()
            # Another port, and all is well.
            port = unused_port()
            one.save(port=port)
            await product.programmed(one.name)
            await eventually(lambda: ask(port), lambda reply: reply.side == "local")


async def test_of_two_models_for_one_port_the_first_has_it_and_the_other_takes_over(product, steady, models):
    one, other = models(), models()
    one.save()
    await one.served()
    async with no_request_fails(one.port, steady):
        other.save(port=one.port, override="remote=100")
        status, reason, message = await eventually(
            lambda: product.condition(other.name, "Accepted"), lambda seen: seen[0] == "False"
        )
        assert (status, reason) == ("False", "Conflict")
        assert message == f"port {one.port} is already that of ModelDeployment default/{one.name}"
        assert (await product.condition(one.name, "Accepted"))[:2] == ("True", "Accepted")
        assert (await ask(one.port)).side == "local"
    product.remove(one.file)
    await eventually(lambda: ask(one.port), lambda reply: reply.side == "remote")
    await product.programmed(other.name)
    assert (await product.condition(other.name, "Accepted"))[:2] == ("True", "Accepted")


async def test_a_port_that_the_program_listens_on_itself_is_no_model_s(product, steady, models):
    one = models()
    async with no_request_fails(steady):
        for address in (product.xds, product.admin):
            port = int(address.rpartition(":")[2])
            one.save(port=port)
            needs = "needs itself (--xds-address, --admin-address, --gateway-port)"
            words = f"port {port} is one that `beamlit run` {needs}"
            await eventually(
                lambda: product.condition(one.name, "Accepted"),
                lambda seen, words=words: seen == ("False", "Conflict", words),
            )
        one.save()
        await one.served()


async def test_a_second_run_over_the_folder_is_refused_and_the_first_does_not_notice(product, steady):
    addresses = ("--xds-address", "127.0.0.1:0", "--admin-address", "127.0.0.1:0")
    async with no_request_fails(steady):
        ended = await beamlit("run", product.objects, "--envoy", *addresses, "--state-dir", product.state)
    assert ended.code == 1, ended
    assert f"Error: --state-dir {product.state}: another `beamlit run` serves {product.objects}\n" in ended.errors
    assert product.envoy_pid()


async def test_an_envoy_that_is_killed_is_started_again(product, steady):
    before = product.envoy_pid()
    assert heap_in(product.state) == heap_for(memory_limit())
    os.kill(before, 9)

    async def pid() -> int:
        return product.envoy_pid()

    await eventually(pid, lambda pid: pid not in (0, before))
    await eventually(lambda: ask(steady), lambda reply: reply.side == "local")
    assert "envoy ended, starting it again" in product.log()


async def test_nothing_is_written_into_the_watched_folder(product):
    assert [path.name for path in product.objects.iterdir()] == ["steady.yaml"]
