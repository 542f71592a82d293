"""A topology and real hosts: collect, check."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from lvsctl.cli import options, sources
from lvsctl.cli.failure import ExitStatus
from lvsctl.cli.help import Command, new_app
from lvsctl.cli.output import Format, show, show_json, style
from lvsctl.errors import UsageError
from lvsctl.formats.hosts import document
from lvsctl.plan import planner

app = new_app()

_SECONDS = 30.0


@app.command(cls=Command)
def collect() -> None:
    """Print a script that collects a host's state for check.

    The script is for a POSIX shell with iproute2 (4.19 or newer). Run it on each director and each
    real server, as root if everything is to be read, and keep what it prints in one file per host.

    It prints the host's name and kernel release, links, addresses, routes, policy rules,
    neighbours, listening sockets with the names of their programs, the sysctls of IP and IPVS, the
    IPVS table, the rules of packet filters and traffic control with their comments, whether
    keepalived or ldirectord runs, which processes are stopped, and packet counters. It reads no
    configuration file, log, command line, environment, packet, connection, key or password, and it
    changes nothing.

    Examples:
      lvsctl collect > collect.sh
      ssh root@rs1 sh -s <collect.sh >state/rs1.txt
      lvsctl check ./site.yaml --from state
    """
    show(document.script())


@app.command(cls=Command)
def check(
    topology: options.Topology,
    from_: Annotated[
        Path | None,
        typer.Option(
            "--from", metavar="DIR", help="Directory with one collected file per host: HOST.txt."
        ),
    ] = None,
    inventory: Annotated[
        str | None,
        typer.Option(
            "--inventory", "-i", metavar="FILE", help="Ansible inventory: ask its hosts by ssh."
        ),
    ] = None,
    sudo: Annotated[
        bool, typer.Option("--sudo", help="With --inventory: collect with sudo -n on each host.")
    ] = False,
    timeout: Annotated[
        float,
        typer.Option(
            "--timeout",
            metavar="SECONDS",
            min=1,
            max=3600,
            callback=options.refuse_nan,
            help="With --inventory: seconds that each host has to answer.",
        ),
    ] = _SECONDS,
    capture: Annotated[
        bool,
        typer.Option(
            "--capture",
            help="With --inventory: also send requests from here, capture them by tcpdump on the "
            "hosts, and decide the claims of verify.",
        ),
    ] = False,
    wanted: options.As = Format.TEXT,
) -> ExitStatus:
    """Compare real hosts with a topology, by the rules of diagnose.

    Reads what `lvsctl collect` printed on each host, or runs the same script by ssh (BatchMode: it
    asks for no password; keys and jump hosts are those of ssh_config). Addresses, routes, sysctls,
    neighbours, tunnels, MTUs, listeners and the IPVS table are compared with what the forwarding
    methods need, and each service's packets are followed through the packet filters. Each cause
    comes with the command that fixes it, to be typed on that host. Nothing is changed on a host, no
    request is sent, and nothing secret is read (lvsctl collect --help).

    A host is a node of the topology by its name or its addresses; its interfaces may have any
    name. What a host has besides is no cause. A rule that needs requests or frames says nothing.
    The exit status is 0 only if every director and every real server was judged, no cause was
    found, and every claim passes.

    With --capture, this machine is the client: as root, it sends requests (GET /) to every TCP
    service. tcpdump on each host, as root there, writes into a temporary directory that is removed:
    this machine's packets, ARP and neighbour discovery, ICMP, tunnels' packets, and on directors
    the first packet of others' connections. Claims of verify that other clients' traffic
    disturbs, and those that no frame shows, are inconclusive.

    Examples:
      lvsctl check ./site.yaml --from state
      lvsctl check ./site.yaml --inventory inventory.yml
      lvsctl check keepalived.conf -i hosts.ini --sudo --timeout 10
      lvsctl check ./site.yaml --inventory inventory.yml --capture
      lvsctl check ./site.yaml --from state --format json
    """
    from lvsctl.engine import ask_hosts
    from lvsctl.engine.check import check as compare
    from lvsctl.formats.hosts.inventory import INVENTORY, read_inventory
    from lvsctl.output.text.check import format_check
    from lvsctl.topology import shipped

    if (from_ is None) == (inventory is None):
        raise UsageError(
            "name the hosts: --from DIR or --inventory FILE",
            hint="lvsctl check ./site.yaml --inventory inventory.yml",
        )
    if from_ is not None and sudo:
        raise UsageError("--sudo is for --inventory: a collected file is read as it is")
    if from_ is not None and capture:
        raise UsageError("--capture is for --inventory: a collected file has no frames")
    lab = planner.load_lab(sources.find_topology(topology))
    if from_ is not None:
        result = compare(lab, ask_hosts.from_directory(from_))
    else:
        assert inventory is not None  # noqa: S101 - for the type checker
        found = shipped.read_file(inventory, sys.stdin.buffer, INVENTORY)
        hosts = read_inventory(found.text, found.source)
        if capture:
            from lvsctl.engine.check_frames import check_by_ssh  # with all of the engine

            result = check_by_ssh(lab, hosts, timeout, sudo=sudo)
        else:
            result = compare(lab, ask_hosts.by_ssh(hosts, timeout, sudo=sudo))
    if wanted is Format.JSON:
        show_json(result)
    else:
        show(format_check(result, style=style()))
    return ExitStatus.OK if result.healthy else ExitStatus.CLAIM_FAILED
