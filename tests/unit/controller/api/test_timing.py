"""The real times of the product. A change of one is a change here, and a reason for it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass

import pytest

from controller.api.timing import Limits, RateLimit, Timing

REAL = {
    "lease.lease": (15, "client-go's leader election: a leader that died is followed within as long"),
    "lease.renew_deadline": (10, "client-go's: it gives up before anybody else may begin"),
    "lease.renew_every": (2, "client-go's: several renewals may fail before the deadline"),
    "lease.look_every": (0.5, "a lease that was given back is taken at once, as far as people can tell"),
    "lease.request": (5, "within the deadline there is time for a second request"),
    "lease.release": (1, "a program that ends does not wait for an API server that is away"),
    "lease.renewed_within": (5, "more than twice as long as a leader takes, and somebody waits for it"),
    "writes.routes": (RateLimit(200, 400), "traffic waits for these"),
    "writes.others": (RateLimit(50, 100), "people wait for these, and no more than the API server bears with ease"),
    "writes.route_of_one": (RateLimit(10, 10), "a model that flaps takes nothing from the others"),
    "writes.words_of_one": (1, "nobody reads faster"),
    "writes.numbers_of_one": (RateLimit(1 / 15, 4), "as often as metrics are collected, after a few that go at once"),
    "writes.at_once": (8, "writes under way"),
    "writes.reserved_for_routes": (2, "what traffic waits for never stands behind what people read"),
    "statuses.comes_back_within": (2, "a write comes back through the watch in milliseconds"),
    "statuses.first_rest": (1, "what failed once may well work now"),
    "statuses.longest_rest": (300, "what is refused for minutes will be refused for some more"),
    "statuses.longest_rest_while_away": (15, "when the store is back, nobody shall wait for minutes"),
    "statuses.answered_within": (1, "a program that ends does not wait for an API server that is away"),
    "statuses.loads_looked_at_every": (1, "reports grow old, also when none comes"),
    "statuses.loads_apart": (0.1, "a tenth of what lies between two reports of an Envoy"),
    "statuses.split_followed_within": (2, "a split is written, sent and reported on within a second"),
    "statuses.rival_answers_within": (60, "a controller at work corrects a status within seconds"),
    "statuses.yields_for": (600, "another installation may be gone by then, and two writes in it cost nothing"),
    "events.write": (5, "nothing waits for an event"),
    "events.flush": (1, "a program that ends does not wait for events"),
    "events.window": (600, "client-go's event correlator: similar events within ten minutes are a series"),
    "events.update_every": (10, "a count is read by people"),
    "events.refill": (300, "client-go's: an object that told all it may has one more write in five minutes"),
    "events.first_retry": (2, "five attempts take half a minute"),
    "reports.told_for": (86_400, "as long as a connection of an Envoy lasts"),
    "reports.reported_every": (0.5, "half of what lies between two reports of an Envoy"),
    "reports.alive_within": (6, "a dozen signs of life are missing"),
    "reports.awaited": (10, "an Envoy that lost its server tries every five seconds, and reports within two more"),
    "reports.old_after": (3, "three reports of an Envoy are missing"),
    "reports.window": (10, "a rate is steady enough, and follows a burst"),
    "reports.loop_believed": (60, "who asks the gateway as its own remote backend again finds the same, once a minute"),
    "reports.gathering": (0.05, "acknowledgements of many Envoys are told together, and soon"),
    "reports.connect": (2, "a replica is in the same cluster"),
    "reports.pause": (0.2, "a stream that ends as soon as it begins is no reason to spin"),
    "reports.first_retry": (0.2, "a replica that restarts is there soon"),
    "reports.longest_retry": (3, "one that is back is heard before its last word is forgotten"),
    "reports.forget_after": (10, "the Envoys of a replica that is away are with another one by then"),
    "reports.envoys_away": (10, "as long as Envoys may be on their way to another replica"),
    "reports.stall": (30.0, "who reads nothing is cut off, as on the xDS port"),
    "folder.quiet": (0.1, "an editor writes a file at once"),
    "folder.together": (0.5, "what moves between files is seen at once, however many are written"),
    "folder.losing": (0.4, "a file that lost an object may be half saved"),
    "folder.emptied": (1, "editors truncate before they write"),
    "folder.look_again": (0.03, "a look at a folder costs a millisecond"),
    "folder.first_list": (2, "a file that never comes to rest stops nothing"),
    "folder.relist": (2, "reports may be missed: links, network file systems"),
    "folder.relist_unaided": (0.3, "without reports it is the looks alone that see a change"),
    "folder.save_pause": (0.2, "changes that come close together are written once"),
    "folder.save_pause_after_failure": (5, "a full disk does not get better by trying at once"),
    "kube.connect": (5, "an API server that is there accepts long before"),
    "kube.answer": (30, "the API server's own limit is a minute"),
    "kube.silence": (90, "a bookmark comes about once a minute (KEP-956)"),
    "kube.patience": (20, "whoever asked shall know within a minute"),
    "kube.first_retry": (0.2, "a connection that failed may well work now"),
    "kube.longest_retry": (5, "within the patience there are several tries"),
    "kube.credentials": (60, "an exec plugin may ask its cloud"),
    "kube.shortest_watch": (240, "a watch costs nothing while it lasts"),
    "kube.longest_watch": (480, "spread, so that not all of them end together"),
    "kube.no_watch": (1, "a watch that ends sooner and without an event is no better than none"),
    "kube.first_relist": (0.25, "an API server that restarts is there soon"),
    "kube.longest_relist": (10, "so late is known what changed while the API server was away"),
    "kube.second_look": (10, "an etcd that came back without its data is noticed by then"),
    "streams.make_before_break": (5, "an Envoy that never acknowledges shall not be left behind (X44)"),
    "streams.settle": (1, "an Envoy that comes back names what it has in one go"),
    "streams.handshake": (5, "who connects to be served says so at once"),
    "streams.unused": (60, "who has something to ask opens another connection"),
    "streams.connection": (86_400, "a certificate ends a day late at most, and an Envoy connects anew once a day"),
    "streams.connection_end": (30, "Envoy ends no stream by itself, and loses nothing by an end"),
    "streams.turn": (300, "when a thousand join, the last of them has to wait"),
    "streams.first_word": (10, "whoever has something to ask says so at once"),
    "streams.stall": (30, "a client that reads nothing for so long is not there (X49)"),
    "streams.token_rest": (1, "an API server that is away is asked no more for it, and who waits may come again soon"),
    "streams.loads_every": (1, "a burst is seen, for one message a second"),
    "streams.keepalive_every": (30, "a connection that died without a word is noticed"),
    "streams.keepalive_answer": (10, "a ping is answered at once, also by a busy client"),
    "gateway.first_snapshot": (5, "the controller starts, too"),
    "gateway.vacated": (5, "who gets the port next is decided, written and translated by then"),
    "gateway.departed": (5, "a request on its way to what departed has learnt by then that nobody accepts it"),
    "gateway.resized_every": (1, "a gateway that rolls costs each model one route a second"),
    "gateway.headers_within": (10, "60 KiB take so long on a line of 50 kbit/s"),
    "gateway.handshake_within": (10, "as long as headers may take"),
    "gateway.unused_by_clients": (3600, "who sends requests lets go of a connection first, or a request is lost"),
    "gateway.keepalive_after": (60, "load balancers forget a silent connection after four minutes or more"),
    "gateway.keepalive_every": (20, "of six questions one is answered, if anybody is there"),
    "gateway.keepalive_answer": (120, "a network may be away for a minute"),
    "gateway.connect_near": (0.25, "replicas are near"),
    "gateway.connect_far": (2, "a remote backend may be on another continent"),
    "gateway.unused_near": (1.5, "a replica closes a connection after two seconds or more"),
    "gateway.unused_far": (4, "most servers close one after five seconds or more"),
    "gateway.check_near_every": (1, "a replica that hangs is found within two checks"),
    "gateway.check_near_on_its_way": (1, "the kubelet asks from the same host, an Envoy from another one"),
    "gateway.check_near_unused_within": (5, "what the kubelet calls ready is wanted soon, however many Envoys ask"),
    "gateway.check_near_without_traffic_within": (60, "a replica that is probed once a day is believed today"),
    "gateway.check_token_endpoint_every": (60, "it is asked where it is, and its address does not change by itself"),
    "gateway.check_far_every": (5, "somebody else's server is not asked every second while it is well"),
    "gateway.check_again_within": (1, "what came back is wanted soon"),
    "gateway.longest_check": (5, "a check ends before the next one begins"),
    "gateway.outliers_every": (0.5, "an ejection ends at most so much late"),
    "gateway.first_ejection": (1, "soon enough for a mishap"),
    "gateway.longest_ejection": (10, "seldom enough for what goes on failing"),
    "gateway.remote_not_believed": (0.25, "with the next look at outliers that is half a second (docs/adr/0006)"),
    "gateway.token_answer": (5, "until there is a token everything is answered locally"),
    "gateway.token_retry": (1, "the least that Envoy takes"),
    "checks.least_interval": (5, "the gateway's own checks are sooner; these are for the status"),
    "checks.in_doubt": (1, "the next check decides, so it comes soon"),
    "checks.assessed_every": (5, "a judgement of the traffic is no older than that"),
    "checks.ejection": (30, "Envoy's base_ejection_time"),
    "checks.longest_ejection": (300, "Envoy's max_ejection_time"),
    "checks.ejections_forgotten": (600, "twice the longest: it was tried in between, and well for minutes"),
    "checks.answers_believed": (60, "a backend that gets few requests was answered one in that time"),
    "checks.secret_taken": (2, "Envoys are told within a moment, and few requests take longer to fail"),
    "checks.longest": (5, "whatever a check meets, it has ended by then"),
    "checks.connect": (2, "as long as Envoy's clusters wait"),
    "checks.first_token_pause": (10, "a token endpoint that fails is left alone for a while"),
    "checks.longest_token_pause": (300, "a secret that was mended is noticed within five minutes"),
    "checks.longest_token_life": (24 * 3600, "what a token endpoint says is not believed without end"),
    "envoy.ends_within": (5, "it was drained by then"),
    "envoy.ran_for_a_while": (30, "one that ends after that did start"),
    "envoy.first_restart": (0.5, "an Envoy that ended is missed at once"),
    "envoy.longest_restart": (10, "one that cannot start is not started all the time"),
    "envoy.readiness_every": (0.5, "more often than a readiness probe asks"),
    "envoy.answers_within": (5, "its main thread may be busy with a large configuration"),
    "envoy.drain_looks_every": (0.25, "three quiet looks are less than a second"),
    "envoy.drain_logged_every": (5, "somebody reads the log"),
    "signals.kubernetes.every": (5, "metrics-server has a new number every fifteen seconds, an adapter as rarely"),
    "signals.prometheus.every": (5, "a Prometheus scrapes every five to sixty seconds"),
    "signals.scrape.every": (1, "what replicas say is of now"),
    "signals.pods.every": (10, "what pods request changes rarely, and metrics of a pod come fifteen seconds after it"),
    "signals.sample_old_after": (
        180,
        "a metrics-server that measures once a minute answers with what is up to 90 s old",
    ),
    "signals.discovery": (300, "an API that is installed in another version is found within minutes"),
    **{
        f"signals.{name}.{field}": value
        for name in ("kubernetes", "pods", "prometheus", "scrape")
        for field, value in {
            "answer": (5, "what takes longer is no answer in time for the next"),
            "longest_pause": (30, "a source that is back is asked within half a minute"),
            "old_after": (90, "as long as the slowest source takes for a few new numbers"),
            "forget_after": (120, "longer than any pause, so that nothing is forgotten that is only asked rarely"),
            "least_pause": (0.05, "who begins to ask for many things is answered in one round"),
            "at_once": (10, "a source bears it with ease"),
            "a_second": (200, "what an API server bears with ease"),
            "told_again_after": (15, "what is the same as before grows old no faster than metrics are collected"),
            "most_keys": (10_000, "what is remembered of a cluster's worth of models"),
        }.items()
    },
    "signals.scrape.answer": (2, "it is asked again in a second"),
    "signals.scrape.old_after": (10, "a number of ten seconds ago is not of now"),
    "signals.scrape.longest_pause": (10, "replicas that are back are asked before anybody misses them"),
    "signals.scrape.a_second": (300, "with three replicas each and pages of 100 KiB, a third of a core"),
    "signals.scrape.at_once": (100, "each is asked of another model's replicas, and some of them hang"),
    "inspection.answer": (10, "an API server that takes longer is one of the things that are wrong"),
    "inspection.whole": (60, "somebody is looking at it"),
    "inspection.first_pause": (2, "somebody waits for it"),
    "inspection.longest_pause": (10, "a look asks for a hundred things, and others have work for the API server, too"),
    "takeover.kube_proxy_within": (2, "kube-proxy gathers changes for a second"),
    "takeover.gateway_steady_for": (2, "a gateway that has just become ready may not stay so"),
    "takeover.others_act_after": (3, "who leads does it in milliseconds, and a new leader is there in seconds"),
    "takeover.turns_within": (600, "a rollout of the controller, in which two configurations run, is over by then"),
    "takeover.resets_tolerated": (5, "an upgrade or two are no quarrel"),
    "takeover.resets_within": (3600, "tools that reconcile do so every few minutes"),
    "takeover.written_again_after": (1, "a write comes back through the watch in milliseconds"),
    "takeover.first_rest": (0.5, "what failed once may well work now"),
    "takeover.longest_rest": (30, "somebody waits who has just given the right"),
    "takeover.at_once": (16, "writes under way, twice as many as of statuses"),
    "takeover.of_one_namespace": (8, "half of them: one whose writes are slow keeps nobody else waiting"),
    "shutdown": (1, "Envoys join another replica at once"),
    "certificates_looked_at_every": (600, "they hold for weeks"),
    "certificates_tried_again": (5, "programs wait for the first ones"),
    "files_looked_at_every": (5, "the kubelet renews a file once a minute"),
    "status_answer": (5, "somebody is looking at it"),
    "status_looked_at_every": (0.5, "somebody waits for it"),
}


def leaves(value: object, path: str = "") -> Iterator[tuple[str, object]]:
    """The name and value of each time; a rate is one."""
    for one in fields(value):  # type: ignore[arg-type]
        name, found = f"{path}{one.name}", getattr(value, one.name)
        if is_dataclass(found) and not isinstance(found, RateLimit):
            yield from leaves(found, f"{name}.")
        else:
            yield name, found


def test_every_time_is_in_the_table():
    assert dict(leaves(Timing())).keys() == REAL.keys()


@pytest.mark.parametrize(("name", "value", "why"), [(name, *one) for name, one in REAL.items()])
def test_the_real_time(name, value, why):
    assert dict(leaves(Timing()))[name] == value, why


T = Timing()


@pytest.mark.parametrize(
    ("shorter", "longer", "why"),
    [
        (T.lease.renew_deadline, T.lease.lease, "a leader gives up before another one may begin"),
        (T.lease.renew_every, T.lease.renew_deadline, "it renews before it has to give up"),
        (2 * T.lease.renew_every, T.lease.renewed_within, "one renewal may fail before a leader is taken for gone"),
        (T.lease.request, T.lease.renew_deadline - T.lease.renew_every, "one renewal that hangs costs no leadership"),
        (T.lease.release, T.lease.lease, "to give a lease back is quicker than to let it expire"),
        (T.gateway.connect_far, T.gateway.departed, "what departs outlives the longest way to it"),
        (T.gateway.connect_near + T.gateway.connect_far, T.gateway.departed, "and that of a retry"),
        (T.gateway.connect_far, T.gateway.check_far_every, "a check has connected before the next begins"),
        (T.gateway.outliers_every, T.gateway.first_ejection, "an ejection ends about when it should"),
        (T.gateway.first_ejection, T.gateway.longest_ejection, "they grow"),
        (T.gateway.remote_not_believed, T.gateway.outliers_every, "the next look at outliers ends it"),
        (T.gateway.check_again_within, T.gateway.check_far_every, "what is down is checked more often"),
        (T.checks.connect, T.checks.longest, "a check that cannot connect says so before its time is up"),
        (T.checks.in_doubt, T.checks.least_interval, "a doubt is settled before the next turn"),
        (T.checks.first_token_pause, T.checks.longest_token_pause, "they grow"),
        (T.checks.assessed_every, T.reports.window, "a judgement looks at answers that the last one has seen, too"),
        (T.streams.loads_every, T.reports.old_after, "a late report says something yet"),
        (T.statuses.loads_apart, T.streams.loads_every, "every report of an Envoy is looked at before the next"),
        (T.statuses.loads_apart, T.statuses.loads_looked_at_every, "what was told is looked at sooner"),
        (T.reports.gathering, T.reports.reported_every, "what is gathered is told in the same turn"),
        (T.reports.reported_every, T.reports.alive_within, "a replica that lives says so in time"),
        (T.reports.longest_retry + T.reports.connect, T.reports.forget_after, "one try more before it is forgotten"),
        (T.reports.old_after, T.reports.awaited, "what is missing is waited for"),
        (T.reports.old_after, T.reports.window, "a rate is known before what it is of is old"),
        (T.statuses.first_rest, T.statuses.longest_rest_while_away, "they grow"),
        (T.statuses.longest_rest_while_away, T.statuses.longest_rest, "an absence is shorter than a refusal"),
        (T.events.write, T.events.update_every, "a write has ended before the next is due"),
        (T.folder.look_again, T.folder.quiet, "a file is seen to rest"),
        (T.folder.quiet, T.folder.losing, "what would delete is believed later than what would not"),
        (T.folder.losing, T.folder.emptied, "and what would delete everything last"),
        (T.folder.quiet, T.folder.together, "files at rest wait for others"),
        (T.folder.emptied, T.folder.first_list, "the first list waits for whatever comes to rest"),
        (T.folder.relist_unaided, T.folder.relist, "without reports one looks more often"),
        (T.folder.save_pause, T.folder.save_pause_after_failure, "a failure is a reason to wait"),
        (T.kube.connect, T.kube.answer, "a request has time after it connected"),
        (60, T.kube.silence, "a bookmark is due before a watch is given up (KEP-956)"),
        (T.kube.silence, T.kube.shortest_watch, "a watch that died is noticed before it would end"),
        (T.kube.shortest_watch, T.kube.longest_watch, "they are spread"),
        (T.kube.longest_retry, T.kube.patience, "within the patience there are several tries"),
        (T.kube.patience + T.kube.answer, 60, "whoever asked knows within a minute"),
        (T.kube.first_relist, T.kube.longest_relist, "they grow"),
        (T.streams.settle, T.streams.make_before_break, "a client names what it has before anybody gives up on it"),
        (T.streams.keepalive_answer, T.streams.keepalive_every, "a ping has its answer before the next"),
        (T.envoy.first_restart, T.envoy.longest_restart, "they grow"),
        (T.envoy.longest_restart, T.envoy.ran_for_a_while, "one that ran for a while waited less than it ran"),
    ],
)
def test_what_must_end_first(shorter, longer, why):
    assert shorter < longer, why


def test_a_check_has_ended_when_the_next_begins():
    assert T.gateway.longest_check <= T.gateway.check_far_every
    assert T.checks.longest <= T.checks.least_interval


def test_what_the_status_says_of_a_backend_is_what_envoy_finds():
    assert (T.checks.connect, T.checks.longest) == (T.gateway.connect_far, T.gateway.longest_check)


def test_a_load_is_old_when_three_reports_are_missing():
    assert T.reports.old_after == 3 * T.streams.loads_every


def test_within_the_writes_under_way_there_is_room_for_both():
    assert 0 < Limits().reserved_for_routes < Limits().at_once
