"""The metrics of the loads that Envoys report."""

from prometheus_client import CollectorRegistry

from tests.support.loads import BACKEND, hears, serves, to_backend, to_local
from tests.support.routes import A, B
from xds_server.loads.loads import Loads
from xds_server.loads.metrics import LoadMetrics
from xds_server.stream.load_reporting.wire import LoadStream


class Asked:
    def __init__(self, now=1.0, **how):
        self.loads = Loads()
        for model in (A, B):
            serves(self.loads, model, **how)
        self.now = now
        self.registry = CollectorRegistry()
        self.connected = {"one"}
        LoadMetrics(self.registry, self.loads, lambda: self.now, lambda: self.connected)

    def heard(self, *clusters, at=1.0):
        hears(self.loads, LoadStream("one", 1.0), clusters, at)

    def value(self, name, side="local", **labels):
        return self.registry.get_sample_value(name, {"namespace": "default", "name": "a", "side": side, **labels})


def test_requests_by_side_and_by_how_they_ended():
    asked = Asked()
    asked.heard(to_local(A, sent=5, ok=3, bad=1, now=1))
    asked.heard(to_local(A, sent=1, ok=1, now=1))
    assert asked.value("beamlit_model_requests_issued_total") == 6
    assert asked.value("beamlit_model_requests_total", outcome="succeeded") == 4
    assert asked.value("beamlit_model_requests_total", outcome="failed") == 1
    assert asked.value("beamlit_model_requests_in_flight") == 1
    assert asked.value("beamlit_model_requests_issued_total", side="remote") == 0


def test_what_is_unknown_has_no_sample():
    asked = Asked()
    assert asked.value("beamlit_model_requests_in_flight") is None
    asked.heard(to_local(A))
    assert asked.value("beamlit_model_requests_in_flight") == 0
    asked.now = 100.0
    assert asked.value("beamlit_model_requests_in_flight") is None


def test_while_one_that_is_connected_never_said_anything_what_is_in_flight_is_unknown():
    asked = Asked()
    asked.heard(to_local(A, sent=1, now=1))
    asked.connected = {"one", "two"}
    assert asked.value("beamlit_model_requests_in_flight") is None
    assert asked.value("beamlit_model_requests_issued_total") == 1
    asked.connected = {"one"}
    assert asked.value("beamlit_model_requests_in_flight") == 1


def test_how_many_envoys_say_nothing_is_known_beside_what_the_others_say():
    asked = Asked()

    def silent():
        return asked.registry.get_sample_value("beamlit_xds_envoys_silent")

    assert silent() == 1
    asked.heard(to_local(A))
    assert silent() == 0
    asked.connected = {"one", "two"}
    assert silent() == 1
    # One that went on reporting, and stopped, is one whether it is still connected or not.
    asked.now, asked.connected = 100.0, set()
    assert silent() == 1
    asked.loads.stream_ended(LoadStream("one", 1.0), 100.0)
    assert silent() == 0


def test_of_a_model_there_is_all_that_is_in_flight_or_nothing():
    """Who adds up both sides would take the one that is known for the whole."""
    asked = Asked(away=50)
    asked.heard(to_local(A, sent=4, now=4), to_local(B), to_backend(sent=3, now=3))
    assert asked.value("beamlit_model_requests_issued_total") == 4
    assert asked.value("beamlit_model_requests_in_flight") is None
    # The other one stays local, so whose they are is known.
    serves(asked.loads, B, away=0)
    asked.heard(to_local(A, now=4), to_local(B), to_backend(now=3))
    assert asked.value("beamlit_model_requests_in_flight") == 4
    assert asked.value("beamlit_model_requests_in_flight", side="remote") == 3


def test_what_models_share_is_counted_for_their_backend():
    asked = Asked(away=50)
    asked.heard(to_local(A), to_local(B), to_backend(sent=3, ok=2, bad=1))
    labels = {"backend": BACKEND, "outcome": "failed"}
    assert asked.registry.get_sample_value("beamlit_backend_requests_total", labels) == 1
    assert asked.value("beamlit_model_requests_in_flight", side="remote") is None
    assert asked.value("beamlit_model_requests_issued_total", side="remote") is None
