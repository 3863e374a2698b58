"""What the rounds say of each feature."""

import pytest

from benchmarks.proxies.configs import Upstreams
from benchmarks.proxies.features import CASES, FEATURES, NONE, Case, cost, table, turns
from benchmarks.proxies.product import model_route
from benchmarks.proxies.slots import Slot
from xds_server.resources.translator import EnvoySettings

CASE = CASES[1]


def slot(microseconds):
    return Slot(1000, 0, 0, cpu_seconds=microseconds / 1e3, seconds=0.05)


def rounds(*microseconds):
    """Rounds in which one case takes so many microseconds and all others 50."""
    return [dict.fromkeys(CASES, slot(50)) | {CASE: slot(one)} for one in microseconds]


def test_a_feature_is_compared_with_none_at_the_same_split():
    assert CASE.without == Case(NONE.name, CASE.local)
    assert CASE.without in CASES
    assert cost(rounds(55, 55, 60), CASE).median == pytest.approx(0.1)


def test_the_table_has_a_row_for_each_case_as_wide_as_its_header():
    header, *rows = table(rounds(55, 55, 60)).splitlines()
    assert len(rows) == len(CASES)
    assert {len(row) for row in rows} == {len(header)}
    assert "+10.0%" in rows[CASES.index(CASE)]


@pytest.mark.parametrize("number", [0, 1, 7])
def test_everyone_has_one_turn_in_a_round(number):
    assert sorted(turns(number)) == sorted(CASES)


@pytest.mark.parametrize("feature", FEATURES, ids=lambda feature: feature.name)
def test_each_feature_changes_something(feature):
    """Or what is measured is noise."""
    route = model_route(Upstreams(("127.0.0.2", "127.0.0.3", "127.0.0.4"), "127.0.0.5"), 100)
    assert (feature.route(route), feature.settings(EnvoySettings())) != (route, EnvoySettings())
