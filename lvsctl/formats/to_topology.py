"""Write the topology of a configuration: text, with comments for what is assumed or left out."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from ipaddress import ip_network

from lvsctl.formats.configuration import (
    MAX_SERVICES,
    Configuration,
    Destination,
    Mark,
    Notes,
    Remark,
    Service,
)
from lvsctl.formats.redundancy import STEP, Redundant, redundant
from lvsctl.formats.routes import KeptRoutes, kept_routes, route_entries, router_networks
from lvsctl.formats.surroundings import OUTSIDE, Segment, Surroundings, assume, vips_of
from lvsctl.model.addresses import IPAddress
from lvsctl.model.service import (
    ASKED_OF_ANY,
    GUE_PORT,
    Encapsulation,
    ForwardingMethod,
    PersistenceEngine,
    Protocol,
    Scheduler,
    TunnelChecksum,
    VipPort,
)
from lvsctl.topology.parsers import MAX_INTERFACE_NAME, MAX_LABEL

MAX_THRESHOLD = 65535
MAX_SERVERS = 1000
"""As many as one network can have, with some room (BR_MAX_PORTS)."""

_NO_HOST = tuple(
    map(ip_network, ("0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/3", "::/8", "fe80::/10", "ff00::/8"))
)

_WITH_FLAGS = (Scheduler.SH, Scheduler.MH)
_FLAG_WORDS = {"flag-1": "fallback", "flag-2": "port"}
"""A topology's words for the flags of these schedulers."""


@dataclass(frozen=True, slots=True)
class Imported:
    """A topology, what was assumed for it, and what of the file it does not contain."""

    configuration: Configuration
    name: str
    text: str
    assumptions: tuple[str, ...]
    remarks: tuple[Remark, ...]

    @property
    def files(self) -> tuple[str, ...]:
        """The files that the file includes."""
        return self.configuration.files


def to_topology(configuration: Configuration, name: str) -> Imported:
    """Return the topology of a configuration, for a lab called ``name``.

    Raises TopologyError where nothing of it can be a lab, or the kernel would refuse it.
    """
    notes = Notes(configuration.source)
    for remark in configuration.remarks:
        notes.remark(*remark)
    services = tuple(_expressible(configuration, notes))
    if not services and configuration.services:
        place = configuration.services[0].place
        reasons = "; ".join(f"{remark}" for remark in notes.remarks[:3])
        notes.wrong(place, "none of its virtual services can be a lab", reasons)
    if len({one.rip for service in services for one in service.servers}) > MAX_SERVERS:
        notes.wrong(services[0].place, f"these are more than {MAX_SERVERS} real servers")
    notes.raise_any()
    surroundings = assume(configuration, services)
    directors = redundant(configuration, services, surroundings, notes)
    if directors is not None:
        services = tuple(_without_local(services, notes))
        if not services:
            place = configuration.services[0].place
            notes.wrong(place, "none of its virtual services has a real server but the directors")
        notes.raise_any()
        surroundings = assume(configuration, services)
        directors = redundant(configuration, services, surroundings, notes)
    notes.raise_any()
    routes = kept_routes(configuration, surroundings, _taken(configuration, services), notes)
    if directors is not None and any(one.virtual for one in routes.routes):
        first = next(one for one in routes.routes if one.virtual)
        notes.remark(first.place, "virtual_routes: every director has them, not the master only")
    writer = _Writer(configuration, name, services, surroundings, directors, routes, notes.remarks)
    text = "\n".join(writer.lines()) + "\n"
    return Imported(configuration, name, text, tuple(writer.assumptions), notes.remarks)


def label(text: str) -> str:
    """Return a name for a lab from a file's name; ``imported`` if nothing of it can be used."""
    name = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:MAX_LABEL].strip("-")
    return name if re.match(r"[a-z]", name) else "imported"


def _taken(configuration: Configuration, services: Iterable[Service]) -> set[IPAddress]:
    """Return the addresses of directors and real servers."""
    found = {address.ip for one in configuration.instances for address, _ in one.addresses}
    for instance in configuration.instances:
        found.update(instance.peers)
        found.update([instance.source] if instance.source is not None else [])
    for service in services:
        found.update(vips_of(service), (one.rip for one in service.servers))
    return found | {address.ip for address, _ in configuration.addresses}


# ── what a topology can say ──────────────────────────────────────────────────────────────────


def _expressible(configuration: Configuration, notes: Notes) -> Iterator[Service]:
    """Yield the services without what a topology has no key for, noting each such thing."""
    seen: dict[object, Service] = {}
    vips = {vip for service in configuration.services for vip in vips_of(service)}
    for service in configuration.services:
        first = seen.setdefault(service.match, service)
        if first is not service:
            message = f"{service.match} is in {first.place} already"
            notes.wrong(service.place, message, "remove one of the two")
        elif len(seen) > MAX_SERVICES:
            notes.wrong(service.place, f"these are more than {MAX_SERVICES} virtual services")
            return
        elif (reason := _no_service(service)) is not None:
            notes.remark(service.place, f"left out: {reason}")
        else:
            shown = _with_known_settings(service, notes)
            destinations = tuple(_real_servers(service, vips, notes))
            sorry = service.sorry
            if sorry is not None:
                sorry = _sorry_server(sorry, destinations, vips, notes)
            if any(not one.local for one in destinations):
                yield replace(shown, destinations=destinations, sorry=sorry)
            else:
                notes.remark(service.place, "left out: none of its real servers can be in a lab")


def _without_local(services: Iterable[Service], notes: Notes) -> Iterator[Service]:
    """Yield services of several directors, of which none can be a real server too."""
    for service in services:
        own = [one for one in service.destinations if one.local]
        sorry = service.sorry
        if sorry is not None and sorry.local:
            own.append(sorry)
            sorry = None
        for one in own:
            what = "sorry_server " * (one is service.sorry) + str(one.rip)
            why = "is the director itself: of several, none can be a real server too"
            notes.remark(one.place, f"{what} {why}")
        destinations = tuple(one for one in service.destinations if not one.local)
        yield replace(service, destinations=destinations, sorry=sorry)


def _no_service(service: Service) -> str | None:
    """Return why a service cannot be in a topology; None if it can."""
    if not isinstance(service.match, VipPort):
        return None
    if not service.match.port and not service.persistence:
        return "IPVS uses a service of any port (port 0) only if it is persistent"
    if not _can_be_host(service.match.vip):
        return f"no host can have the address {service.match.vip}"
    return None


def _can_be_host(address: IPAddress) -> bool:
    return not any(address.version == one.version and address in one for one in _NO_HOST)


def _with_known_settings(service: Service, notes: Notes) -> Service:
    flags = service.flags
    words = _FLAG_WORDS if service.scheduler in _WITH_FLAGS else {}
    if unknown := [flag for flag in flags if flag != "ops" and flag not in words]:
        what = ", ".join(f"{flag} of {service.scheduler}" for flag in unknown)
        notes.remark(service.place, f"{what}: a topology has no key for it")
        flags = tuple(flag for flag in flags if flag not in unknown)
    engine = service.engine
    if engine and (engine not in list(PersistenceEngine) or protocol_of(service) != Protocol.UDP):
        what = f"persistence engine {engine} of {protocol_of(service)}"
        notes.remark(service.place, f"{what}: a topology has sip for udp only")
        engine = ""
    return replace(service, flags=flags, engine=engine)


def _real_servers(service: Service, vips: set[IPAddress], notes: Notes) -> Iterator[Destination]:
    """Yield the real servers that can be in a topology: the director once at most."""
    itself: Destination | None = None
    for one in service.destinations:
        found = _server(one, service.match.version, vips, notes)
        if found is not None and found.local:
            if itself is not None:
                notes.remark(one.place, f"{one.rip} is the director itself, as is {itself.rip}")
                continue
            itself = found
        if found is not None:
            yield found


def _server(
    one: Destination, version: int, vips: set[IPAddress], notes: Notes
) -> Destination | None:
    """Return a real server as it can be in a topology; None if it cannot, and why is noted."""
    if one.rip in vips or one.rip.is_loopback:
        if one.rip.version != version:
            notes.remark(one.place, f"{one.rip} is the director itself, of another IP version")
            return None
        if one.rip.is_loopback and one.forward is ForwardingMethod.NAT:
            # "stopping DNAT to loopback address": ip_vs_nat_xmit in ip_vs_xmit.c.
            notes.remark(
                one.place,
                f"{one.rip} by NAT: the kernel drops what would be rewritten to a loopback "
                "address, so that clients get no answer: write DR, or the director's own address",
            )
            return None
        one = replace(one, local=True)
    elif not _can_be_host(one.rip):
        notes.remark(one.place, f"no host can have the address {one.rip}")
        return None
    if max(one.upper, one.lower) > MAX_THRESHOLD:
        notes.remark(one.place, f"thresholds above {MAX_THRESHOLD}: no limit in the topology")
    elif one.upper < one.lower:
        hint = "a lower threshold is at most the upper one"
        message = f"lower threshold {one.lower} is above the upper one, {one.upper}"
        notes.wrong(one.place, message, hint)
    return one


def _sorry_server(
    one: Destination, servers: tuple[Destination, ...], vips: set[IPAddress], notes: Notes
) -> Destination | None:
    """Return a sorry server as it can be in a topology; None if it cannot, and why is noted."""
    version = next((other.rip.version for other in servers), one.rip.version)
    found = _server(one, version, vips, notes)
    if found is None:
        return None
    if any(one.rip == other.rip or (found.local and other.local) for other in servers):
        what = "is a real server of the service too: a topology has it once"
        if any(one.rip == other.rip and not other.weight for other in servers):
            what = (
                "stays in the table with weight 0 (sorry_server_inhibit): that is all the topology "
                "has of it, because its sorry servers are in the table only while they are in use"
            )
        notes.remark(one.place, f"sorry_server {one.rip} {what}")
        return None
    return found


def default_method(service: Service) -> ForwardingMethod:
    """Return the forwarding method that most of a service's real servers have."""
    methods = [one.forward for one in service.destinations]
    return max(dict.fromkeys(methods), key=methods.count, default=service.forward)


def protocol_of(service: Service) -> Protocol:
    """Return a service's transport protocol; of a mark, the one that its settings are for."""
    if service.protocol is not None:
        return service.protocol
    only_udp = "ops" in service.flags or service.engine in list(PersistenceEngine)
    return Protocol.UDP if only_udp else Protocol.TCP


def marked_ports(service: Service) -> tuple[int, ...]:
    """Return the ports to assume for a mark: its real servers' own where they cannot be mapped."""
    fixed = {one.port for one in service.destinations if one.forward is not ForwardingMethod.NAT}
    return tuple(sorted(fixed - {0})) or ASKED_OF_ANY


# ── text ─────────────────────────────────────────────────────────────────────────────────────


class _Writer:
    """Writes one topology."""

    def __init__(
        self,
        configuration: Configuration,
        name: str,
        services: tuple[Service, ...],
        around: Surroundings,
        directors: Redundant | None,
        routes: KeptRoutes,
        remarks: tuple[Remark, ...],
    ) -> None:
        self._configuration, self._name = configuration, name
        self._services, self._around, self._remarks = services, around, remarks
        self._directors, self._routes = directors, routes
        self.assumptions: list[str] = []
        rips = dict.fromkeys(one.rip for service in services for one in service.servers)
        self._nodes = node_names(rips)

    def _assume(self, text: str) -> str:
        self.assumptions.append(text)
        return f"  # assumed: {text}"

    def lines(self) -> Iterator[str]:
        """Yield the lines of the file."""
        source = self._configuration.source
        program = self._configuration.program
        yield f"# The lab of {_printable(source)} ({program}), written by lvsctl import."
        yield "# What is `assumed` is not from the file: change it to what is so at your site."
        if self._remarks:
            yield "#"
            yield "# Not carried over:"
            for remark in self._remarks:
                yield from textwrap.wrap(
                    _printable(str(remark)),
                    98,
                    initial_indent="#   ",
                    subsequent_indent="#       ",
                    break_on_hyphens=False,
                )
        yield "version: 1"
        yield f"name: {self._name}"
        yield f"description: {program}'s virtual services of {_plain(source)}"
        yield ""
        yield "networks:"
        yield from map(self._network, self._around.segments)
        yield ""
        yield "nodes:"
        yield from self._hosts()
        yield ""
        yield "services:"
        namer = _Namer()
        for service in self._services:
            yield from self._service(service, namer.name(service))

    def _network(self, segment: Segment) -> str:
        subnets = ", ".join(
            f"ipv{version}: {_quoted(segment.subnets[version])}"
            for version in sorted(segment.subnets)
        )
        line = f"  {segment.name}: {{{subnets}}}"
        if not segment.assumed:
            return line
        named = " and ".join(str(subnet) for subnet in segment.subnets.values())
        return line + self._assume(f"{named}: {segment.assumed}")

    def _hosts(self) -> Iterator[str]:
        around = self._around
        client = f"  client: {{role: client, networks: [{OUTSIDE}]}}"
        yield client + self._assume("one client")
        router = _names(around.router)
        networks = router_networks(around, self._routes.gateways)
        yield f"  router: {{role: router, networks: {networks}}}" + self._assume(
            f"a router between {router}, which carries replies of dr and tun"
        )
        yield from self._director_lines()
        for rip, node in self._nodes.items():
            segment = around.server_segments[rip]
            yield f"  {node}: {{role: real-server, networks: {{{segment.name}: {_quoted(rip)}}}}}"

    def _director_lines(self) -> Iterator[str]:
        networks = f"[{_names(self._around.director)}]"
        settings = ""
        if (timeouts := self._configuration.timeouts) is not None:
            of_idle = f"tcp: {timeouts.tcp}, tcp_fin: {timeouts.tcp_fin}, udp: {timeouts.udp}"
            settings = f", timeouts: {{{of_idle}}}"
        if entries := list(route_entries(self._routes.routes)):
            settings += f", routes: [{', '.join(entries)}]"
        found = self._directors
        if found is None:
            line = f"  director: {{role: director, networks: {networks}{settings}}}"
            yield line + self._assume("its own addresses are chosen")
            return
        # One that takes over from another: the file is one's, its role is theirs.
        notes = "".join(map(self._assume, found.assumptions))
        if not found.named:
            alike = f"networks: {networks}, count: {found.number}{settings}"
            ha = ", ".join((f"priority: {found.priority}", *found.ha))
            yield f"  director: {{role: director, {alike}, ha: {{{ha}}}}}{notes}"
        for position, (name, addresses) in enumerate(found.named):
            own = ", ".join(
                f"{network}: {'null' if address is None else _quoted(address)}"
                for network, address in addresses.items()
            )
            priority = max(1, found.priority - STEP * position)
            ha = ", ".join((f"priority: {priority}", *found.ha))
            line = f"  {name}: {{role: director, networks: {{{own}}}{settings}, ha: {{{ha}}}}}"
            yield line + (notes if position else "")

    def _service(self, service: Service, name: str) -> Iterator[str]:
        match = service.match
        yield f"  - name: {name}  # {_printable(str(service.place))}"
        if isinstance(match, VipPort):
            yield f"    vip: {_quoted(match.vip)}"
            yield f"    port: {match.port or 'any'}"
        else:
            yield from self._marked(service, match)
        yield f"    protocol: {protocol_of(service)}"
        method = default_method(service)
        yield f"    forward: {method}"
        # Only a service of tunnels has one for all its real servers.
        encapsulation = usual = str(Encapsulation.IPIP)
        if method is ForwardingMethod.TUN:
            encapsulation = _default_encapsulation(service)
        if encapsulation != usual:
            yield f"    encapsulation: {encapsulation}"
        yield f"    scheduler: {_scheduler(service)}"
        if service.persistence:
            yield f"    persistence: {_persistence(service)}"
        if "ops" in service.flags:
            yield "    one_packet: true"
        yield "    real_servers:"
        for one in service.destinations:
            entry = ", ".join(_entry(one, self._node(one), match, method, encapsulation))
            yield f"      - {{{entry}}}{_said_otherwise(one)}"
        if service.sorry is not None:
            sorry = replace(service.sorry, weight=1, upper=0, lower=0)
            entry = ", ".join(_entry(sorry, self._node(sorry), match, method, encapsulation))
            yield f"    sorry_server: {{{entry}}}{_said_otherwise(sorry)}"

    def _node(self, one: Destination) -> str:
        return "director" if one.local else self._nodes[one.rip]

    def _marked(self, service: Service, match: Mark) -> Iterator[str]:
        vip, why = self._around.marked_vips[match]
        ports = list(marked_ports(service))
        yield f"    vip: {_quoted(vip)}" + self._assume(f"VIP {vip} of fwmark {match.mark}: {why}")
        yield f"    fwmark: {match.mark}"
        yield f"    ports: {ports}" + self._assume(
            f"ports {' and '.join(map(str, ports))} get mark {match.mark}: "
            "the director's packet filter decides it"
        )


def _said_otherwise(one: Destination) -> str:
    """A comment with the address of a real server that is the director itself."""
    return f"  # {one.rip} in the file" if one.local else ""


def _entry(
    one: Destination,
    node: str,
    match: VipPort | Mark,
    method: ForwardingMethod,
    encapsulation: str,
) -> Iterator[str]:
    yield f"node: {node}"
    if one.rip.version != match.version:
        yield f"family: ipv{one.rip.version}"
    if one.port not in (
        0,
        match.port if isinstance(match, VipPort) else 0,
    ):  # 0: IPVS keeps the port (ip_vs_schedule)
        yield f"port: {one.port}"
    if one.weight != 1:
        yield f"weight: {one.weight}"
    if one.forward is not method:
        yield f"forward: {one.forward}"
    if one.forward is ForwardingMethod.TUN and _encapsulation(one) != encapsulation:
        yield f"encapsulation: {_encapsulation(one)}"
    if max(one.upper, one.lower) <= MAX_THRESHOLD:
        if one.upper:
            yield f"upper: {one.upper}"
        if one.lower:
            yield f"lower: {one.lower}"


def _encapsulation(one: Destination) -> str:
    """Return the key's value for a tunnel, with what is not usual."""
    words = []
    if one.encapsulation is Encapsulation.GUE and one.tunnel_port not in (0, GUE_PORT):
        words.append(f"port: {one.tunnel_port}")
    if one.checksum is not TunnelChecksum.NONE:
        words.append(f"checksum: {one.checksum}")
    if not words:
        return str(one.encapsulation)
    return f"{{type: {one.encapsulation}, {', '.join(words)}}}"


def _default_encapsulation(service: Service) -> str:
    kinds = [
        _encapsulation(one) for one in service.destinations if one.forward is ForwardingMethod.TUN
    ]
    return max(dict.fromkeys(kinds), key=kinds.count, default=str(Encapsulation.IPIP))


def _scheduler(service: Service) -> str:
    names = [_FLAG_WORDS[flag] for flag in service.flags if flag != "ops"]
    if not names:
        return str(service.scheduler)
    return f"{{name: {service.scheduler}, flags: [{', '.join(names)}]}}"


def _persistence(service: Service) -> str:
    if not (service.netmask or service.engine):
        return str(service.persistence)
    words = [f"timeout: {service.persistence}"]
    if service.netmask:
        words.append(f"netmask: {service.netmask}")
    if service.engine:
        words.append(f"engine: {service.engine}")
    return f"{{{', '.join(words)}}}"


def node_names(rips: Iterable[IPAddress]) -> dict[IPAddress, str]:
    """Name each real server after its address, so that it keeps its name when others come and go.

    As much of the address as tells them apart: rs-0-11 is 192.168.0.11.
    """
    found = list(rips)
    short = {rip: [_node_name(rip, parts) for parts in (2, 3, 4)] for rip in found}
    for index in range(3):
        names = [choices[index] for choices in short.values()]
        if len(set(names)) == len(names) and max(map(len, names), default=0) <= MAX_INTERFACE_NAME:
            return {rip: choices[index] for rip, choices in short.items()}
    return {rip: f"rs{number}" for number, rip in enumerate(found, 1)}


def _node_name(rip: IPAddress, parts: int) -> str:
    if rip.version == 4:
        return "-".join(["rs", *str(rip).split(".")[-parts:]])
    words = rip.exploded.split(":")[-parts + 1 :]
    return "-".join(["rs6", *(word.lstrip("0") or "0" for word in words)])


class _Namer:
    """Names services by protocol and port, with a number where several have both."""

    def __init__(self) -> None:
        self._used: dict[str, int] = {}

    def name(self, service: Service) -> str:
        """Return a name that no service before has."""
        match = service.match
        if isinstance(match, VipPort):
            base = f"{match.protocol}-{match.port or 'any'}"
        else:
            base = f"fwmark-{match.mark}"
        self._used[base] = self._used.get(base, 0) + 1
        return base if self._used[base] == 1 else f"{base}-{self._used[base]}"


def _names(segments: tuple[Segment, ...]) -> str:
    return ", ".join(segment.name for segment in segments)


def _quoted(value: object) -> str:
    text = str(value)
    return f"'{text}'" if ":" in text else text


def _printable(text: str) -> str:
    return "".join(sign if sign.isprintable() else "?" for sign in text)


def _plain(text: str) -> str:
    """Return a file's name that YAML reads as it is."""
    return re.sub(r"[^A-Za-z0-9._/-]+", "?", text)[-200:]
