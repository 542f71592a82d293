"""The claims of services of several ports or VIPs: by firewall mark, or of any port."""

from __future__ import annotations

from lvsctl.claims.base import CheckResult, ClaimTable, inconclusive, join_names, passed_if
from lvsctl.claims.trace import Trace

CLAIMS = ClaimTable()


def _is_joined(trace: Trace) -> bool:
    return bool(trace.run.joined)


def _stays(trace: Trace) -> bool:
    return bool(trace.run.joined) and trace.run.service.keeps_client


@CLAIMS.add(
    "joined.every-port-answered",
    "every port and VIP of the service is answered, by its real servers, through IPVS",
    broken_by=("mark-missing",),
    applies=_is_joined,
    needs_frames=False,
)
def every_port_answered(trace: Trace) -> CheckResult:
    """Count the answers of each further port and VIP, and find their connections in IPVS.

    With one-packet scheduling IPVS keeps none: then a director must have forwarded the request.
    """
    run = trace.run
    names = {server.node for server in run.service.real_servers}
    if run.service.one_packet:
        seen: set[object] = {
            conversation.client
            for conversation in trace.further
            for node in trace.directors
            if conversation.passages(node, conversation.requests)
        }
    else:
        seen = {(c.client, c.client_port, c.vip, c.vport) for c in run.connections}
    lost = []
    for one in run.joined:
        good = sum(
            e.answered
            and e.node in names
            and e.local is not None
            and not seen.isdisjoint(
                (e.local, (e.local.address, e.local.port, one.endpoint.vip, one.endpoint.port))
            )
            for e in one.exchanges
        )
        if good < len(one.exchanges):
            errors = {e.error for e in one.exchanges if e.error}
            why = (
                f" ({', '.join(sorted(errors))})"
                if errors
                else ", the others by another node or not through IPVS"
            )
            lost.append(f"{one.endpoint}: {good} of {len(one.exchanges)}{why}")
    asked = join_names([str(one.endpoint) for one in run.joined])
    return passed_if(
        not lost, f"requests to {asked} answered", "; ".join(lost) or f"{asked} answered"
    )


@CLAIMS.add(
    "joined.client-stays",
    "persistence joins the ports: all of a client's connections go to one real server",
    broken_by=("persistence-missing",),
    applies=_stays,
    needs_frames=False,
)
def client_stays(trace: Trace) -> CheckResult:
    """Compare who answered the client at each port and VIP."""
    run = trace.run
    by_endpoint = {run.endpoint: {e.node for e in run.answered}}
    for one in run.joined:
        by_endpoint[one.endpoint] = {e.node for e in one.exchanges if e.answered}
    expected = f"one real server for {join_names([str(one) for one in by_endpoint])}"
    seen = {node for nodes in by_endpoint.values() for node in nodes}
    if not all(by_endpoint.values()):
        silent = [str(one) for one, nodes in by_endpoint.items() if not nodes]
        return inconclusive(expected, f"{join_names(silent)} not answered")
    return passed_if(len(seen) == 1, expected, join_names(sorted(seen)))
