"""Whatever happens in whatever order: the client ends with the last snapshot and was never shown a gap on the way."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from scripted import DeltaScript, cluster, endpoints, listener, route

from xds_server.snapshot.snapshot import CLUSTER, ENDPOINT, LISTENER, ROUTE, Snapshot
from xds_server.stream.protocol.dialects import DeltaSession
from xds_server.stream.protocol.messages import ClientTerms, DeltaRequest, Response

NAMES = "abc"


@st.composite
def states(draw):
    """A consistent set of resources: some clusters with endpoints, and routes over those; some content is bad."""
    present = draw(st.sets(st.sampled_from(NAMES)))
    content = st.sampled_from(["1", "2", "bad"])
    resources = []
    for name in sorted(present):
        resources += [cluster(name, draw(content)), endpoints(name, draw(content))]
    for name in sorted(draw(st.sets(st.sampled_from(NAMES)))):
        targets = sorted(draw(st.sets(st.sampled_from(sorted(present)), min_size=1))) if present else []
        resources += [listener(name, draw(content)), route(name, *targets, content=draw(content))]
    return resources


def differing(one, other):
    """The keys that differ between two snapshots."""
    keys = {r.key for snapshot in (one, other) for resources in snapshot.by_type.values() for r in resources.values()}
    return {key for key in keys if one.find(key) != other.find(key)}


class EnvoyModel:
    """A client that behaves like Envoy: it applies what is good, refuses what is bad, asks for what it refers to."""

    def __init__(self, names_errors, long_requests):
        self.script = DeltaScript()
        self.had_all = None
        self.has = {t: {} for t in (CLUSTER, ENDPOINT, LISTENER, ROUTE)}
        self.asked = {ENDPOINT: set(), ROUTE: set()}
        self.inbox: list[Response] = []
        self.names_errors = names_errors
        # What it never had: `-` alone keeps a first request from asking for everything.
        self.gives_up = ("-",) * (2_001 if long_requests else 1)
        assert DeltaRequest(ENDPOINT, unsubscribe=self.gives_up).is_long == long_requests
        self.expired = 0
        for type_url in (CLUSTER, ENDPOINT, LISTENER, ROUTE):
            more = {"unsubscribe": self.gives_up} if type_url in self.asked else {}
            self.take(self.script.ask(type_url, **more))

    def take(self, responses):
        self.check_what_it_has()
        self.inbox += responses
        waiting = [r.type_url for r in self.inbox]
        assert len(waiting) == len(set(waiting)), "two responses of one type are not answered"
        self.expired += len(self.script.output.overdue)

    def answer(self, index):
        response = self.inbox.pop(index % len(self.inbox))
        held = self.has[response.type_url]
        bad = [r for r in response.resources if r.body.startswith(b"bad")]
        for resource in response.resources:
            wanted = self.asked.get(response.type_url)  # like Envoy, it ignores what it gave up meanwhile
            if resource not in bad and (wanted is None or resource.key.name in wanted):
                held[resource.key.name] = resource
                self.check_requirements(resource)
        for name in response.removed:
            held.pop(name, None)
            self.check_nothing_needs(response.type_url, name)
        if bad:
            message = "refused " + ", ".join(r.key.name for r in bad) if self.names_errors else "refused"
            self.take(self.script.nack(response, message))
        else:
            self.take(self.script.ack(response))
        for parent, child in ((CLUSTER, ENDPOINT), (LISTENER, ROUTE)):
            self.follow(parent, child)

    def follow(self, parent, child):
        wanted = set(self.has[parent])
        new, old = wanted - self.asked[child], self.asked[child] - wanted
        if new or old:
            self.asked[child] = wanted
            for name in old:
                self.has[child].pop(name, None)
            self.had_all = None
            self.take(self.script.ask(child, *sorted(new), unsubscribe=(*sorted(old), *self.gives_up)))

    def check_requirements(self, resource):
        if not self.expired and resource.key.type_url == ROUTE:
            for key in resource.requires:
                assert key.name in self.has[key.type_url], f"{resource.key} came before {key}"

    def check_nothing_needs(self, type_url, name):
        if type_url == CLUSTER and not self.expired:
            needed = {key.name for r in self.has[ROUTE].values() for key in r.requires if key.type_url == CLUSTER}
            assert name not in needed, f"{name} went while a route names it"

    def check_what_it_has(self):
        session, snapshot = self.script.session, self.script.snapshot
        everything = [one for resources in snapshot.by_type.values() for one in resources.values()]
        has_all = session.has_all(snapshot)
        if self.had_all is not None:
            assert session.has_all(snapshot, differing(self.had_all, snapshot)) == has_all
        if has_all:
            assert all(session.holds(one.key, one.version) for one in everything)
            self.had_all = snapshot

    def settle(self):
        for _ in range(500):
            if self.inbox:
                self.answer(0)
            elif self.script.output.wake_at is not None:
                self.script.now = max(self.script.now, self.script.output.wake_at)
                self.take(self.script.after(0))
            else:
                return
        raise AssertionError("does not come to rest")


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(states(), st.lists(st.integers(0, 3), max_size=6)), max_size=5),
    states(),
    st.booleans(),
    st.booleans(),
)
def test_any_sequence_converges_in_order(history, last, names_errors, long_requests):
    """Also where every request that names something is long: it is answered in a step of its own."""
    envoy = EnvoyModel(names_errors, long_requests)
    for state, answers in history:
        envoy.take(envoy.script.publish_only(*state))
        for index in answers:
            if envoy.inbox:
                envoy.answer(index)
    good = [r for r in last if not r.body.startswith(b"bad")]
    good_keys = {r.key for r in good}
    envoy.take(envoy.script.publish_only(*last))
    envoy.settle()
    final = Snapshot.of(last)
    for name, resource in final.by_type[CLUSTER].items():
        if resource in good:
            assert envoy.has[CLUSTER].get(name) == resource
    for type_url, parents in ((ENDPOINT, CLUSTER), (ROUTE, LISTENER)):
        for name in envoy.has[parents]:
            resource = final.by_type[type_url].get(name)
            reachable = resource is not None and resource.requires <= good_keys
            if resource in good and reachable:
                assert envoy.has[type_url].get(name) == resource
    rejected = {rejection.key for rejection in envoy.script.session.rejections}
    assert rejected.isdisjoint(r.key for r in good if r.requires <= good_keys)


TYPES = (CLUSTER, ENDPOINT, LISTENER, ROUTE)


def played(script, responses):
    """What is sent until nothing is left to be said, to a client that ACKs it."""
    return [(one.type_url, one.resources, set(one.removed) - {"none"}) for one in script.settle(responses)]


@settings(max_examples=80, deadline=None)
@given(states(), states(), st.permutations(TYPES))
def test_who_joins_gets_at_once_what_would_be_planned_name_by_name(first, last, types):
    """A name that does not exist has the other client's responses planned name by name."""
    at_once, by_name = DeltaScript(*first), DeltaScript(*first)
    gets = [response for one in types for response in at_once.ask(one, "*")]
    planned = [response for one in types for response in by_name.ask(one, "*", "none")]
    assert [one.resources for one in gets] == [one.resources for one in planned]
    assert played(at_once, gets) == played(by_name, planned)
    for one in first:
        assert at_once.session.holds(one.key, one.version)
    assert played(at_once, at_once.publish_only(*last)) == played(by_name, by_name.publish_only(*last))


@settings(max_examples=80, deadline=None)
@given(states(), states())
def test_who_comes_back_with_everything_is_as_if_it_had_never_gone(first, last):
    stayed, back = DeltaScript(*first), DeltaScript(*first)
    for type_url in TYPES:
        played(stayed, stayed.ask(type_url, "*"))
        claimed = {one.key.name: one.version for one in first if one.key.type_url == type_url}
        assert not any(resources for _, resources, _ in played(back, back.ask(type_url, "*", claimed=claimed)))
    assert played(back, back.publish_only(*last)) == played(stayed, stayed.publish_only(*last))


@settings(max_examples=80, deadline=None)
@given(states(), states(), states(), st.sets(st.sampled_from(TYPES)))
def test_who_says_what_another_client_said_is_served_as_if_it_were_the_first(had, first, last, named):
    """What the other client said afterwards changes nothing for it."""
    alone, other, same = (DeltaScript(*first) for _ in range(3))
    for script in (other, same):
        script.snapshot = other.snapshot
        script.session = DeltaSession(script.snapshot, ClientTerms(), 0.0)
    requests = []
    for type_url in TYPES:
        claimed = {one.key.name: one.version for one in had if one.key.type_url == type_url}
        wanted = ("none", *sorted(claimed)) if type_url in named else ("*",)
        requests.append(DeltaRequest(type_url, wanted, claimed=claimed, shared=True))

    def comes(script, shared):
        asked = (one if shared else replace(one, shared=False) for one in requests)
        return [said for one in asked for said in played(script, script.receive(one))]

    comes(other, shared=True)
    played(other, other.publish_only(*last))
    assert comes(same, shared=True) == comes(alone, shared=False)
    assert played(same, same.publish_only(*last)) == played(alone, alone.publish_only(*last))


@settings(max_examples=50, deadline=None)
@given(st.lists(states(), min_size=1, max_size=4), states())
def test_good_states_end_with_nothing_left_over(history, last):
    def mended(state):
        return [r for r in state if not r.body.startswith(b"bad")]

    envoy = EnvoyModel(True, long_requests=False)
    last = [r for r in mended(last) if r.key.type_url in (CLUSTER, LISTENER)]
    for state in history:
        envoy.take(envoy.script.publish_only(*state))
    envoy.take(envoy.script.publish_only(*last))
    envoy.settle()
    for type_url in (CLUSTER, LISTENER):
        assert envoy.has[type_url] == dict(Snapshot.of(last).by_type[type_url])
