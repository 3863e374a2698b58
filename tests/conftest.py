"""Options and order of the whole suite."""

import gc
import random
from collections.abc import Generator, Sequence

import pytest
from hypothesis import HealthCheck, settings

from tests.support.chart import Chart
from tests.tools import binaries

# How long an example takes says more of the machine and its other work than of the code.
settings.register_profile("searching", deadline=None, suppress_health_check=[HealthCheck.too_slow])
# The same examples each time: who changes something else is not the one to meet a rare one. `make properties` searches.
settings.register_profile("unhurried", settings.get_profile("searching"), derandomize=True)
settings.load_profile("unhurried")

PURE_SUITES = ("tests/unit/", "tests/timelines/", "tests/golden/", "benchmarks/tests/")
"""Whose files start no programs and are short. They come last, so that they fill what is left at the end of a run."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--rewrite-golden", action="store_true", help="write the expectations of tests/golden anew (make golden)"
    )
    parser.addoption("--shuffle-files", type=int, metavar="SEED", help="take the test files in the order of this seed")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Look for no garbage meanwhile: next to nothing of what is imported and collected is, and it is looked through
    again and again as it grows."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put whole files in order; the tests of a file stay in theirs."""
    files = list(dict.fromkeys(item.nodeid.partition("::")[0] for item in items))
    seed = config.getoption("--shuffle-files")
    if seed is None:
        files = in_turns(files)
    else:
        random.Random(seed).shuffle(files)
    place = {file: number for number, file in enumerate(files)}
    items.sort(key=lambda item: place[item.nodeid.partition("::")[0]])


def in_turns(files: Sequence[str]) -> list[str]:
    """Take the files of all suites evenly, each suite's in their order, and the pure ones after all others.

    Some suites wait most of the time and some compute: together they keep the processors busy, one after the other
    they leave them idle for a quarter of the first half.
    """
    suites: dict[str, list[str]] = {}
    for file in files:
        suites.setdefault("/".join(file.split("/")[:2]), []).append(file)
    done = {file: number / len(suite) for suite in suites.values() for number, file in enumerate(suite)}
    return sorted(files, key=lambda file: (file.startswith(PURE_SUITES), done[file]))


@pytest.fixture(scope="session")
def chart(tmp_path_factory: pytest.TempPathFactory) -> Chart:
    """The Helm chart, and the real helm."""
    return Chart(binaries.helm(), tmp_path_factory.mktemp("helm"))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build helm before the first test starts, if any needs it: it takes longer than a test may."""
    # Seven thousand tests and their modules stay until the end: nobody need look through them for garbage, even once.
    gc.freeze()
    # Nor often for what the tests make: next to all of it is freed at once, by the count of its references.
    gc.set_threshold(20_000, 20, 20)
    used = {fixture for item in session.items for fixture in getattr(item, "fixturenames", ())}
    if "chart" in used and not session.config.option.collectonly:
        with session.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
            binaries.helm()
