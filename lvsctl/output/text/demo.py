"""Text of ``lvsctl demo``: each mode's path, the replies, and the director's counters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from lvsctl.engine.findings import Verification
from lvsctl.model.addresses import Endpoint
from lvsctl.model.claim import Verdict
from lvsctl.model.evidence import Exchange
from lvsctl.model.lab import Lab
from lvsctl.model.service import ForwardingMethod, RealServer, VirtualService
from lvsctl.model.state import Counters, ServiceState
from lvsctl.output.text.style import Cell, Style

_TITLES = {
    ForwardingMethod.NAT: "NAT: the director rewrites addresses, both ways",
    ForwardingMethod.TUN: "TUN: the director sends requests through a tunnel",
    ForwardingMethod.DR: "DR: the director changes only MAC addresses and TTL",
}
_LONGEST_BAR = 24
_ASCII = str.maketrans({"▶": ">", "◀": "<", "═": "=", "▇": "#", "✔": "+", "✘": "!"})

_Step = tuple[str, str, str]
"""Sender and receiver, the IP addresses, and a remark."""


def title(mode: ForwardingMethod, *, style: Style) -> str:
    """Format the heading of a mode."""
    return _finished(style.bold(_TITLES[mode]), style)


def way(lab: Lab, *, style: Style) -> str:
    """Format the path of a request and its reply, with the lab's addresses."""
    service = lab.services[0]
    steps = _steps(lab, service, service.real_servers[0])
    rows = [(who, header, Cell(note, style.dim)) for who, header, note in steps]
    return _finished("\n" + style.table(rows, indent=2) + "\n ", style)


def result(
    verification: Verification,
    exchanges: Sequence[Exchange],
    counted: ServiceState | None,
    *,
    style: Style,
) -> str:
    """Format who answered ``exchanges``, IPVS's counters (``counted``), and the verdict."""
    service = verification.lab.services[0]
    where = f"{service.endpoint.vip} port {service.endpoint.port}, scheduler {service.scheduler}"
    lines = [
        f"  {len(exchanges)} requests to {where}:",
        "",
        style.table(
            _counts(service, exchanges, counted, style),
            headings=("", "answered", _right("connections"), _right("packets in"), _right("out")),
            indent=4,
        ),
        *(f"    no reply: {count} ({error})" for error, count in _failures(exchanges)),
        "",
        f"  {_remark(service)}",
        f"  {_judged(verification, style)}",
        *(
            style.wrapped(f"{finding.claim.text}: {finding.observed}", indent=4, hanging=2)
            for finding in verification.findings
            if finding.verdict is not Verdict.PASS
        ),
    ]
    return _finished("\n".join(lines) + "\n ", style)


def closing(*, activate: str = "", machine: bool = False, style: Style) -> str:
    """Format commands to try next.

    ``activate`` is the command that makes ``lvsctl`` a command of the shell, if it is not yet;
    ``machine`` is true if the throwaway kernel runs, and goes on running.
    """
    rows = [
        *([(activate, "makes lvsctl a command in this shell")] if activate else []),
        ("lvsctl up dr", "a lab that keeps running"),
        ("lvsctl exec client -- curl -s http://10.10.0.100/", "a request through its VIP"),
        ("lvsctl inspect dr director", "the IPVS table's counters"),
        ("lvsctl plan dr", "the commands behind it"),
        ("lvsctl down", "remove it"),
        *([("lvsctl machine stop", "end the throwaway kernel, which runs on")] if machine else []),
    ]
    table = style.table(
        [(Cell(words, style.cyan, whole=True), text) for words, text in rows], indent=2
    )
    return _finished(f"{style.bold('Next:')}\n{table}", style)


def _steps(lab: Lab, service: VirtualService, server: RealServer) -> list[_Step]:
    client, director = lab.default_client, lab.directors[0]
    cip = str(client.interfaces[0].addresses[0].ip)
    vip, rip = (
        str(Endpoint(service.endpoint.vip, service.endpoint.port)),
        str(Endpoint(server.rip, server.port)),
    )
    width = max(len(client.name), len(director.name))

    def hop(left: str, arrow: str, right: str) -> str:
        return f"{left.ljust(width)} {arrow} {right}"

    request = (hop(client.name, "──▶", director.name), f"{cip} → {vip}", "")
    straight = (
        hop(client.name, "◀──", server.node),
        f"{vip} → {cip}",
        "directly to the client",
    )
    if service.forward is ForwardingMethod.NAT:
        return [
            request,
            (hop(director.name, "──▶", server.node), f"{cip} → {rip}", "destination rewritten"),
            (hop(director.name, "◀──", server.node), f"{rip} → {cip}", ""),
            (hop(client.name, "◀──", director.name), f"{vip} → {cip}", "source rewritten"),
        ]
    if service.forward is ForwardingMethod.TUN:
        dip = director.interfaces[0].addresses[0].ip
        note = "encapsulated in IP"
        return [
            request,
            (hop(director.name, "══▶", server.node), f"{dip} → {server.rip}", note),
            straight,
        ]
    note = "only MACs and TTL change"
    return [request, (hop(director.name, "──▶", server.node), f"{cip} → {vip}", note), straight]


def _counts(
    service: VirtualService,
    exchanges: Sequence[Exchange],
    counted: ServiceState | None,
    style: Style,
) -> list[list[str | Cell]]:
    answers = Counter(exchange.node for exchange in exchanges if exchange.answered)
    most = max(answers.values(), default=0)
    of_server: dict[tuple[object, int], Counters] = {}
    for state in counted.real_servers if counted else ():
        of_server[state.rip, state.port] = state.counters
    rows: list[list[str | Cell]] = []
    for server in service.real_servers:
        seen = of_server.get((server.rip, server.port), Counters())
        number = answers[server.node]
        rows.append(
            [
                server.node,
                Cell(f"{'▇' * _length(number, most)} {number}".strip(), style.green),
                _right(seen.connections),
                _right(seen.packets_in),
                _right(seen.packets_out),
            ]
        )
    return rows


def _length(number: int, most: int) -> int:
    if most <= _LONGEST_BAR:
        return number
    return max(1, round(_LONGEST_BAR * number / most)) if number else 0


def _right(value: object) -> Cell:
    return Cell(str(value), right=True)


def _failures(exchanges: Sequence[Exchange]) -> list[tuple[str, int]]:
    return Counter(one.error for one in exchanges if not one.answered).most_common()


def _remark(service: VirtualService) -> str:
    if service.forward is ForwardingMethod.NAT:
        return "Packets out are the replies: in NAT they load the director as well."
    return "No packets out: the replies never cross the director."


def _judged(verification: Verification, style: Style) -> str:
    findings = verification.findings
    passed = sum(finding.verdict is Verdict.PASS for finding in findings)
    good = passed == len(findings)
    said = f"{passed} of {len(findings)} claims pass (lvsctl verify)"
    return style.green(f"✔ {said}") if good else style.red(f"✘ {said}")


def _finished(text: str, style: Style) -> str:
    return style.finished(text if style.unicode else text.translate(_ASCII))
