"""Rules about the server process on each real server: does it listen, and does it answer?"""

from __future__ import annotations

from collections.abc import Iterator

from lvsctl.diagnosis.base import NAT, Case, Found, Rule, shown
from lvsctl.model.claim import Cause
from lvsctl.model.frame import Frame
from lvsctl.model.service import RealServer


def listening(case: Case) -> Iterator[Found]:
    """A process listens where the requests arrive, and answers them."""
    for server, node in case.members():
        port = server.port if server.forward is NAT else case.endpoint.port
        target = server.rip if server.forward is NAT else case.vip
        listeners = [
            one
            for one in case.state(node.name).listeners
            if (one.protocol, one.port) == (case.endpoint.protocol, port)
        ]
        usable = [one for one in listeners if one.address.is_unspecified or one.address == target]
        if usable:
            yield from _hanging(case, server, usable[0].process or "the server")
            continue
        fact = f"{node.name}: nothing listens on {case.endpoint.protocol} port {port}"
        if listeners:
            fact = f"{node.name}: a process listens on {listeners[0].address} port {port} only"
        yield Cause(
            fault="listens-elsewhere" if listeners else "service-stopped",
            node=node.name,
            text=(
                f"the server on a real server does not listen on {target}"
                if listeners
                else "nothing listens on a real server"
            ),
            evidence=(fact, *shown(_refusals(case, node.name))),
            consequence="the real server refuses the connections that the director forwards",
            remedy=case.up,  # starts what should be running
        )


def _refusals(case: Case, node: str) -> Iterator[Frame]:
    for frame in case.replies(node, out=True):
        if frame.tcp is not None and frame.tcp.flags & 4:
            yield frame


def _hanging(case: Case, server: RealServer, process: str) -> Iterator[Found]:
    """The kernel accepts connections for a process that is stuck and does not answer."""
    if case.served(server.node):
        return
    for conversation in case.trace.conversations:
        asked = [f for f in conversation.requests if f.tap.node == server.node and f.payload]
        said = [f for f in conversation.replies if f.tap.node == server.node]
        if asked and said and not any(f.payload for f in said):
            accepted = any(f.tcp is not None and f.tcp.is_syn_ack for f in said)
            if accepted and not conversation.exchange.answered:
                yield Cause(
                    fault="server-silent",
                    node=server.node,
                    text="the server on a real server accepts connections but does not answer",
                    evidence=(f"{process} listens there", *shown(asked)),
                    consequence="requests arrive and are acknowledged, but never answered",
                    remedy=case.type(server.node, "ss", "-tlnp"),
                )
                return


RULES = (Rule(find=listening, rules_out="a process listens and answers on every real server"),)
