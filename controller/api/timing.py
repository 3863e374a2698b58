"""The product's own times: how long it waits, how often it looks, how long it keeps what it has.

`Timing()` has the real ones, in seconds. A program is given one when it starts and hands each part to who needs it.
Nobody who runs the product sets them; a test of an order of events gives short ones. What a user may set (an interval
of a health check, `recoverAfter`) is a field of the object, and no part of this.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class LeaseTiming:
    """The election of a leader. The numbers are those of client-go's leader election, so that nobody has to learn new
    ones. A lease must last longer than its deadline, that longer than the steps to it.
    """

    lease: int = 15
    """How long a lease lasts that nobody renews; whole seconds, as the Lease object has them."""
    renew_deadline: float = 10.0
    """When a leader that cannot renew gives up: before anybody else may begin, whatever the network does meanwhile."""
    renew_every: float = 2.0
    """How often a leader renews: some of these may fail before the deadline."""
    look_every: float = 0.5
    """How often one looks again who does not hold the lease, or whose last attempt failed."""
    request: float = 5.0
    """How long a request may take: within the deadline there is time for a second one."""
    release: float = 1.0
    """How long giving the lease back may take: a program that ends does not wait for an API server that is away."""
    renewed_within: float = 5.0
    """When a leader that lives has renewed: more than twice as long as it takes. One that has not is gone."""

    def __post_init__(self) -> None:
        if not self.lease > self.renew_deadline > max(self.renew_every, self.look_every) > 0:
            raise ValueError(f"a lease must last longer than its deadline, that longer than the steps to it: {self}")


@dataclass(frozen=True, slots=True)
class RateLimit:
    """So many a second on average, and `burst` at once after a rest."""

    per_second: float
    burst: int


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is written into statuses: of all models together for routes and for all else, of one model, and of
    writes under way at once.
    """

    routes: RateLimit = RateLimit(200, 400)
    """Traffic waits for these; a cluster's worth of models goes at once."""
    others: RateLimit = RateLimit(50, 100)
    """What people read. An API server takes far more from all its clients together."""
    route_of_one: RateLimit = RateLimit(10, 10)
    """A model that flaps takes nothing from the others."""
    words_of_one: float = 1.0
    """Between two writes of one model that change no route: no reader sees more."""
    numbers_of_one: RateLimit = RateLimit(1 / 15, 4)
    """Of one model, of numbers that are merely newer: as often as metrics are collected, after a few at once."""
    at_once: int = 8
    """Writes under way."""
    reserved_for_routes: int = 2
    """Of the writes under way, so many may only be such of routes."""


@dataclass(frozen=True, slots=True)
class StatusTiming:
    """The controller: when a model is looked at again, apart from what happens to it and what was decided."""

    comes_back_within: float = 2.0
    """How long a write is waited for that comes back through the watch, as anybody's does: far longer than it takes."""
    first_rest: float = 1.0
    """How long a model rests whose write failed; then twice as long each time."""
    longest_rest: float = 300.0
    """The longest of these rests: what is refused for minutes will be refused for some more."""
    longest_rest_while_away: float = 15.0
    """The same while the store does not answer: when it is back, nobody shall wait for minutes."""
    answered_within: float = 1.0
    """How long a controller that ends waits for answers to its writes, so that events tell what was written; and once
    more as long to read what became of those without one.
    """
    loads_looked_at_every: float = 1.0
    """How often the load of a model is looked at when nothing is heard: reports grow old."""
    loads_apart: float = 0.1
    """Two looks at what Envoys report are at least so far apart, however many there are to report."""
    split_followed_within: float = 2.0
    """How long it takes until Envoys follow a new split: until then nothing is concluded from where requests go."""
    rival_answers_within: float = 60.0
    """Another controller that writes a status over ours within this time is there, and no leftover."""
    yields_for: float = 600.0
    """How long a model is left to another controller before it is taken over again: the other may be gone by then."""


@dataclass(frozen=True, slots=True)
class EventTiming:
    """Kubernetes events. What is written when has the numbers of client-go's event correlator."""

    write: float = 5.0
    """How long a write may take: nothing waits for an event."""
    flush: float = 1.0
    """How long a program that ends writes what it has not told yet."""
    window: float = 600.0
    """Events that are equal, or similar, count as such when they are no further apart."""
    update_every: float = 10.0
    """Between two writes of the count of one series."""
    refill: float = 300.0
    """How long until an object that told all it may has one more write."""
    first_retry: float = 2.0
    """How long a write that failed rests; then twice as long each time, for a few times."""


@dataclass(frozen=True, slots=True)
class ReportTiming:
    """What xDS servers say of their Envoys, and when the controller believes that nothing is said."""

    reported_every: float = 0.5
    """How often a replica says something also when there is nothing to tell: half of what lies between two reports of
    an Envoy.
    """
    alive_within: float = 6.0
    """When a replica that says nothing is taken for gone: a dozen of its signs of life are missing."""
    old_after: float = 3.0
    """Until what an Envoy reported says nothing of now: three of the intervals in which it does."""
    awaited: float = 10.0
    """How long an Envoy that reports nothing is waited for before that means anything to a decision: one that lost its
    xDS server looks for one every five seconds, and one that is new reports within two.
    """
    window: float = 10.0
    """What rates are averages of, and how far a judgement on the answers of a backend looks back."""
    loop_believed: float = 60.0
    """For how long a backend that was found to be the gateway itself is taken for it: who asks it again finds the same,
    unless its name or what stands behind it was changed.
    """
    told_for: float = 86_400.0
    """How long one stream of reports lasts: a controller that comes back shows its certificate anew."""
    gathering: float = 0.05
    """Acknowledgements, and reports of load, come one by one from many Envoys; what they say in this time is told
    together.
    """
    connect: float = 2.0
    """How long connecting to a replica may take: it is in the same cluster."""
    pause: float = 0.2
    """Between two streams: one that ends as soon as it begins is no reason to spin."""
    first_retry: float = 0.2
    """How long the first wait is after a stream that could not be had; then twice as long each time."""
    longest_retry: float = 3.0
    """The longest of these waits: a replica that is back is heard before its last word is forgotten."""
    forget_after: float = 10.0
    """How long the last word of a replica that cannot be reached counts. Its Envoys are with another one by then."""
    stall: float = 30.0
    """When a reader of the reports that reads nothing is cut off: he comes again and is told everything."""
    envoys_away: float = 10.0
    """Until it is believed that no Envoy is left: those of a replica that ends are on their way to another one."""


@dataclass(frozen=True, slots=True)
class FolderTiming:
    """The store over a folder of YAML: when a file that changed may be believed, and when the folder is looked at."""

    quiet: float = 0.1
    """A file that looks the same for so long is taken as written."""
    together: float = 0.5
    """Files at rest wait for others, so that what moves between files is seen at once; at most so long."""
    losing: float = 0.4
    """A file that lost an object, or is gone, is believed after so long: it may be half saved."""
    emptied: float = 1.0
    """A file that lost all its documents is believed after so long: editors truncate before they write."""
    look_again: float = 0.03
    """Two looks are at least so far apart."""
    first_list: float = 2.0
    """When the first batch no longer waits for files that never come to rest."""
    relist: float = 2.0
    """Between looks when all is quiet: reports may be missed (links, network file systems)."""
    relist_unaided: float = 0.3
    """The same when the system reports nothing at all."""
    save_pause: float = 0.2
    """Between two writes of the state file: changes that come close together are written once."""
    save_pause_after_failure: float = 5.0
    """The same after one that failed. A full disk does not get better by trying at once."""


@dataclass(frozen=True, slots=True)
class KubeTiming:
    """The API server: how long it has to answer, and when it is asked again."""

    connect: float = 5.0
    """How long connecting may take."""
    answer: float = 30.0
    """How long a request may take. The API server's own limit is a minute, and none of ours is a large one."""
    silence: float = 90.0
    """When a silent watch is given up. The API server sends a bookmark about once a minute (KEP-956): a watch that is
    silent for longer is dead, though nothing closed it. A needless end costs one request.
    """
    patience: float = 20.0
    """When no further try of a request begins."""
    first_retry: float = 0.2
    """At most how long the first wait between two tries is; then twice as long each time, by chance."""
    longest_retry: float = 5.0
    """The longest of these waits: within `patience` there are several tries."""
    credentials: float = 60.0
    """How long reading the credentials may take, an exec plugin that asks its cloud included."""
    shortest_watch: float = 240.0
    """A watch is asked for so long, or longer."""
    longest_watch: float = 480.0
    """The same at most: spread, so that not all of them end together."""
    no_watch: float = 1.0
    """A watch that ends sooner and without an event is no better than none."""
    first_relist: float = 0.25
    """How long the first wait is after a list or a watch that failed; then twice as long each time."""
    longest_relist: float = 10.0
    """The longest of these waits: so late may be known what changed while the API server was away."""
    second_look: float = 10.0
    """Until a list that would delete most of what is known is looked at again: an etcd that came back without its data
    is noticed, and a namespace that was really emptied does not wait for long.
    """


@dataclass(frozen=True, slots=True)
class StreamTiming:
    """The streams of the xDS server to its clients."""

    make_before_break: float = 5.0
    """How long what requires something waits for the client to acknowledge that: then it is sent all the same, for an
    Envoy that never says so shall not be left behind (X44).
    """
    settle: float = 1.0
    """How long after a reconnect removals wait for the client to name the listeners and routes that it still has."""
    handshake: float = 5.0
    """How long a connection has time for the beginning of HTTP/2: whoever connects to be served says it at once."""
    unused: float = 60.0
    """When a connection without a stream is closed; a client that has something to ask opens another."""
    connection: float = 86_400.0
    """How long a connection over TLS lasts, give or take a tenth: a client that comes back shows its certificate anew,
    so none outlives it for longer. An Envoy that comes back is sent nothing that it has.
    """
    connection_end: float = 30.0
    """How long its streams have after that; Envoy ends none by itself."""
    turn: float = 300.0
    """How long a stream may wait until it is taken up: when a thousand join, the last of them has to wait."""
    first_word: float = 10.0
    """When a stream is ended whose client has not said who it is. Whoever has something to ask says so at once."""
    stall: float = 30.0
    """When a client that reads nothing is cut off; it connects again and loses nothing (X49)."""
    token_rest: float = 1.0
    """How long nothing new is asked for an address after the API server could not say whose a token is."""
    loads_every: float = 1.0
    """Between two reports of a client on its load: often enough to see a burst, and one message a second."""
    keepalive_every: float = 30.0
    """How often a connection that says nothing is asked whether it is still there."""
    keepalive_answer: float = 10.0
    """How long that has time for its answer."""


@dataclass(frozen=True, slots=True)
class GatewayTiming:
    """What Envoys are told, and when: the times of their settings, and those by which the settings follow."""

    first_snapshot: float = 5.0
    """How long the first snapshot waits for models that nobody has decided on yet: the controller starts, too."""
    vacated: float = 5.0
    """How long a port that a model let go of is served on as before, for the next one to take it over: that has been
    decided, written and translated by then.
    """
    departed: float = 5.0
    """How long resources stay that a model let go of: a request that is on its way to them meets a backend that does
    not accept, and learns that within the time for a connection, `connect_far` by default.
    """
    resized_every: float = 1.0
    """Between two changes of how many Envoys share a limit. A gateway that rolls is two changes for each of its pods,
    and each is a route for each model.
    """
    headers_within: float = 10.0
    """How long the headers of a request may take from their first byte on: a client that drips them holds a place."""
    handshake_within: float = 10.0
    """How long TLS with a client may take from its connection on; on the port that all models share, how long is waited
    for what tells TLS from what is in the clear, too. Nobody has a request there yet.
    """
    unused_by_clients: float = 3600.0
    """How long a connection of a client stays that carries no request. Load balancers, proxies and clients let go of
    one sooner, an Envoy after the same hour: a request that meets the end of a connection of HTTP/1.1 is lost, so that
    is left to who sends requests.
    """
    keepalive_after: float = 60.0
    """How long nothing comes from a client until the kernel asks whether it is still there, in whole seconds. It is
    less than load balancers and routers remember a connection that is silent (some for four minutes).
    """
    keepalive_every: float = 20.0
    """Between two of these questions, in whole seconds."""
    keepalive_answer: float = 120.0
    """How long a client may leave all of them without an answer: a network may be away for a minute."""
    connect_near: float = 0.25
    """How long a connection to a replica may take: replicas are near."""
    connect_far: float = 2.0
    """How long a connection to a remote backend, or to a token endpoint, may take if the model says nothing."""
    unused_near: float = 1.5
    """How long a connection to a replica stays that nothing was asked on: less than servers keep them, by default two
    seconds (gunicorn) or five (uvicorn, Node.js). A request that meets the end of a connection cannot be told from one
    that failed.
    """
    unused_far: float = 4.0
    """The same for a remote backend, where a new connection costs more."""
    check_near_every: float = 1.0
    """How often a replica is checked whose readiness probe is not known."""
    check_near_on_its_way: float = 1.0
    """How much longer a check of a replica may take than the kubelet's probe, which comes from the same host, with no
    other program in between.
    """
    check_near_unused_within: float = 5.0
    """Until a replica that is not used though the kubelet calls it ready is asked again, or within the period of its
    probe, however many Envoys share the checks: each asks as seldom as the kubelet at most.
    """
    check_near_without_traffic_within: float = 60.0
    """Until a replica that is not believed is asked again at the latest, also if it is probed once a day."""
    check_far_every: float = 5.0
    """How often a remote backend is checked if the model says nothing."""
    check_token_endpoint_every: float = 60.0
    """How often the addresses of a token endpoint are checked, if its name may not lead anywhere."""
    check_again_within: float = 1.0
    """How often, at least, what is down is checked: one that came back is wanted soon, however rarely it is checked
    while it is well. Half of it, at most, is the time that a replica has for its answer.
    """
    longest_check: float = 5.0
    """How long a check of a remote backend may take at most, whatever the model says of connections."""
    outliers_every: float = 0.5
    """How often Envoy looks whose ejection is over."""
    first_ejection: float = 1.0
    """How long a replica is ejected the first time; then as much longer each time: soon enough for a mishap."""
    longest_ejection: float = 10.0
    """The longest of these: seldom enough for what goes on failing."""
    remote_not_believed: float = 0.25
    """How long a remote backend that failed is not believed, and on to the next look at outliers: half a second. If the
    replicas are dead and still listed, a quarter of the requests fail meanwhile.
    """
    token_answer: float = 5.0
    """How long a token endpoint has for its answer."""
    token_retry: float = 1.0
    """Until Envoy asks it again: the least that it takes. Until there is a token everything is answered locally."""


@dataclass(frozen=True, slots=True)
class CheckTiming:
    """The checks of remote backends by the xDS server, which tell the status whether they answer."""

    least_interval: float = 5.0
    """How often a backend is checked, unless its health check asks for less: the gateway's own checks are sooner."""
    in_doubt: float = 1.0
    """The pause when the next check decides."""
    assessed_every: float = 5.0
    """How old a judgement of the traffic may be while a backend is checked rarely."""
    ejection: float = 30.0
    """For how long nothing is sent to a backend that real requests found to fail, whatever a check says: so many times
    as long as it was found so of late. The numbers are those of Envoy's outlier detection.
    """
    longest_ejection: float = 300.0
    """The longest of these times."""
    ejections_forgotten: float = 600.0
    """So long after one that ended the next is the first again: each is tried once more before that."""
    answers_believed: float = 60.0
    """For how long requests that were answered stand for a backend that other replicas find failing."""
    secret_taken: float = 2.0
    """Until requests are made with a Secret that changed: Envoys are told within a moment, and few are on their way for
    longer than that before they fail. What Envoys counted before is of the old one.
    """
    longest: float = 5.0
    """Whatever a check meets, it has ended by then."""
    connect: float = 2.0
    """How long a connection may take: as long as Envoy's clusters wait."""
    first_token_pause: float = 10.0
    """How long a token endpoint is left alone that failed; then twice as long each time."""
    longest_token_pause: float = 300.0
    """The longest of these pauses: five minutes after a secret was mended at the latest, the status says so."""
    longest_token_life: float = 24 * 3600.0
    """What a token endpoint says of a token's life is not believed without end."""


@dataclass(frozen=True, slots=True)
class EnvoyTiming:
    """The Envoy process that a program of ours starts, watches, drains and ends."""

    ends_within: float = 5.0
    """How long it has to end by itself when it is told to, before it is killed. It was drained by then."""
    ran_for_a_while: float = 30.0
    """One that ran for so long before it ended is started again at once."""
    first_restart: float = 0.5
    """How long the first wait is after one that ended at once; then twice as long each time."""
    longest_restart: float = 10.0
    """The longest of these waits."""
    readiness_every: float = 0.5
    """Between two looks whether it is ready."""
    answers_within: float = 5.0
    """How long it has to answer that."""
    drain_looks_every: float = 0.25
    """How often one looks whether a draining Envoy is idle; some looks in a row have to find it so."""
    drain_logged_every: float = 5.0
    """How often the log says what is still in flight."""


@dataclass(frozen=True, slots=True)
class PollTiming:
    """Asking for one kind of measurement: how often, how long, and for how many."""

    every: float
    """Between two questions for the same, while they are answered."""
    answer: float = 5.0
    """How long an answer may take, all of it."""
    longest_pause: float = 30.0
    """The longest pause after failures: at first as long as ever, then twice as long each time."""
    old_after: float = 90.0
    """Until an answer says nothing of now: several questions in a row may fail."""
    forget_after: float = 120.0
    """Until what nobody looks at is asked for no more: longer than any pause."""
    least_pause: float = 0.05
    """Two rounds are at least so far apart: who begins to ask for many things is answered in one."""
    at_once: int = 10
    """Questions under way; half of them for one namespace, at most."""
    a_second: float = 200.0
    """Questions begun in a second. If more are due, namespaces take turns."""
    told_again_after: float = 15.0
    """An answer that is the same as the one before is told after so long: what it says grows old."""
    most_keys: int = 10_000
    """Different questions."""


@dataclass(frozen=True, slots=True)
class SignalTiming:
    """Measuring the metrics of `spec.offloadingConfig.metrics`."""

    kubernetes: PollTiming = PollTiming(every=5.0)
    """The metrics APIs of Kubernetes, which have a new number every ten to sixty seconds."""
    pods: PollTiming = PollTiming(every=10.0)
    """The pods that metrics are measured of: what they request, and since when they are ready."""
    sample_old_after: float = 180.0
    """Until what a metrics API says that it measured says nothing of now. A metrics-server that measures once a minute
    answers with numbers that are up to a minute and a half old.
    """
    discovery: float = 300.0
    """How long a version of a metrics API, and what a kind is called in paths, is taken for the same."""
    prometheus: PollTiming = PollTiming(every=5.0)
    """A Prometheus, which scrapes every five to sixty seconds."""
    scrape: PollTiming = PollTiming(
        every=1.0, answer=2.0, longest_pause=10.0, old_after=10.0, at_once=100, a_second=300.0
    )
    """The replicas themselves: what they say is of now. A question is one to all replicas of a model."""


@dataclass(frozen=True, slots=True)
class InspectionTiming:
    """`beamlit check`: how long it looks, and how often it looks again while it waits."""

    answer: float = 10.0
    """How long one answer of the API server may take."""
    whole: float = 60.0
    """How long one look at everything may take."""
    first_pause: float = 2.0
    """Between two looks of one that waits: at first so long, then half as long again each time."""
    longest_pause: float = 10.0
    """The longest of these pauses."""


@dataclass(frozen=True, slots=True)
class TakeoverTiming:
    """Taking over Services, and giving them back."""

    kube_proxy_within: float = 2.0
    """How long kube-proxy may take to follow a slice; it gathers changes for one second at most."""
    gateway_steady_for: float = 2.0
    """How long a gateway is ready before a Service is led to it."""
    others_act_after: float = 3.0
    """How long a Service has to be other than it shall be before a replica sees to it that does not lead."""
    turns_within: float = 600.0
    """For how long a change of a selector by a replica that does not lead makes its next one wait longer."""
    resets_tolerated: int = 5
    """So many times within `resets_within` the selector may be set back by others before it is given back for good."""
    resets_within: float = 3600.0
    """The time in which these are counted."""
    written_again_after: float = 1.0
    """How long a write is waited for that should come back through the watch."""
    first_rest: float = 0.5
    """How long a Service rests whose write failed; then twice as long each time."""
    longest_rest: float = 30.0
    """The longest of these rests: rights that were missing, and are there now, are used within half a minute."""
    at_once: int = 16
    """Services written at once."""
    of_one_namespace: int = 8
    """So many of them are of one namespace: one whose writes are slow keeps no other from its pods."""


@dataclass(frozen=True, slots=True)
class Timing:
    """All of them."""

    lease: LeaseTiming = field(default_factory=LeaseTiming)
    writes: Limits = field(default_factory=Limits)
    statuses: StatusTiming = field(default_factory=StatusTiming)
    events: EventTiming = field(default_factory=EventTiming)
    reports: ReportTiming = field(default_factory=ReportTiming)
    folder: FolderTiming = field(default_factory=FolderTiming)
    kube: KubeTiming = field(default_factory=KubeTiming)
    streams: StreamTiming = field(default_factory=StreamTiming)
    gateway: GatewayTiming = field(default_factory=GatewayTiming)
    checks: CheckTiming = field(default_factory=CheckTiming)
    envoy: EnvoyTiming = field(default_factory=EnvoyTiming)
    signals: SignalTiming = field(default_factory=SignalTiming)
    inspection: InspectionTiming = field(default_factory=InspectionTiming)
    takeover: TakeoverTiming = field(default_factory=TakeoverTiming)
    shutdown: float = 1.0
    """How long connections have to end when a program ends: streams of Envoys, which join another replica at once, and
    requests at the admin address.
    """
    certificates_looked_at_every: float = 600.0
    """How often it is looked at whether a certificate has to be renewed: they hold for weeks."""
    certificates_tried_again: float = 5.0
    """After a look that failed."""
    files_looked_at_every: float = 5.0
    """How often a file is looked at that has a secret of the configuration: the kubelet renews it once a minute."""
    status_answer: float = 5.0
    """How long `beamlit status` waits for an answer: somebody is looking at it."""
    status_looked_at_every: float = 0.5
    """How often a command that waits for a model to be as asked looks at it."""


REAL = Timing()
"""What whoever says nothing else works with."""
