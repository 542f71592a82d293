"""Phrases that several outputs share."""

from __future__ import annotations

from collections.abc import Sequence

from lvsctl.model.addresses import IPAddress
from lvsctl.model.lab import Impairment, Lab, Role
from lvsctl.model.service import (
    GUE_PORT,
    Encapsulation,
    ForwardingMethod,
    FwMark,
    RealServer,
    ServiceMatch,
    VirtualService,
    tunnel_text,
)
from lvsctl.output.text.style import Style

ROLE = {
    Role.CLIENT: "client",
    Role.DIRECTOR: "director",
    Role.REAL_SERVER: "real server",
    Role.ROUTER: "router",
}


def counted(number: int, what: str) -> str:
    """``1 node``, ``2 nodes``."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def host_port(address: IPAddress, port: int) -> str:
    """``address:port``, IPv6 in brackets; the address alone where the port is any (0)."""
    if not port:
        return str(address)
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"


def method(service: VirtualService) -> str:
    """The forwarding methods, each with its encapsulations unless they are IPIP alone."""
    words = []
    for one in service.methods:
        tunnels = dict.fromkeys(_tunnel(s) for s in service.by(one))
        plain = one is not ForwardingMethod.TUN or set(tunnels) <= {Encapsulation.IPIP}
        words.append(str(one) if plain else f"{one} ({', '.join(tunnels)})")
    return " and ".join(words)


def _tunnel(server: RealServer) -> str:
    """An encapsulation, with what is not usual about it."""
    port = server.tunnel_port if server.tunnel_port != GUE_PORT else 0
    return tunnel_text(server.encapsulation, port, server.checksum.flags)


def match_phrase(match: ServiceMatch) -> str:
    """What identifies a virtual service: protocol, VIP and port, or the firewall mark."""
    if isinstance(match, FwMark):
        return str(match)
    return f"{match.protocol} {host_port(match.vip, match.port)}"


def marked_phrase(match: FwMark) -> str:
    """What gets a firewall mark: ``tcp 10.10.0.100, 10.10.0.101 ports 80, 443``."""
    first = match.endpoints[0]
    vips = ", ".join(dict.fromkeys(str(endpoint.vip) for endpoint in match.endpoints))
    ports = ", ".join(map(str, match.ports))
    several = len(match.ports) > 1 or any(one.first < one.last for one in match.ports)
    return f"{first.protocol} {vips} " + (f"port{'s' * several} {ports}" if ports else "any port")


def service_line(service: VirtualService) -> str:
    """A virtual service in one line: protocol, VIP, method, scheduler."""
    words = [
        match_phrase(service.match),
        *([marked_phrase(service.match)] if isinstance(service.match, FwMark) else []),
        method(service),
        " ".join((str(service.scheduler), ",".join(service.flags))).rstrip(),
    ]
    if service.persistence:
        words.append(f"persistent {service.persistence} s")
        words += [f"netmask {service.netmask}"] if service.netmask else []
    words += [f"engine {service.engine}"] if service.engine else []
    if service.snat:
        words.append("snat")
    if service.one_packet:
        words.append("one-packet")
    return "  ".join(words)


def impaired(impairment: Impairment) -> str:
    """Describe an impairment; empty if there is none."""
    words = []
    if impairment.delay:
        more = f" ± {impairment.jitter:g}" if impairment.jitter else ""
        words.append(f"{impairment.delay:g}{more} ms each way")
    for share, what in (
        (impairment.loss, "lost"),
        (impairment.reorder, "sent early"),
        (impairment.duplicate, "sent twice"),
        (impairment.corrupt, "damaged"),
    ):
        if share:
            words.append(f"{share:g} % {what}")
    if impairment.rate:
        words.append(rate(impairment.rate))
    return ", ".join(words)


def rate(bits: int) -> str:
    """Bits per second with the largest suitable unit."""
    for unit, size in (("Gbit/s", 10**9), ("Mbit/s", 10**6), ("kbit/s", 10**3)):
        if bits >= size:
            return f"{bits / size:g} {unit}"
    return f"{bits} bit/s"


def duration(seconds: float) -> str:
    """A duration with its two largest units."""
    left = int(seconds)
    words = []
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        number, left = divmod(left, size)
        if number:
            words.append(f"{number} {unit}")
    return " ".join(words[:2]) or "0 s"


def url(service: VirtualService) -> str:
    """The service's URL, for curl."""
    vip = service.endpoint.vip
    host = f"[{vip}]" if vip.version == 6 else str(vip)
    port = "" if service.endpoint.port == 80 else f":{service.endpoint.port}"
    return f"http://{host}{port}/"


def vips(lab: Lab, node: str) -> tuple[IPAddress, ...]:
    """The VIPs that ``node`` holds: a director all, a real server those of TUN and DR."""
    role = lab.node(node).role
    held = (
        vip
        for service in lab.services
        for vip in service.vips
        if role is Role.DIRECTOR
        or any(
            server.node == node and server.forward is not ForwardingMethod.NAT
            for server in service.prepared.real_servers
        )
    )
    return tuple(dict.fromkeys(held))


def listed(names: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def injected_faults(lab: str, faults: Sequence[str], style: Style) -> str:
    """Report that a lab has injected faults, and how to remove them."""
    remedy = f"remove: lvsctl fault restore --lab {lab}"
    told = f"{lab} has injected faults: {', '.join(faults)}; {remedy}"
    return style.yellow(style.wrapped(told, hanging=2))
