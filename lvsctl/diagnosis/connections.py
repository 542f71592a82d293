"""Connections that the director had before anything was asked: what became of earlier clients."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from lvsctl.diagnosis.base import Case, Found, Rule
from lvsctl.model.claim import Remark
from lvsctl.model.state import Connection

PILE = 10
"""Half-open connections to one real server that are more than a client that has just come."""

HALF_OPEN = frozenset({"SYN_RECV", "SYN_SENT", "SYNACK"})
"""States of a connection whose handshake the client has not completed (ip_vs_proto_tcp.c)."""


def before(case: Case) -> tuple[Connection, ...]:
    """Return the entries of the service that were in the director's table before the requests."""
    learnt = case.evidence.before.get(case.director)
    endpoints = {(one.vip, one.port) for one in case.service.endpoints}
    found = learnt.connections if learnt is not None else ()
    return tuple(one for one in found if (one.vip, one.vport) in endpoints)


def half_open(case: Case) -> Iterator[Found]:
    """No connections of earlier clients wait for their handshake."""
    waiting = [one for one in before(case) if one.state in HALF_OPEN]
    for rip, count in Counter(one.rip for one in waiting).items():
        if count < PILE:
            continue
        longest = max(one.expires for one in waiting if one.rip == rip)
        node = next((s.node for s in case.service.real_servers if s.rip == rip), str(rip))
        yield Remark(
            case.director,
            f"{count} connections to {node} from before have not completed their handshake "
            f"(SYN_RECV, {longest} s left): their clients got no answer from it, or never "
            f"acknowledged one; {case.type(case.director, 'ipvsadm', '-L', '-n', '-c')} lists them",
        )


def orphans(case: Case) -> Iterator[Found]:
    """No entry leads to a real server that is in neither the table nor the topology."""
    if case.table is None:
        return
    known = {one.rip for one in case.table.real_servers}
    known |= {one.rip for one in case.service.real_servers}
    left = [one for one in before(case) if one.client_port and one.rip not in known]
    for rip, count in Counter(one.rip for one in left).items():
        expires = case.state(case.director).sysctls.get("net.ipv4.vs.expire_nodest_conn", "0")
        fate = "reset" if expires == "1" else "dropped until they time out"
        longest = max(one.expires for one in left if one.rip == rip)
        yield Remark(
            case.director,
            f"{count} connections lead to {rip}, which was removed: their packets are {fate} "
            f"(expire_nodest_conn={expires}, {longest} s left)",
        )


RULES = (
    Rule(find=half_open, rules_out="no earlier connections wait for their handshake"),
    Rule(find=orphans, rules_out="no earlier connection leads to a removed real server"),
)
