"""Every line of the state table in the docstring of the protocol, played by a delta client."""

import re

import pytest
from scripted import DeltaScript, cluster, endpoints, route

from xds_server.snapshot.snapshot import CLUSTER, ENDPOINT, ROUTE, ResourceKey
from xds_server.stream import protocol

RULE = re.compile(r"^(=+)  (=+)  (=+)  (=+)$", re.MULTILINE)


def table():
    """The lines between the second and the third rule: state, event, next state, what is sent."""
    _, above, below = RULE.finditer(protocol.__doc__)
    start = above.start()
    columns = [slice(above.start(column) - start, above.end(column) - start) for column in (1, 2, 3, 4)]
    lines = protocol.__doc__[above.end() + 1 : below.start()].splitlines()
    return [tuple(line[column].strip() for column in columns) for line in lines]


class Life(DeltaScript):
    """A client that tells in which state a resource is, from what anybody can see: what it said and was sent."""

    def __init__(self, key, *resources):
        super().__init__(*resources)
        self.key = key
        self.waits = {}  # by type: the response that is not answered
        self.wanted = False
        self.doubted = False
        self.versions = {one.version for one in resources if one.key == key}

    def publish(self, *upserts, removed=()):
        self.versions |= {one.version for one in upserts if one.key == self.key}
        return super().publish(*upserts, removed=removed)

    def ask(self, type_url, *subscribe, **more):
        if type_url == self.key.type_url:
            self.versions |= set(more.get("claimed", {}).values())
            self.wanted |= bool({self.key.name, "*"} & set(subscribe))
            self.wanted &= self.key.name not in more.get("unsubscribe", ())
        response = self.waits.get(type_url)
        if response is not None and response.nonce == more.get("nonce"):
            del self.waits[type_url]
            if type_url == self.key.type_url:
                self.doubted = "error" in more and self.brings(response)
        return super().ask(type_url, *subscribe, **more)

    def _step(self, output):
        responses = super()._step(output)
        self.waits |= {response.type_url: response for response in responses}
        return responses

    def brings(self, response):
        return self.key in {one.key for one in response.resources}

    def answer(self, type_url=None, **more):
        """ACK the response of a type that waits for it."""
        response = self.waits[type_url or self.key.type_url]
        return self.ack(response, **more)

    def refuse(self, message, type_url=None):
        return self.nack(self.waits[type_url or self.key.type_url], message)

    def has(self, *types):
        """Ask for everything of these types and ACK it."""
        for type_url in types:
            self.ask(type_url, "*")
            while type_url in self.waits:
                self.answer(type_url)
        return self

    @property
    def state(self):
        response = self.waits.get(self.key.type_url)
        current = self.snapshot.find(self.key)
        if not self.wanted:
            return "unwanted"
        if response is not None and self.brings(response):
            return "sent"
        if response is not None and self.key.name in response.removed:
            return "removing"
        if self.key in {one.key for one in self.session.rejections}:
            return "refused"
        if current is not None and self.session.holds(self.key, current.version):
            return "acknowledged"
        has_another = any(self.session.holds(self.key, version) for version in self.versions)
        if current is None:
            return "leaving" if has_another else "absent"
        if response is not None and not self.doubted:
            return "pending"
        if response is not None:
            return "doubtful"
        return "waiting" if self.output.wake_at is not None else "withheld"

    @property
    def sent(self):
        """What the last step sent of the resource."""
        for response in self.output.responses:
            if self.brings(response):
                return "the resource"
            if response.type_url == self.key.type_url and self.key.name in response.removed:
                return "its name"
        return "nothing"


A, A2, B, C = endpoints("a"), endpoints("a", "2"), endpoints("b"), endpoints("c")
R = route("r")
PLAYS = {}


def play(state, event):
    """Register a generator that brings a client into the state and yields it, then lets the event happen."""

    def register(generator):
        PLAYS[state, event] = generator
        return generator

    return register


# unwanted


@play("unwanted", "it is subscribed to and exists")
def _():
    yield (client := Life(A.key, A))
    client.ask(ENDPOINT, "a")


@play("unwanted", "it is subscribed to and does not exist")
def _():
    yield (client := Life(A.key))
    client.ask(ENDPOINT, "a")


@play("unwanted", "it is created")
def _():
    client = Life(A.key, B)
    client.ask(ENDPOINT, "b")
    client.answer()
    yield client
    client.publish(A)


@play("unwanted", "the client claims the current version")
def _():
    yield (client := Life(A.key, A))
    client.ask(ENDPOINT, "a", claimed={"a": A.version})


@play("unwanted", "the client claims another version")
def _():
    yield (client := Life(A.key, A))
    client.ask(ENDPOINT, "a", claimed={"a": "another"})


@play("unwanted", "the client claims what is gone")
def _():
    yield (client := Life(A.key))
    client.ask(ENDPOINT, "a", claimed={"a": A.version})


# sent


def sent(*others):
    client = Life(A.key, A, *others)
    client.ask(ENDPOINT, "a", *(one.key.name for one in others))
    return client


@play("pending", "ACK of the response before")
def _():
    client = sent()
    client.answer()
    client.ask(ENDPOINT, "b")
    client.publish(A2)
    yield client
    client.answer()


@play("sent", "ACK")
def _():
    yield (client := sent())
    client.answer()


@play("sent", "NACK that blames it")
def _():
    yield (client := sent(B))
    client.refuse("a is bad")


@play("sent", "NACK that blames another")
def _():
    yield (client := sent(B))
    client.refuse("b is bad")


@play("sent", "NACK that blames nobody, its half is first")
def _():
    yield (client := sent(B))
    client.refuse("bad")


@play("sent", "NACK that blames nobody, its half is last")
def _():
    client = Life(B.key, A, B)
    client.ask(ENDPOINT, "a", "b")
    yield client
    client.refuse("bad")


@play("sent", "the content changes")
def _():
    yield (client := sent())
    client.publish(A2)


@play("sent", "ACK after the content changed")
def _():
    client = sent()
    client.publish(A2)
    yield client
    client.answer()


@play("sent", "a request with an old nonce")
def _():
    yield (client := sent())
    client.ask(ENDPOINT, nonce="old")


@play("sent", "it is unsubscribed from")
def _():
    yield (client := sent())
    client.ask(ENDPOINT, unsubscribe=("a",))


# doubtful


def doubtful():
    client = Life(B.key, A, B)
    client.ask(ENDPOINT, "a", "b")
    client.refuse("bad")
    return client


@play("doubtful", "ACK of the other half")
def _():
    yield (client := doubtful())
    client.answer()


@play("doubtful", "ACK of the other half after it was deleted")
def _():
    yield (client := doubtful())
    client.publish(removed=[B])
    client.answer()


# acknowledged


def acknowledged():
    client = sent()
    client.answer()
    return client


@play("acknowledged", "the content changes")
def _():
    yield (client := acknowledged())
    client.publish(A2)


@play("acknowledged", "it is subscribed to once more")
def _():
    yield (client := acknowledged())
    client.ask(ENDPOINT, "a")


@play("acknowledged", "it is unsubscribed from")
def _():
    yield (client := acknowledged())
    client.ask(ENDPOINT, unsubscribe=("a",))


@play("acknowledged", "it is deleted and nothing requires it")
def _():
    yield (client := acknowledged())
    client.publish(removed=[A])


@play("acknowledged", "it is deleted and something requires it")
def _():
    yield (client := required())
    client.publish(removed=[client.key])


def required():
    """A client of a cluster that its route requires."""
    return Life(ResourceKey(CLUSTER, "c"), cluster("c"), endpoints("c"), route("r", "c")).has(CLUSTER, ENDPOINT, ROUTE)


# waiting and withheld


def routed():
    return Life(R.key, R).has(CLUSTER, ENDPOINT, ROUTE)


def waiting():
    """The route requires a cluster that the client was sent, and its endpoints, which it will be sent."""
    client = routed()
    client.publish(cluster("c"), C, route("r", "c"))
    client.answer(ENDPOINT)
    return client


@play("acknowledged", "it changes and requires what is to come")
def _():
    yield (client := routed())
    client.publish(cluster("c"), C, route("r", "c"))


@play("waiting", "what it requires is ACKed")
def _():
    yield (client := waiting())
    client.answer(CLUSTER)


@play("waiting", "the wait is over")
def _():
    yield (client := waiting())
    client.after(5)


@play("waiting", "what it requires is refused")
def _():
    yield (client := waiting())
    client.refuse("bad", CLUSTER)


def withheld():
    client = waiting()
    client.refuse("bad", CLUSTER)
    return client


@play("withheld", "a long time passes")
def _():
    yield (client := withheld())
    client.after(1000)


@play("withheld", "what it requires is mended and ACKed")
def _():
    yield (client := withheld())
    client.publish(cluster("c", "2"))
    if ENDPOINT in client.waits:
        client.answer(ENDPOINT)
    client.answer(CLUSTER)


# refused


def refused():
    client = acknowledged()
    client.publish(A2)
    client.refuse("bad")
    return client


@play("refused", "a long time passes")
def _():
    yield (client := refused())
    client.after(1000)


@play("refused", "the same content is published")
def _():
    yield (client := refused())
    client.publish(A2)


@play("refused", "the content changes")
def _():
    yield (client := refused())
    client.publish(endpoints("a", "3"))


@play("refused", "the last good content is published")
def _():
    yield (client := refused())
    client.publish(A)


@play("refused", "it is deleted")
def _():
    yield (client := refused())
    client.publish(removed=[A])


# leaving, removing and absent


def leaving():
    client = required()
    client.publish(removed=[client.key])
    return client


@play("leaving", "the last that requires it is gone")
def _():
    client = leaving()
    client.publish(R)
    yield client
    client.answer(ROUTE)


@play("leaving", "it is created again as it was")
def _():
    yield (client := leaving())
    client.publish(cluster("c"))


def removing():
    client = acknowledged()
    client.publish(removed=[A])
    return client


@play("removing", "ACK")
def _():
    yield (client := removing())
    client.answer()


@play("removing", "it is created")
def _():
    yield (client := removing())
    client.publish(A)


@play("removing", "ACK after it was created")
def _():
    client = removing()
    client.publish(A)
    yield client
    client.answer()


def absent():
    client = removing()
    client.answer()
    return client


@play("absent", "it is created")
def _():
    yield (client := absent())
    client.publish(A)


@play("absent", "it is created behind another response")
def _():
    client = absent()
    client.ask(ENDPOINT, "b")
    yield client
    client.publish(A)


@play("absent", "it is subscribed to once more")
def _():
    yield (client := absent())
    client.ask(ENDPOINT, "a")


@play("absent", "it is unsubscribed from")
def _():
    yield (client := absent())
    client.ask(ENDPOINT, unsubscribe=("a",))


@pytest.mark.parametrize(("state", "event", "following", "what"), table())
def test_every_line_of_the_state_table(state, event, following, what):
    steps = PLAYS[state, event]()
    client = next(steps)
    assert client.state == state
    assert next(steps, None) is None
    assert (client.state, client.sent) == (following, what)


def test_every_play_is_in_the_table():
    assert set(PLAYS) == {(state, event) for state, event, _, _ in table()}
