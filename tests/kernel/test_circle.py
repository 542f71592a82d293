"""A configuration goes round: imported, up, verified, exported, applied, verified.

What is exported is applied to the directors of the running lab, whose tables are empty and whose
VIPs are gone by then: first the rules by ipvsadm, then the file by keepalived, with VRRP.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lvsctl.claims.distribution import requests_needed
from lvsctl.engine.inspect import verify_lab
from lvsctl.formats import readers, writers
from lvsctl.formats.ipvs_table import Rule, table
from lvsctl.formats.to_topology import to_topology
from lvsctl.kernel import state
from lvsctl.model.addresses import IPAddress
from lvsctl.model.claim import Verdict
from lvsctl.model.lab import Lab
from lvsctl.plan import planner
from lvsctl.resources.ipvs_real_server import IpvsRealServer
from lvsctl.resources.ipvs_service import IpvsService
from lvsctl.topology import shipped
from lvsctl.topology.shipped import Topology
from tests.formats import corpus_files as corpus
from tests.kernel.by_hand import end_keepalived, eventually, run
from tests.kernel.labs import lab_up
from tests.witness import witness

pytestmark = [pytest.mark.ipvs, pytest.mark.exhaustive]


def rows() -> Iterator[object]:
    texts = {path.name: path for path in (*corpus.FILES, *corpus.LDIRECTORD)} | dict.fromkeys(
        shipped.names()
    )
    for name, path in texts.items():
        yield pytest.param(name, path, id=name)


def text_of(name: str, path: Path | None) -> str:
    """The topology of a shipped name, or of a file of the corpus."""
    if path is None:
        return shipped.text_of(name)
    return to_topology(corpus.configuration_of(path), "circle").text


def rules_of(lab: Lab, director: str) -> frozenset[Rule]:
    """A director's IPVS table."""
    found = state.node_state(lab.netns(director), sysctls=(), director=True)
    return frozenset((*IpvsService.from_state(found), *IpvsRealServer.from_state(found)))


def failed(lab: Lab) -> list[str]:
    """The claims that do not pass; none are asked of services that need too many requests."""
    # A whole round of weights 4:65535 is 65539 requests, one after the other.
    if any(requests_needed(one, None) >= 500 for one in lab.services):
        return []
    refusing = {
        one.name for one in lab.services if not any(server.weight for server in one.real_servers)
    }
    return [
        f"{finding.service} {finding.claim.id}: {finding.verdict} {finding.observed}"
        for finding in verify_lab(lab).findings
        # Where every real server has weight 0, nothing is answered, and most cannot be decided;
        # and a short look may see no advertisement of VRRP.
        if finding.verdict is Verdict.FAIL
        or (
            finding.verdict is Verdict.INCONCLUSIVE
            and finding.service not in refusing
            and finding.claim.id != "ha.one-master"
        )
    ]


def exported(lab: Lab, target: writers.Target) -> dict[str, str]:
    """What is written for each director."""
    files = writers.export(lab, planner.plan_for(lab).resources, target)
    first = next(iter(files.values()))
    return {
        one.name: next((text for name, text in files.items() if f"-{one.name}." in name), first)
        for one in lab.directors
    }


def addresses_of(lab: Lab) -> set[IPAddress]:
    """The addresses that keepalived holds: VIPs, and gateways of real servers."""
    return {*lab.floating, *(vip for service in lab.services for vip in service.vips)}


def are_held(lab: Lab) -> bool:
    """Whether one director has all of them, and no other any; the first, where it may preempt.

    Where all are active, whether each has all of them.
    """
    held: dict[str, set[IPAddress]] = {}
    for one in lab.directors:
        found = state.node_state(lab.netns(one.name), sysctls=(), director=True)
        own = {address.ip for link in found.links for address in link.addresses}
        held[one.name] = own & addresses_of(lab)
    if lab.ecmp:
        return all(addresses == addresses_of(lab) for addresses in held.values())
    masters = [name for name, addresses in held.items() if addresses]
    first = lab.directors[0]
    return (
        len(masters) == 1
        and held[masters[0]] == addresses_of(lab)
        and (first.ha is None or not first.ha.preempt or masters == [first.name])
    )


def empty(lab: Lab) -> None:
    """Take the virtual services and the VIPs from the directors."""
    vips = addresses_of(lab)
    for director in lab.directors:
        netns = lab.netns(director.name)
        end_keepalived(netns)
        run("ipvsadm -C", netns=netns)
        for link in state.node_state(netns, sysctls=(), director=True).links:
            for held in link.addresses:
                if held.ip in vips:
                    run(f"ip -n {netns} address del {held} dev {link.name}")


@contextlib.contextmanager
def keepalived(lab: Lab, texts: dict[str, str], directory: Path) -> Iterator[None]:
    """keepalived at each director, with the files that were exported for them."""
    with contextlib.ExitStack() as running:
        for director, text in texts.items():
            file = directory / f"{director}.conf"
            # A busy machine may take longer than a check waits.
            file.write_text(re.sub(r"(connect_timeout|retry) 3\b", r"\1 30", text))
            words = [witness("keepalived"), "--dont-fork", "--log-console", "-f", str(file)]
            for option in ("pid", "checkers_pid", "vrrp_pid"):
                words += [f"--{option}", str(directory / f"{director}.{option}")]
            child = running.enter_context(
                subprocess.Popen(
                    ["ip", "netns", "exec", lab.netns(director), *words],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
            )
            running.callback(child.terminate)
        yield


@pytest.mark.parametrize(("name", "path"), [*rows()])
def test_a_configuration_goes_round(name: str, path: Path | None, tmp_path: Path) -> None:
    with lab_up(text_of(name, path)) as lab:
        assert not failed(lab)
        made = {one.name: rules_of(lab, one.name) for one in lab.directors}
        rules = exported(lab, writers.Target.IPVSADM)
        files = exported(lab, writers.Target.KEEPALIVED)
        for director, text in rules.items():
            netns, file = lab.netns(director), tmp_path / f"{director}.rules"
            file.write_text(text)
            run("ipvsadm -C", netns=netns)
            run(f"sh -c 'ipvsadm -R < {file}'", netns=netns)
            assert rules_of(lab, director) == made[director]
            read = readers.read(
                Topology("out", files[director].encode()), readers.Source.KEEPALIVED
            )
            assert frozenset(table(read.services, netns)) == made[director]
        assert not failed(lab)
        empty(lab)
        with keepalived(lab, files, tmp_path):
            eventually(lambda: {one.name: rules_of(lab, one.name) for one in lab.directors} == made)
            eventually(lambda: are_held(lab), seconds=20)
            assert not failed(lab)
