"""What arrives fits what is to be shown."""

from itertools import pairwise

import pytest

from demo.manifests import PLACES
from demo.timeline import Plan, arrivals, demand_of, plan
from tests.support.load import azure_code_trace, most
from tests.support.processes import ROOT

CAPACITY = 3 * PLACES


@pytest.fixture(scope="module", params=[1.0, 0.5])
def planned(request: pytest.FixtureRequest) -> Plan:
    return plan(azure_code_trace(), request.param)


def test_the_order_of_events(planned):
    assert 0 < planned.burst < planned.kill < planned.revive < planned.full < planned.end <= 60
    assert all(earlier.at <= later.at for earlier, later in pairwise(planned.requests))
    assert planned.requests[-1].at < planned.end


def test_the_calm_is_well_below_capacity_and_the_burst_far_above(planned):
    demand = demand_of(planned.requests)
    assert most(demand, 0, planned.burst - 0.1) <= 0.6 * CAPACITY
    assert most(demand, planned.burst, planned.kill) > 2 * CAPACITY


def test_the_servers_are_killed_under_load(planned):
    demand = demand_of(planned.requests)
    assert most(demand, planned.kill, planned.kill + 3) >= CAPACITY / 2
    assert most(demand, planned.full, planned.full + 3) > CAPACITY


def test_the_readme_says_how_many_there_are():
    assert len(plan(azure_code_trace()).requests) == 1512
    assert "0 of 1512 requests failed" in (ROOT / "README.md").read_text()


def test_what_follows_the_return_waits_for_it(planned):
    assert tuple(arrivals(planned, lambda: True)) == planned.requests

    waits = iter([False] * 1000)
    late = list(arrivals(planned, lambda: next(waits, True)))
    added = len(late) - len(planned.requests)
    assert 400 < added < 1000
    assert all(earlier.at <= later.at for earlier, later in pairwise(late))
    before = sum(one.at < planned.full for one in planned.requests)
    assert tuple(late[:before]) == planned.requests[:before]
    behind = late[-1].at - planned.requests[-1].at
    assert [one.at - behind for one in late[before + added :]] == pytest.approx(
        [one.at for one in planned.requests[before:]]
    )
    # As busy as the return, however often.
    lasts = planned.full - planned.revive
    returned = sum(planned.revive <= one.at < planned.full for one in planned.requests)
    assert added / behind == pytest.approx(returned / lasts, rel=0.1)


def test_a_shorter_plan_is_as_busy():
    whole, half = plan(azure_code_trace()), plan(azure_code_trace(), 0.5)
    assert half.end == whole.end / 2
    assert half.requests[:30] == whole.requests[:30]
