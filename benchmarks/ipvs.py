"""Filling the IPVS table: `lvsctl up`'s stage beside `ipvsadm -R`, in one interleaved run.

    lvsctl machine run -- .venv/bin/python benchmarks/ipvs.py [ROUNDS]      in the machine
    sudo .venv/bin/python benchmarks/ipvs.py [ROUNDS]                       on a host with IPVS

One virtual service with 1000 real servers, and 1000 services with one each. Prints a table.
"""

from __future__ import annotations

import shlex
import statistics
import subprocess
import sys
import time
from ipaddress import ip_address
from itertools import starmap
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import report
from lvsctl.kernel import registry
from lvsctl.kernel.apply import apply_plan
from lvsctl.model.event import ignore
from lvsctl.model.service import ForwardingMethod, Protocol, RealServer, Scheduler, VipPort
from lvsctl.plan.stages import Plan, Stage
from lvsctl.resources.base import Resource
from lvsctl.resources.ipvs_real_server import IpvsRealServer
from lvsctl.resources.ipvs_service import IpvsService
from lvsctl.resources.link_up import LinkUp
from lvsctl.resources.namespace import Namespace

LAB = "ipvs-benchmark"
NETNS = f"lvs-{LAB}-director"


def service(number: int) -> IpvsService:
    vip = ip_address(f"10.1.{number >> 8}.{number & 255}")
    return IpvsService(netns=NETNS, service=VipPort(Protocol.TCP, vip, 80), scheduler=Scheduler.RR)


def server(number: int, of: IpvsService) -> IpvsRealServer:
    rip = ip_address(f"10.2.{number >> 8}.{number & 255}")
    return IpvsRealServer(
        netns=NETNS,
        service=of.service,
        real_server=RealServer(f"rs{number}", rip, 80, forward=ForwardingMethod.DR),
    )


def one_by_thousand() -> list[Resource]:
    only = service(0)
    return [only, *(server(number, only) for number in range(1000))]


def thousand_by_one() -> list[Resource]:
    pairs = ((service(number), server(number, service(number))) for number in range(1000))
    return [op for pair in pairs for op in pair]


def by_lvsctl(ops: list[Resource]) -> float:
    begun = time.perf_counter()
    apply_plan([Stage("virtual services", tuple(ops))], LAB, ignore)
    return time.perf_counter() - begun


def by_ipvsadm(ops: list[Resource]) -> float:
    words = (shlex.join(command.argv[1:]) for op in ops for command in op.commands())
    rules = "\n".join(words) + "\n"
    begun = time.perf_counter()
    command = ["ip", "netns", "exec", NETNS, "ipvsadm", "-R"]
    subprocess.run(command, input=rules, text=True, check=True)
    return time.perf_counter() - begun


def clear(expected: int) -> None:
    """An empty table again; what was in it is counted by the other of the two."""
    command = ["ip", "netns", "exec", NETNS, "ipvsadm"]
    listed = subprocess.run([*command, "-Sn"], check=True, capture_output=True, text=True).stdout
    assert len(listed.splitlines()) == expected, listed[:200]
    subprocess.run([*command, "-C"], check=True)


def main(rounds: int) -> None:
    plan = Plan(LAB, (Stage("one", (Namespace(netns=NETNS), LinkUp(netns=NETNS, device="lo"))),))
    registry.begin(registry.Entry(lab=LAB, namespaces=plan.namespaces))
    try:
        apply_plan(plan, LAB, ignore)
        print(report.heading())
        print(f"Medians of {rounds} interleaved rounds.\n")
        print(
            "| services × real servers | lvsctl, ms | ipvsadm -R, ms | ratio |\n|---|---|---|---|"
        )
        shapes = {"1 × 1000": one_by_thousand(), "1000 × 1": thousand_by_one()}
        for line in starmap(lambda name, ops: row(name, ops, rounds), shapes.items()):
            print(line, flush=True)
    finally:
        registry.remove(LAB)


def row(name: str, ops: list[Resource], rounds: int) -> str:
    ours, theirs = [], []
    for _ in range(rounds):
        for samples, fill in ((ours, by_lvsctl), (theirs, by_ipvsadm)):
            samples.append(fill(ops))
            clear(len(ops))
    a, b = statistics.median(ours), statistics.median(theirs)
    return f"| {name} | {a * 1e3:.0f} | {b * 1e3:,.0f} | {b / a:.1f} |"


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
