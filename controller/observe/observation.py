"""Everything that is known of one object at one moment, as values: what `plan` works from."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial

from controller.api.contract.health import RemoteHealth
from controller.api.contract.route import LocalBackend, Remote, Route
from controller.api.contract.status import ModelDeploymentStatus
from controller.api.kubernetes.endpoints import EndpointGuard, admit_all
from controller.api.kubernetes.selectors import query_of
from controller.api.resources.backend import RemoteBackend
from controller.api.resources.metrics import MetricSpec
from controller.api.schema.errors import FieldError
from controller.decision import Memory, SentRequests, Unknown
from controller.frontend.allocation import Allocation, Allocations, Occupancy, Request, claim_of, hosts_of_route
from controller.frontend.claims import HostClaim, ModelClaim, Refusal, ServicePortClaim, hosts_of
from controller.frontend.ports import PortRule
from controller.frontend.service_facts import ServiceFacts, leads_clients_to, owner_of
from controller.intent.consent import View, any_grant_in, not_permitted, service_ref
from controller.intent.intent import Intent
from controller.intent.remotes import addresses_of
from controller.observe.chains import Chains, HostAndPort, Link, places_of
from controller.observe.fronting import (
    GATEWAY_NOT_CONNECTED,
    Fronting,
    TakeoverRules,
    at_gateway,
    behind,
    facts_of,
    fronting_of,
    names_port_of,
    service_of,
    shadow_of,
)
from controller.observe.gateways import not_connected
from controller.observe.index import ObjectIndex, StoredIntent
from controller.observe.kept import Kept
from controller.observe.led_ports import LedPorts
from controller.observe.own_place import GatewayPlace, OwnPlace, ServedPorts
from controller.observe.proxies import ProxyFacts, ProxyReports
from controller.observe.readiness import check_of_all
from controller.observe.references import (
    Fault,
    Front,
    Resolved,
    front_of_route,
    missing_workload,
    port_asked_for,
    resolve,
    target_port,
    unasked_probe,
    with_replicas,
)
from controller.signals.load_reports import NO_LOAD, LoadReports
from controller.signals.source import Sampler, Samples, Subject
from controller.store.objects import ObjectRef, StoredObject

# So many Services that a model owns without asking for them lead to it, and so many ports of each.
_OWNED_LOOKED_AT = 4
_PORTS_LOOKED_AT = 4


@dataclass(frozen=True, slots=True)
class Observation:
    """One object at the moment of its reconciliation.

    * `stored` is the object as it was read, `before` the status in it, `intent` what it asks for: None when it cannot
      be read, and `errors` say why.
    * `front` is what it fronts now: what its references lead to or, when those cannot be followed or it may not have
      that (`refusal` says why), what it fronted before, if it may keep that. A mistake is reported and breaks nothing.
      `reserved` is the port that it keeps while it fronts nothing.
    * `remotes` are the remote backends that it may use, `faults` what of its references leads nowhere, `warnings` what
      does so and keeps nothing from being served.
    * `proxies` is what the xDS servers report of it, None while reports are missing, and `silence` says why;
      `samples` are what was measured, `traffic` is where requests went since the split is what it is, `memory` is what
      the decision remembers. `controller` is our name as a writer of statuses.
    * `fronting` says how clients of the Service reach it; None where no Service is ever taken over.
    """

    stored: StoredObject
    before: ModelDeploymentStatus
    intent: Intent | None
    errors: tuple[FieldError, ...] = ()
    front: Front | None = None
    refusal: Refusal | None = None
    reserved: int | None = None
    remotes: tuple[Remote, ...] = ()
    faults: tuple[Fault, ...] = ()
    warnings: tuple[str, ...] = ()
    proxies: ProxyFacts | None = None
    silence: str = ""
    samples: Samples = ()
    traffic: SentRequests | Unknown = NO_LOAD
    controller: str = ""
    memory: Memory = field(default_factory=Memory)
    fronting: Fronting | None = None

    @property
    def generation(self) -> int:
        """Which generation of the object it is."""
        return self.stored.generation

    @property
    def uncounted_endpoints(self) -> tuple[str, ...]:
        """What is behind the Service and is no replica, in sentences."""
        return self.front.uncounted if self.front else ()

    def health_of(self, remote: Remote) -> RemoteHealth | None:
        """Say whether a remote backend answers, None while nobody knows.

        While that is found out, what was known of this very backend still holds, and it holds since then if the same is
        found: a restart of who checks it, or of who is told, takes nothing back.
        """
        found = self.proxies.health_of(remote) if self.proxies else None
        known = self.before.remote_health if self._is_known(remote) else None
        if found is None and known and not known.usable and self.proxies and self.proxies.may_use(remote):
            # What was missing is there: whether it answers is found out next.
            return None
        if found is None or known is None:
            return found or known
        is_the_same = known.since is not None and found.healthy == known.healthy
        return found.model_copy(update={"since": known.since}) if is_the_same else found

    def _is_known(self, remote: Remote) -> bool:
        """Whether the status before is about this very backend; without one in its route, as far as the host tells."""
        before, route = self.before, self.before.route
        if route is None or route.remotes:
            return route is not None and route.remote == remote
        is_edited = before.observed_generation != self.generation
        return not is_edited and before.remote is not None and before.remote.host == remote.authority


class Observer:
    """Brings together what is known of each object: references, claims, ports, reports and samples."""

    def __init__(self, index: ObjectIndex, proxies: ProxyReports, measured: Measured, defaults: Defaults) -> None:
        self._index = index
        self._proxies = proxies
        self._measured = measured
        self._defaults = defaults
        self._allocations = Allocations(defaults.ports)
        self._served = ServedPorts()
        self._chains = Chains()
        self._tellers: deque[Allocations | Chains] = deque((self._allocations, self._chains))
        self._led = LedPorts(index, defaults.takeover) if defaults.takeover else None
        self._followed = Kept[_Followed]()
        self._subjects = Kept[Subject]()

    def see_service(self, service: ObjectRef, now: datetime) -> frozenset[ObjectRef]:
        """Take in to which ports of the gateway a Service that changed leads; return the objects to look at again.

        Those that were there at the beginning come before the first object is registered.
        """
        return self._allocations.keep(service, self._led.see(service, now)) if self._led else frozenset()

    def services_to_see(self, now: datetime) -> tuple[ObjectRef, ...]:
        """Name the Services that are to be seen again at `now` (UTC), though they have not changed."""
        return tuple(self._led.over(now)) if self._led else ()

    def sees_at(self, now: datetime) -> datetime | None:
        """Say when the next one of them is; None if there is none."""
        return self._led.wakes_at(now) if self._led else None

    def services_of(self, ref: ObjectRef) -> frozenset[ObjectRef]:
        """Name the Services that lead clients to an object, to be seen again after it was registered.

        By its status it is known what their slices were written for.
        """
        if self._led is None:
            return frozenset()
        known = self._index.intent(ref)
        services = self._owned(ref, known)
        if known and (route := known.status.route) and route.local.fronted:
            services |= {service_of(route.local)}
        return services

    def _owned(self, ref: ObjectRef, known: StoredIntent | None) -> frozenset[ObjectRef]:
        """Name Services that a model owns: the one that it asks for, and some of the others, which are about to go.

        Anybody may name a model as the owner of any number of Services.
        """
        asked = known.intent.gateway_service if known and known.intent else None
        some = frozenset(self._index.owned_by(ref)[:_OWNED_LOOKED_AT])
        owner = owner_of(self._index.stored(asked)) if asked else None
        return some | {asked} if asked and owner and owner[0] == ref else some

    def register(self, ref: ObjectRef) -> frozenset[ObjectRef]:
        """Record what an object refers to, claims and has; return the other objects to look at again."""
        if self._led:
            self._led.begun()
        known = self._index.intent(ref)
        if known is None:
            self._index.refers(ref, ())
            self._served.asks(ref, ())
            self._followed.forget(ref)
            self._subjects.forget(ref)
            self._measured.loads.forget(ref)
            return self._allocations.forget(ref) | self._served.record(ref, None) | self._chains.record(ref, None)
        self._index.refers(ref, self._references(known))
        route = known.status.route
        affected = self._served.record(ref, route.port if route else None)
        affected |= self._chains.record(ref, self._link(known))
        has = self._occupancy(ref, route) if route else Occupancy(self._reserved(known))
        request = self._requested(known.intent) if known.intent else None
        return affected | self._allocations.register(ref, known.seniority, request, has)

    @property
    def tells(self) -> bool:
        """Whether there are objects to be told that another one has now what they lose, or is where they send to."""
        return any(one.tells for one in self._tellers)

    def next_to_tell(self) -> ObjectRef | None:
        """Return the next of them, to be looked at again; None if all were."""
        self._tellers.rotate()
        return next(filter(None, (one.next_to_tell() for one in self._tellers)), None)

    def observe(self, ref: ObjectRef, now: datetime) -> tuple[Observation, frozenset[ObjectRef]] | None:
        """Observe an object at `now` (UTC); None if there is none. Returns with it the others to look at again."""
        known = self._index.intent(ref)
        if known is None:
            return None
        if known.intent is None:
            lost = None if self._held(known) else self._lost_route(ref, known.status.route)
            unread = Observation(known.stored, known.status, None, known.errors, refusal=lost)
            return replace(unread, controller=self._defaults.controller), frozenset()
        return self._observe(known, known.intent, now)

    def _observe(self, known: StoredIntent, intent: Intent, now: datetime) -> tuple[Observation, frozenset[ObjectRef]]:
        ref, route, view = known.ref, known.status.route, self._view(known.ref)
        followed = self._follow(intent, view)
        resolved = followed.resolved
        keepable = route if route and view.permits_route(route) else None
        moved = self._allocations.reserve(self._proxies.ports)
        allocation = self._allocations.allocate(ref, _request(intent, resolved), keepable, self._reserved(known))
        front = resolved.front
        if allocation.keeps_route and keepable:
            front = front_of_route(keepable, view, self._defaults.guard)
        elif front:
            before, workload = route.local.health_check if route else None, view.workload(intent.workload)
            check = check_of_all(front.local.health_check, workload, before)
            front = replace(front, local=front.local.model_copy(update={"health_check": check}))
        served = replace(front, port=allocation.port, hosts=allocation.hosts) if front and allocation.port else None
        served, fronting = self._fronting(known, served, allocation, now)
        observation = Observation(
            stored=known.stored,
            before=known.status,
            intent=intent,
            front=served,
            refusal=allocation.refusal,
            reserved=allocation.reserved,
            remotes=resolved.remotes,
            faults=resolved.faults,
            warnings=(*filter(None, [followed.unasked, self._unserved(intent)]), *(served.refused if served else ())),
            proxies=self._proxies.facts(ref),
            silence=self._proxies.silence,
            samples=self._samples(intent, served, now) if served else (),
            traffic=self.traffic(known, now),
            controller=self._defaults.controller,
            memory=known.memory,
            fronting=fronting,
        )
        return observation, allocation.affected | moved

    def _follow(self, intent: Intent, view: View) -> _Followed:
        """Follow the references of an object."""
        own = self._own_place(intent.ref, intent)

        def work_out(view: View) -> _Followed:
            resolved = resolve(intent, view, self._defaults.remote, self._defaults.guard, own)
            absent = missing_workload(intent, view) if self._defaults.expects_workloads else ""
            return _Followed(resolved, absent or unasked_probe(intent, view))

        return self._followed.value(intent.ref, (intent, own), view, work_out)

    def _fronting(
        self, known: StoredIntent, front: Front | None, allocation: Allocation, now: datetime
    ) -> tuple[Front | None, Fronting | None]:
        """Say how clients reach a model, and where its replicas are read from for that.

        While clients of a Service may still be led to the model's port, it goes on serving there what it serves.
        """
        rules, route = self._defaults.takeover, known.status.route
        if rules is None:
            return front, None
        facts = self._held(known)
        # Also one that is to be served on another port: on the one that its clients are led to nobody answers soon.
        is_ours = route is not None and self._allocations.has_port(known.ref, route.port)
        if facts and route and is_ours and not (front and _is_the_same(front, route)):
            local = behind(route.local, facts, route, wanted=False)
            everything = View(self._index, known.ref.namespace, needed=False)
            kept = front_of_route(route.model_copy(update={"local": local}), everything, self._defaults.guard)
            kept = replace(kept, hosts=self._allocations.hosts_of(known.ref, route))
            return kept, Fronting(
                None, False, "Restoring", f"its clients are led back to their pods first: {facts.key}"
            )
        if front is None:
            return None, Fronting(None, False, "NotServed", "there is no route to lead clients to")
        if facts is None or facts.key != service_of(front.local):
            facts = facts_of(self._index, service_of(front.local), rules)
        fronting = self._unless_away(known, facts, fronting_of(known, front.local, facts, rules, now))
        if fronting.takeover is None and not fronting.is_taken_over:
            fronting = at_gateway(self._index, known, rules, self._away(known, facts)) or fronting
        local = behind(front.local, facts, route, wanted=fronting.takeover is not None)
        if local == front.local:
            return front, fronting
        moved = with_replicas(front.port, local, self._view(known.ref), self._defaults.guard)
        return replace(moved, service_port=front.service_port, hosts=front.hosts), fronting

    def _unless_away(self, known: StoredIntent, facts: ServiceFacts, fronting: Fronting) -> Fronting:
        """Let no takeover begin while a gateway that is ready gets no configuration: it would not know the model."""
        if fronting.takeover is None or fronting.takeover == known.status.takeover:
            return fronting
        away = self._away(known, facts)
        return Fronting(None, False, GATEWAY_NOT_CONNECTED, away) if away else fronting

    def _away(self, known: StoredIntent, facts: ServiceFacts) -> str:
        """Say which gateway that is ready gets no configuration, and what to do; empty if all do."""
        reported = self._proxies.facts(known.ref)
        missing = not_connected(facts.gateway, reported) if reported else ""
        if not missing:
            return ""
        return (
            f"{missing}: one that is not connected would refuse the clients of the Service. Restart it, or see why it "
            "cannot connect (its log)"
        )

    def _held(self, known: StoredIntent) -> ServiceFacts | None:
        """Return what is known of the Service of a model's route, while its clients may still be led there by it."""
        rules, route = self._defaults.takeover, known.status.route
        if rules is None or route is None or route.local.fronted is None:
            return None
        facts = facts_of(self._index, service_of(route.local), rules)
        return facts if leads_clients_to(facts, route.port) else None

    def _unserved(self, intent: Intent) -> str:
        """Say that a Service is not taken over, nor made, where none ever is."""
        if self._defaults.takeover:
            return ""
        if intent.gateway_service:
            return "spec.gatewayService: has no effect here: Services are made in a cluster"
        if intent.frontend != "Takeover":
            return ""
        return (
            "spec.frontend: has no effect here: Services are taken over in a cluster; clients call the gateway at the "
            "port in status.servingPort"
        )

    def _view(self, ref: ObjectRef) -> View:
        """Return what an object may refer to."""
        return View(self._index, ref.namespace, needed=self._defaults.needs_consent)

    def _occupancy(self, ref: ObjectRef, route: Route) -> Occupancy:
        """Return what an object has by its route: nothing of a Service that it may not refer to."""
        permitted = self._view(ref).permits_route(route)
        return Occupancy(route.port, claim_of(route.local) if permitted else None, hosts_of_route(route))

    def _lost_route(self, ref: ObjectRef, route: Route | None) -> Refusal | None:
        """Say why an object that cannot be read may not even keep the route it has; None if it may, or has none."""
        if route is None:
            return None
        if not self._view(ref).permits_route(route):
            words = not_permitted(service_of(route.local), ref.namespace)
            return Refusal("RefNotPermitted", f"spec.serviceRef: {words}")
        return self._allocations.lost_route(ref, route)

    def _own_place(self, ref: ObjectRef, intent: Intent) -> OwnPlace:
        """Say where the gateway is, as far as it matters to this object."""
        place = self._defaults.place
        service = self._index.service(*place.service) if place.service else None
        asked = frozenset(port for host, port in addresses_of(intent, self._defaults.remote) if place.has(host))
        self._served.asks(ref, asked)
        chains = self._chains
        return OwnPlace(place, service, self._served.served(asked), chains.cut(ref), chains.is_chained(ref))

    def _link(self, known: StoredIntent) -> Link:
        """Say where requests for a model leave for, and where others send theirs to it."""
        intent, route, takeover = known.intent, known.status.route, known.status.takeover
        leaves_for = addresses_of(intent, self._defaults.remote) if intent and intent.terms.may_leave else ()
        remote = next((HostAndPort.of(host, port) for host, port in leaves_for), None)
        places = self._places(route.local) if route else frozenset()
        is_led = route is not None and takeover is not None and names_port_of(takeover, route.local)
        made = self._places_at_gateway(known)
        return Link(known.seniority, remote, places | made, places | made if is_led else made)

    def _places(self, local: LocalBackend) -> frozenset[HostAndPort]:
        service = self._index.service(local.namespace, local.clients_service)
        port = next((one for one in service.spec.ports if one.name == local.port_name), None) if service else None
        if service is None or port is None:
            return frozenset()
        return places_of(local.namespace, local.clients_service, service, port.port, self._nearby)

    def _places_at_gateway(self, known: StoredIntent) -> frozenset[HostAndPort]:
        """List the places of the Services that were made for a model: they lead to the gateway and nowhere else."""
        found = set[HostAndPort]()
        for one in filter(self._index.is_at_gateway, self._owned(known.ref, known)):
            if service := self._index.service(one.namespace, one.name):
                # It has one, or is about to have one again.
                for port in service.spec.ports[:_PORTS_LOOKED_AT]:
                    found |= places_of(one.namespace, one.name, service, port.port, self._nearby)
        return frozenset(found)

    @property
    def _nearby(self) -> str | None:
        """The namespace where the name of a Service alone will do for the Envoys."""
        return self._defaults.place.service[0] if self._defaults.place.service else None

    def _references(self, known: StoredIntent) -> Iterator[ObjectRef]:
        intent, view = known.intent, self._view(known.ref)
        for ref in self._fronted(known):
            yield ref
            if view.is_foreign(ref):
                yield any_grant_in(ref.namespace)
        if self._defaults.place.service and intent and intent.offloads:
            # It may turn out to be where the remote backend is.
            yield service_ref(*self._defaults.place.service)
        rules = self._defaults.takeover
        if rules and rules.gateway:
            yield rules.gateway

    def _fronted(self, known: StoredIntent) -> Iterator[ObjectRef]:
        """Name the Services and the workload that an object asks for, or serves."""
        if intent := known.intent:
            yield intent.workload
            if intent.gateway_service:
                yield intent.gateway_service
            if intent.target:
                yield from self._with_shadow(intent.target.service)
        if route := known.status.route:
            yield from self._with_shadow(service_of(route.local))

    def _with_shadow(self, service: ObjectRef) -> Iterator[ObjectRef]:
        yield service
        if self._defaults.takeover:
            yield shadow_of(service)

    def _requested(self, intent: Intent) -> Request:
        """Return what an object asks for, before all that it refers to is looked at."""
        if found := target_port(intent, self._view(intent.ref)):
            service, port = found
            claim = ServicePortClaim(service.namespace, service.name, port.name)
            hosts = hosts_of(service.namespace, service.name, port.port)
            return Request(_name(intent), claim, port_asked_for(intent, port), intent.serving_port, hosts)
        return Request(_name(intent), fixed_port=intent.serving_port)

    def samples(self, intent: Intent, metrics: tuple[MetricSpec, ...], now: datetime) -> Samples:
        """Return a sample of each of these metrics, none of which is scraped from the replicas."""
        return self._measured.sampler.samples(self._subject(intent), metrics, now)

    def _samples(self, intent: Intent, served: Front, now: datetime) -> Samples:
        if not (intent.metrics and intent.terms.enabled):
            return ()  # whatever they are, every request stays
        subject = replace(self._subject(intent), replicas=served.replicas)
        return self._measured.sampler.samples(subject, intent.metrics, now)

    def _subject(self, intent: Intent) -> Subject:
        return self._subjects.value(intent.ref, intent, self._view(intent.ref), partial(subject_of, intent))

    def traffic(self, known: StoredIntent, now: datetime) -> SentRequests | Unknown:
        """Count where requests went by the present split, once every Envoy had the time to follow it."""
        route, since = known.status.route, known.memory.split_since
        if route is None or since is None:
            return NO_LOAD
        remotes = (one.name for one in route.remotes)
        return self._measured.loads.traffic(known.ref, remotes, since + self._measured.followed_within, now)

    def _reserved(self, known: StoredIntent) -> int | None:
        # A status without a generation is none of ours: the original wrote the port of the model's container there.
        is_ours = known.status.observed_generation > 0
        return known.status.serving_port if is_ours and self._allocations.ports_for_life else None


@dataclass(frozen=True, slots=True)
class _Followed:
    """What the references of an object lead to, and in words why no probe of its workload is asked: it is absent, or
    the probe has a credential. Empty where that is well.
    """

    resolved: Resolved
    unasked: str


@dataclass(frozen=True, slots=True)
class Measured:
    """Where measurements come from: samples of metrics, and loads.

    `followed_within` is how long it takes until Envoys follow a new split, and report what they sent by it.
    """

    sampler: Sampler
    loads: LoadReports
    followed_within: timedelta


@dataclass(frozen=True, slots=True)
class Defaults:
    """What holds for all objects: the default remote backend, how ports are given, and which endpoints count.

    `place` is where the gateway is: no remote backend is to be there. `expects_workloads` says whether it is a mistake
    that the workload of an object is not there, `needs_consent` whether what an object refers to in another namespace
    has to permit that, `controller` is our name as a writer of statuses,
    `takeover` how Services are taken over (None: never).
    """

    remote: RemoteBackend | None
    ports: PortRule
    guard: EndpointGuard = admit_all
    place: GatewayPlace = field(default_factory=GatewayPlace)
    expects_workloads: bool = False
    needs_consent: bool = False
    controller: str = ""
    takeover: TakeoverRules | None = None


def _is_the_same(front: Front, route: Route) -> bool:
    """Whether what is fronted is what a route fronts: the same port of the Service, at the same port of the gateway."""
    mine, other = front.local, route.local
    named = (service_of(mine), mine.port_name, front.port)
    return named == (service_of(other), other.port_name, route.port)


def subject_of(intent: Intent, view: View) -> Subject:
    """Say what the metrics of an object are measured of, but for its replicas: the pods of its workload, or else those
    of its Service.
    """
    workload = view.workload(intent.workload)
    namespace, selector = intent.workload.namespace, workload.spec.selector.as_query() if workload else ""
    if not selector and intent.target:
        service = view.service(intent.target.service.namespace, intent.target.service.name)
        namespace = intent.target.service.namespace
        selector = query_of(service.spec.selector) if service else ""
    containers = workload.spec.template.spec.containers if workload else ()
    named = tuple((port.name, port.container_port) for one in containers for port in one.ports if port.name)
    scale = workload.status.replicas if workload and workload.status else None
    return Subject(intent.ref, namespace, selector, named_ports=named, scale=scale)


def _request(intent: Intent, resolved: Resolved) -> Request:
    if resolved.front is None:
        return Request(_name(intent), fixed_port=intent.serving_port)
    service = replace(claim_of(resolved.front.local), number=resolved.front.service_port)
    return Request(_name(intent), service, resolved.front.port, intent.serving_port, _hosts(resolved.front))


def _hosts(front: Front) -> tuple[HostClaim, ...]:
    number = front.service_port
    return hosts_of(front.local.namespace, front.local.service, number) if number else ()


def _name(intent: Intent) -> ModelClaim:
    return ModelClaim(intent.ref.namespace, intent.environment, intent.model)
