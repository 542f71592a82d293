"""Faults on real labs: injected, seen by ip and ipvsadm, restored; and the whole proof."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from lvsctl.engine.campaign import Trial
from lvsctl.engine.faults import (
    applicable_faults,
    inject_fault,
    list_faults,
    prove_claims,
    restore_faults,
    run_matrix_column,
    show_fault,
)
from lvsctl.engine.findings import Inspection
from lvsctl.engine.inspect import diagnose_lab, inspect_lab, verify_lab
from lvsctl.engine.labs import list_labs
from lvsctl.engine.up import bring_up
from lvsctl.errors import UsageError
from lvsctl.faults import FAULTS
from lvsctl.kernel import paths
from lvsctl.model.claim import Verdict
from lvsctl.model.lab import Lab
from lvsctl.model.state import Counters, NodeState
from lvsctl.output.text.faults import format_proof
from lvsctl.output.text.style import Style
from lvsctl.topology import shipped
from tests.kernel.by_hand import run
from tests.kernel.labs import lab_up, topology_of

pytestmark = pytest.mark.ipvs


def covering(lab: Lab) -> tuple[str, ...]:
    """A few faults that break every claim which any fault of the lab breaks."""
    left = {name: set(show_fault(lab, name).predicted) for name in applicable_faults(lab.name)}
    chosen = []
    while any(left.values()):
        best = max(left, key=lambda name: len(left[name]))
        chosen.append(best)
        broken = left[best]
        left = {name: claims - broken for name, claims in left.items()}
    return tuple(chosen)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "only"),
    # Every fault takes five seconds: all of them in every topology are for `make test-all`.
    [
        ("dr", covering),
        *(pytest.param(n, lambda _: (), marks=pytest.mark.exhaustive) for n in shipped.names()),
    ],
    ids=lambda word: word if isinstance(word, str) else "",
)
def test_every_claim_of_a_shipped_topology_can_fail(
    name: str, only: Callable[[Lab], tuple[str, ...]]
) -> None:
    with lab_up(name) as lab:
        proof = prove_claims(lab, lambda _: None, only=only(lab))
        assert proof.holds, format_proof(proof, style=Style(color=False, width=200))
        assert paths.read_faults(lab.name) == ()


SOME = (
    ("dr", ("vip-missing", "input-rejected", "port-isolated")),
    ("nat", ("wrong-gateway",)),
    ("tun", ("rp-filter-on-tunnel",)),
    ("dns", ("one-packet-missing",)),
)
"""Always run: one of each forwarding method's own. All others in `make test-all`."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "only"),
    [*SOME, *(pytest.param(n, (), marks=pytest.mark.exhaustive) for n in shipped.names())],
)
def test_a_fault_is_named_first_breaks_what_it_must_and_is_mended(
    name: str, only: tuple[str, ...]
) -> None:
    column = run_matrix_column(name, only)
    assert column.before.healthy, column.before.text
    assert {cell.trial.fault.id for cell in column.cells} == set(only or applicable_faults(name))
    assert [f"{cell.trial.fault.id}: {cell.wrong}" for cell in column.cells if not cell.holds] == []
    assert f"matrix-{name}" not in [listed.entry.lab for listed in list_labs()]


At = tuple[str, str]
"""A fault and its node."""

PAIRS: tuple[tuple[str, At, At], ...] = (
    ("dr", ("vip-missing", "rs1"), ("arp-ignore-unset", "rs2")),
    ("dr", ("vip-missing-on-director", "director"), ("vip-missing", "rs1")),
    ("dr", ("service-missing", "director"), ("service-stopped", "rs2")),
    ("dr", ("arp-announce-unset", "rs1"), ("real-server-drained", "director")),
    ("dr", ("stale-vip-neighbour", "client"), ("service-stopped", "rs1")),
    ("dr", ("scheduler-changed", "director"), ("vip-on-lan", "rs2")),
    ("dr-weighted", ("weight-changed", "director"), ("arp-ignore-on-lo-only", "rs2")),
    ("dr-routed", ("router-not-forwarding", "router"), ("arp-announce-unset", "rs1")),
    ("dr-routed", ("gateway-is-director", "rs1"), ("vip-missing", "rs2")),
    ("dr-routed", ("behind-router", "director"), ("no-default-gateway", "rs2")),
    ("nat", ("ip-forward-off", "director"), ("wrong-gateway", "rs1")),
    ("nat", ("no-default-gateway", "rs2"), ("wrong-port", "director")),
    ("nat", ("real-server-removed", "director"), ("service-stopped", "rs2")),
    ("nat-one-arm", ("ip-forward-off", "director"), ("redirects-sent", "director")),
    ("nat-one-arm", ("router-not-forwarding", "router"), ("wrong-gateway", "rs1")),
    ("tun", ("tunnel-down", "rs1"), ("rp-filter-on-tunnel", "rs2")),
    ("tun", ("icmp-filtered", "router"), ("service-stopped", "rs1")),
    ("tun", ("tunnel-filtered", "router"), ("vip-missing", "rs-far")),
    ("tun", ("no-route-to-real-server", "director"), ("rp-filter-on-router", "router")),
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "one", "other"),
    [
        pytest.param(*row, marks=pytest.mark.exhaustive) if number % 8 else row
        for number, row in enumerate(PAIRS)
    ],
    ids=lambda word: word if isinstance(word, str) else f"{word[0]}@{word[1]}",
)
def test_two_faults_are_both_named_or_the_hidden_one_once_the_other_is_mended(
    name: str, one: At, other: At
) -> None:
    with lab_up(name) as lab:
        for fault, node in (one, other):
            inject_fault(lab, fault, node)
        named = causes(lab)
        assert named[0] in (one, other)
        assert set(named) <= {one, other}, "two mistakes, no third cause"
        if len(named) == 1:
            restore_faults(lab, *named[0])
            assert causes(lab) == [other if named[0] == one else one]
        restore_faults(lab)
        assert diagnose_lab(lab).healthy


def causes(lab: Lab) -> list[At]:
    return [(cause.fault, cause.node) for cause in diagnose_lab(lab).causes]


@pytest.fixture
def dr() -> Iterator[Lab]:
    with lab_up("dr") as lab:
        yield lab


@pytest.fixture
def tun() -> Iterator[Lab]:
    with lab_up("tun") as lab:
        yield lab


def state_of(lab: Lab) -> str:
    """What ip, tc and ipvsadm say of every node: independent witnesses."""
    told = []
    for node in lab.nodes:
        netns = lab.netns(node.name)
        told += [run(f"ip -n {netns} -o {words}") for words in ("addr", "route", "link")]
        told += [run(f"ip -n {netns} neigh show nud permanent")]
        told += [run(f"tc -n {netns} qdisc"), run("sysctl net.ipv4.conf", netns=netns)]
    told.append(run("ipvsadm -Sn", netns=lab.netns(lab.directors[0].name)))
    return "\n".join(told)


def without_order(text: str) -> list[str]:
    return sorted(text.splitlines())


def configured(found: Inspection) -> list[NodeState]:
    """The nodes' states without what traffic leaves: quicker than the witnesses."""
    return [
        replace(
            state,
            neighbours=tuple(n for n in state.neighbours if n.state == "permanent"),
            routes=tuple(sorted(state.routes, key=str)),
            services=tuple(
                service._replace(
                    counters=Counters(),
                    real_servers=tuple(
                        server._replace(counters=Counters())
                        for server in sorted(service.real_servers, key=lambda s: s.rip)
                    ),
                )
                for service in state.services
            ),
            connections=(),
            # One process serves all ports: another one, where a port is opened or closed.
            listeners=tuple(one._replace(pid=0, state="") for one in state.listeners),
            processes=(),
            # A table that was used once stays, and lets everything pass.
            packet_filters=tuple(rule for rule in state.packet_filters if rule.foreign),
        )
        for state in found.states.values()
    ]


def lacking(*others: str) -> Callable[[Lab], tuple[str, ...]]:
    """The faults of a lab that none of the other shipped topologies has."""
    elsewhere = {name for other in others for name in applicable_faults(other)}
    return lambda lab: tuple(n for n in applicable_faults(lab.name) if n not in elsewhere)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "only", "first"),
    [
        ("nat", lacking(), 1),
        ("tun", lacking("nat"), 1),
        ("dr", lacking("nat", "tun"), 1),
        *(pytest.param(n, lacking(), None, marks=pytest.mark.exhaustive) for n in shipped.names()),
    ],
    ids=lambda word: word if isinstance(word, str) else "",
)
def test_restoring_leaves_no_trace(
    name: str, only: Callable[[Lab], tuple[str, ...]], first: int | None
) -> None:
    """At the ``first`` of the nodes where each fault can be; None: at all of them."""
    with lab_up(name) as lab:
        before, told = configured(inspect_lab(lab)), without_order(state_of(lab))
        for one in list_faults(lab):
            for node in one.nodes[:first] if one.fault.id in only(lab) else ():
                inject_fault(lab, one.fault.id, node)
                restore_faults(lab, one.fault.id)
                found = inspect_lab(lab)
                assert configured(found) == before, one.fault.id
                assert [one.text for one in found.deviations] == [], one.fault.id
        assert without_order(state_of(lab)) == told
        assert not bring_up(topology_of(name)).changed


def test_up_mends_what_is_broken_on_purpose(tun: Lab) -> None:
    before = without_order(state_of(tun))
    inject_fault(tun, "icmp-filtered")
    inject_fault(tun, "stale-vip-neighbour")
    inject_fault(tun, "service-stopped", "rs2")
    again = bring_up(topology_of("tun"))
    assert again.restored == (
        "icmp-filtered at router",
        "stale-vip-neighbour at router",
        "service-stopped at rs2",
    )
    assert without_order(state_of(tun)) == before
    assert verify_lab(tun).verdict is Verdict.PASS


def test_ls_and_inspect_say_that_a_lab_is_broken_on_purpose(dr: Lab) -> None:
    inject_fault(dr, "vip-missing", "rs2")
    assert list_labs()[0].faults == ("vip-missing at rs2",)
    assert inspect_lab(dr).faults == ("vip-missing at rs2",)
    assert "10.10.0.100" not in run("ip -n lvs-dr-rs2 addr show dev lo")
    assert restore_faults(dr) == ("vip-missing at rs2",)
    assert list_labs()[0].faults == ()


def test_a_fault_at_every_real_server_leaves_none_that_listens(dr: Lab) -> None:
    """One process serves all of them: it has to end with the last one."""
    for node in ("rs1", "rs2"):
        inject_fault(dr, "service-stopped", node)
    found = inspect_lab(dr).nodes
    assert [found[node].state.listeners for node in ("rs1", "rs2")] == [(), ()]
    assert list_labs()[0].answering
    restore_faults(dr)
    assert all(inspect_lab(dr).nodes[node].state.listeners for node in ("rs1", "rs2"))


def test_another_kind_of_tunnel_is_answered_by_icmp() -> None:
    """The wire shows it: the tunnelled request reaches rs1, which says that nobody takes it."""
    with lab_up("tun-gue") as lab:
        inject_fault(lab, "encapsulation-mismatch")
        said = diagnose_lab(lab)
        assert [(c.fault, c.node) for c in said.causes] == [("encapsulation-mismatch", "director")]
        assert "ICMP port unreachable about (10.50.1.2 → 10.50.2.11" in str(said.causes[0].evidence)


def test_diagnosis_does_not_read_what_was_injected(dr: Lab) -> None:
    inject_fault(dr, "vip-missing", "rs2")
    opened: list[str] = []
    listening = True

    def note(event: str, arguments: tuple[object, ...]) -> None:
        if listening and event == "open":
            opened.append(str(arguments[0]))

    sys.addaudithook(note)  # there is no way to take it back
    named = causes(dr)
    noted = str(paths.of(dr.name).faults)
    assert noted not in opened
    assert any(name.startswith("/proc/sys/net") for name in opened), "the hook hears of files"
    paths.read_faults(dr.name)
    assert noted in opened, "and would have heard of that one"
    listening = False
    assert named == [("vip-missing", "rs2")]


def test_what_cannot_be_injected_says_why(dr: Lab) -> None:
    with pytest.raises(UsageError, match="applies to nat only"):
        inject_fault(dr, "wrong-gateway")
    with pytest.raises(UsageError, match="cannot be injected at 'client'"):
        inject_fault(dr, "vip-missing", "client")
    with pytest.raises(UsageError, match="fault 'vip-mising' does not exist"):
        inject_fault(dr, "vip-mising")
    inject_fault(dr, "vip-missing")
    with pytest.raises(UsageError, match="injected already"):
        inject_fault(dr, "vip-missing")
    with pytest.raises(UsageError, match="is not injected"):
        restore_faults(dr, "vip-on-lan")


def test_an_interrupted_proof_mends_the_lab(dr: Lab) -> None:
    before = without_order(state_of(dr))

    def interrupt(_: Trial) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        prove_claims(dr, interrupt)
    assert paths.read_faults("dr") == ()
    assert without_order(state_of(dr)) == before


def test_a_lab_that_is_not_healthy_is_not_broken_further(dr: Lab) -> None:
    inject_fault(dr, "vip-missing-on-director")
    proof = prove_claims(dr, lambda _: None)
    assert not proof.holds
    assert proof.trials == ()


def test_every_fault_can_be_injected_into_some_shipped_topology() -> None:
    assert len(FAULTS) >= 24
