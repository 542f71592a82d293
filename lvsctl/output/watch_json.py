"""What `watch` sees, for programs: a line for each look. See ``jsonable`` for the rules."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from lvsctl.output.json_values import Json

if TYPE_CHECKING:
    from lvsctl.watch.changes import ChangeEvent
    from lvsctl.watch.view import OwnerView, ServerView, ServiceView, View

VERSION = 1


def moment(view: View) -> Json:
    """``{version, lab, time, seconds, services: [service], owners: [owner], losses: [loss],
    dropped: [drop], events: [event], troubles: [str]}``.

    ``seconds`` since the line before (0: this is the first); rates are per second over the last
    two seconds at least, since the kernel adds up IPVS's counters that often. A service is
    ``{name, protocol, vip, port, forward, scheduler, connections_per_second,
    bytes_in_per_second, bytes_out_per_second, requests: {asked, answered, errors},
    trouble, real_servers: [server]}``; ``requests`` are those of ``--traffic``, null without.
    A server is ``{name, address, port, present, weight, forward, active, inactive, half_open,
    connections, packets_in, packets_out, bytes_in, bytes_out, connections_per_second,
    bytes_in_per_second, bytes_out_per_second, received_per_second, sent_per_second,
    trouble}``: IPVS's own numbers but for the last two rates, which are bytes at the node's
    interfaces (in TUN and DR, IPVS sees no reply). ``present`` false: it is not in IPVS's table,
    and what IPVS would tell is null. ``half_open`` null: too many connections to count.
    An owner is ``{node, vip, owner, mac, state, answered}``: whom the neighbour table of a
    client or router takes for the VIP, and who answered ARP aloud (null where nobody asked).
    A loss is ``{node, counter, says, count, total}``: an nstat(8) counter that grew, by
    ``count`` since the line before and ``total`` since the first. A drop is
    ``{reason, says, count}``: packets that the kernel dropped anywhere on its host, where it
    tells. An event is ``{time, node, says}``: what changed since the line before. ``trouble``
    is null where nothing is amiss.
    """
    return {
        "version": VERSION,
        "lab": view.lab.name,
        "time": _time(view.when),
        "seconds": round(view.seconds, 3),
        "services": [_service(one) for one in view.services],
        "owners": [_owner(one) for one in view.owners],
        "losses": [asdict(one) for one in view.losses],
        "dropped": [{**asdict(one), "says": one.says} for one in view.dropped],
        "events": [_event(one) for one in view.changes],
        "troubles": list(view.troubles),
    }


def _time(when: float) -> str:
    return datetime.fromtimestamp(when, UTC).isoformat(timespec="milliseconds")


def _service(one: ServiceView) -> Json:
    asked = {"asked": one.asked, "answered": one.answered, "errors": list(one.errors)}
    return {
        "name": one.name,
        "protocol": str(one.key.protocol),
        "vip": str(one.key.vip),
        "port": one.key.port,
        "forward": str(one.forward),
        "scheduler": one.scheduler,
        "connections_per_second": _rate(one.rates.connections),
        "bytes_in_per_second": _rate(one.rates.bytes_in),
        "bytes_out_per_second": _rate(one.rates.bytes_out),
        "requests": asked if one.asked else None,
        "trouble": one.trouble or None,
        "real_servers": [_server(server) for server in one.servers],
    }


def _server(one: ServerView) -> Json:
    entry = one.entry
    counters = entry.counters if entry is not None else None
    return {
        "name": one.name,
        "address": str(one.address),
        "port": one.port,
        "present": entry is not None,
        "weight": entry.weight if entry is not None else None,
        "forward": str(entry.forward) if entry is not None else None,
        "active": entry.active if entry is not None else None,
        "inactive": entry.inactive if entry is not None else None,
        "half_open": one.half_open,
        "connections": counters.connections if counters is not None else None,
        "packets_in": counters.packets_in if counters is not None else None,
        "packets_out": counters.packets_out if counters is not None else None,
        "bytes_in": counters.bytes_in if counters is not None else None,
        "bytes_out": counters.bytes_out if counters is not None else None,
        "connections_per_second": _rate(one.rates.connections),
        "bytes_in_per_second": _rate(one.rates.bytes_in),
        "bytes_out_per_second": _rate(one.rates.bytes_out),
        "received_per_second": _rate(one.rates.received),
        "sent_per_second": _rate(one.rates.sent),
        "trouble": one.trouble or None,
    }


def _owner(one: OwnerView) -> Json:
    return {
        "node": one.node,
        "vip": str(one.vip),
        "owner": one.owner or None,
        "mac": one.mac or None,
        "state": one.state or None,
        "answered": list(one.answered) if one.answered is not None else None,
    }


def _event(one: ChangeEvent) -> Json:
    return {"time": _time(one.when), "node": one.node, "says": one.says}


def _rate(value: float) -> float:
    return round(value, 1)
