"""What one side of an object got, over minutes, since the other one got something."""

from datetime import UTC, datetime, timedelta

import pytest

from controller.api.contract.reports import Count, LoadReport
from controller.decision import SentRequests
from controller.signals.fleet_loads import FleetLoads
from controller.store.objects import ObjectRef

MODEL = ObjectRef("ModelDeployment", "default", "a")
START = datetime(2026, 1, 1, tzinfo=UTC)


def at(seconds):
    return START + timedelta(seconds=seconds)


class Told:
    """A fleet whose Envoys say each second what they sent to each side; what is sent is a sum."""

    def __init__(self):
        self.loads, self._sums = FleetLoads(), {}

    def hear(self, second, local=0, remote=0, *, failed=0, node="one", began=0.0):
        sums = self._sums.setdefault((node, began), [0, 0, 0])
        for index, more in enumerate((local, remote, failed)):
            sums[index] += more
        counts = {"local": Count(sums[0]), "remote": Count(sums[1], 0, sums[2])}
        named = {f"model/default/a/{side}": count for side, count in counts.items()}
        self.loads.add_report(
            LoadReport(node=node, began=began, seconds=second - began, age=0.0, counts=named), at(second)
        )
        return self

    def goes_on(self, first, last, each=None, **sent):
        """Report from one second to another; of requests each time, or in each so manieth second."""
        for second in range(first, last + 1):
            self.hear(second, **(sent if each is None or second % each == 0 else {}))
        return self

    def run(self, now, since=-600):
        return self.loads.traffic(MODEL, ("remote",), at(since), at(now)).run


def test_what_one_side_got_alone_is_counted_over_minutes():
    told = Told().goes_on(1, 200, each=10, local=1)
    assert told.run(200) == SentRequests(20, 0, 191.0)
    assert told.loads.traffic(MODEL, ("remote",), at(-600), at(200)).total == 1


def test_it_begins_anew_with_each_request_at_the_other_side():
    told = Told().goes_on(1, 100, each=10, local=1).hear(101, remote=1)
    assert told.run(101) == SentRequests(0, 1, 1.0)
    told.goes_on(102, 200, each=10, local=1)
    assert told.run(200) == SentRequests(10, 0, 91.0)
    assert told.goes_on(201, 220, remote=2).run(220) == SentRequests(0, 40, 20.0)


def test_what_failed_at_a_side_was_not_sent_there():
    told = Told().goes_on(1, 200, each=10, local=1, remote=1, failed=1)
    assert told.run(200).local == 20
    assert told.run(200).remote == 0


def test_it_reaches_back_for_five_minutes_and_not_beyond_a_split():
    told = Told().goes_on(1, 1000, each=10, local=1)
    assert told.run(1000).local in (29, 30)
    assert told.run(1000, since=900).local in (9, 10)
    assert told.goes_on(1001, 1400).run(1400) == SentRequests(0, 0, 0.0)


def test_envoys_add_up_and_one_that_sends_there_is_enough():
    told = Told().goes_on(1, 100, each=10, local=1).goes_on(1, 100, each=10, local=1, node="two")
    assert told.run(100).local == 20
    assert told.hear(101, remote=1, node="two").run(101).local == 0


def test_nothing_is_known_where_nothing_was_heard_for_long_enough():
    told = Told()
    assert told.run(0) is None
    told.goes_on(1, 200)
    assert told.run(200) is None
    assert told.goes_on(201, 400).run(400) == SentRequests(0, 0, 0.0)


def test_the_past_of_a_stream_that_others_heard_says_nothing():
    """A controller that starts: what an Envoy counted until then may have been sent at any time."""
    told = Told().hear(3_600, local=50, remote=50).goes_on(3_601, 3_700, each=10, local=1)
    assert told.run(3_700).local == 10


def test_of_an_envoy_that_was_not_heard_for_long_it_is_known_that_it_sent_something():
    told = Told().goes_on(1, 100, each=10, local=1).hear(130, remote=1)
    assert told.run(130).local == 0


def test_of_many_requests_little_is_kept_and_enough_to_tell():
    told = Told().goes_on(1, 300, local=200)
    assert 1_375 <= told.run(300).local <= 4_000


@pytest.mark.parametrize("back", [5, 3_600])
def test_a_clock_that_is_set_back_is_survived(back):
    told = Told().goes_on(3_601, 3_700, each=10, local=1)
    assert told.run(3_700 - back) is None or not told.run(3_700 - back).remote


def test_a_model_that_is_gone_is_forgotten():
    told = Told().goes_on(1, 400, each=10, local=1)
    told.loads.forget(MODEL)
    assert told.run(400) == SentRequests(0, 0, 0.0)
