"""Every kind of resource answers the same questions: a new one is found here, and checked."""

from __future__ import annotations

import errno
import importlib
import pkgutil
import shlex
from dataclasses import replace
from ipaddress import ip_address
from string import Formatter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lvsctl import resources
from lvsctl.kernel import apply, undo
from lvsctl.model.lab import Lab
from lvsctl.model.packet_filter import FilterProgram
from lvsctl.model.service import Protocol, Scheduler, VipPort
from lvsctl.model.state import LinkState, NodeState
from lvsctl.output.shell_script import _PACKAGES
from lvsctl.resources.base import Command, Resource, in_namespace
from lvsctl.resources.foreign import StoppedProcess, Xfrm
from lvsctl.resources.ipvs_service import IpvsService
from lvsctl.resources.keepalived import Keepalived
from lvsctl.resources.kinds import KINDS
from lvsctl.resources.marks import Marks
from lvsctl.resources.masquerade import Masquerade
from lvsctl.resources.mss_clamp import MssClamp
from lvsctl.resources.namespace import Namespace
from lvsctl.resources.offloads import OffloadsOff
from lvsctl.resources.packet_filter import PacketFilter
from lvsctl.resources.responder_port import ResponderPort
from lvsctl.resources.sysctl import ChangedSysctl, Sysctl
from lvsctl.resources.typed import typeable
from tests.resource_values import values
from tests.unit.report_samples import lab_of

VALUES = values("lvs-x-rs1", "lvs-x-lan")
LAB = Lab("x", "", networks=(), nodes=(), services=())

every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)


def test_every_kind_is_listed_and_has_values() -> None:
    modules = [
        importlib.import_module(f"lvsctl.resources.{one.name}")
        for one in pkgutil.iter_modules(resources.__path__)
    ]
    found = {
        value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Resource) and value is not Resource
    }
    assert found == set(KINDS) == set(VALUES)


@every_kind
def test_a_kind_is_applied_and_undone_by_a_handler(kind: type[Resource]) -> None:
    applied = kind in apply.HANDLERS or kind is Namespace or kind in apply.PROCESSES
    assert applied == (kind.PLANNED or kind is PacketFilter)  # which only a fault applies
    by_other_means = kind in (
        *(Keepalived, Namespace, OffloadsOff, ResponderPort),
        *(ChangedSysctl, Marks, Masquerade, MssClamp, PacketFilter, StoppedProcess, Xfrm),
    )
    assert kind in undo.MESSAGES or by_other_means or not kind.UNDOABLE


@every_kind
@given(data=st.data())
def test_commands_are_words_that_a_shell_reads_again(
    kind: type[Resource], data: st.DataObject
) -> None:
    value = data.draw(VALUES[kind])
    commands = value.commands()
    assert commands
    for command in (*commands, *value.edit_commands(), *value.undo_commands()):
        check_typed(command)
    assert value.describe() == tuple(map(str, commands))
    if kind.UNDOABLE and kind is not OffloadsOff:
        assert value.undo_commands()


def check_typed(command: Command) -> None:
    if command.comment:
        assert shlex.split(str(command), comments=True) == []
        return
    words = in_namespace(command.netns, command.argv)
    assert shlex.split(str(command))[: len(words)] == list(words)
    assert command.argv[0] in {*_PACKAGES, *FilterProgram, "respond", "run", "kill"}


@every_kind
@given(data=st.data())
def test_hints_and_keys(kind: type[Resource], data: st.DataObject) -> None:
    value, other = data.draw(VALUES[kind]), data.draw(VALUES[kind])
    for number, sentence in kind.HINTS.items():
        hint = value.hint(number)
        assert hint
        assert "{" not in hint
        assert (hint == sentence) or any(field for _, field, _, _ in Formatter().parse(sentence))
    assert value.hint(1)  # EPERM: for every kind
    assert not value.hint(9999)
    assert hash(value.key) == hash(value.key)
    assert value.key != other.key or type(value) is type(other)
    assert value.rests_on().isdisjoint(value.provides())


@every_kind
@given(data=st.data())
def test_an_empty_namespace_satisfies_only_what_no_state_shows(
    kind: type[Resource], data: st.DataObject
) -> None:
    value = data.draw(VALUES[kind])
    empty = {name: NodeState(name) for name in value.namespaces}
    assert not value.satisfied_by({})
    state = empty[value.namespaces[-1]]
    deviation = value.deviation(state, LAB)
    if value.satisfied_by(empty):
        assert deviation is None
    elif not kind.PLANNED:
        surplus = value.surplus(LAB)
        assert surplus is not None
        assert surplus.text
    elif deviation is not None:
        assert deviation.text
    assert list(kind.from_state(state)) == []


def test_a_sysctl_of_several_numbers_is_read_with_tabs() -> None:
    wanted = Sysctl(netns="n", name="net.ipv4.vs.sync_threshold", value="0 1")
    assert wanted.holds(NodeState(netns="n", sysctls={wanted.name: "0\t1"}))
    assert not wanted.holds(NodeState(netns="n", sysctls={wanted.name: "3\t50"}))


def test_settings_of_a_link_go_with_it() -> None:
    sysctl = importlib.import_module("lvsctl.resources.sysctl").Sysctl
    own = sysctl(netns="n", name="net.ipv4.conf.eth0/1.arp_ignore", value="1")
    general = sysctl(netns="n", name="net.ipv4.ip_forward", value="1")
    assert ("link", "n", "eth0.1") in own.rests_on()
    assert general.rests_on() == {("namespace", "n")}


def test_a_link_state_satisfies_link_up() -> None:
    link_up = importlib.import_module("lvsctl.resources.link_up").LinkUp
    link = LinkState("lo", 1, "", "", 65536, up=True, carrier=True)
    assert link_up(netns="n", device="lo").holds(NodeState("n", links=(link,)))


@pytest.mark.parametrize(
    ("command", "typed"),
    [
        ("ip -n lvs-dr-rs1 addr del 10.10.0.100/32 dev lo",
         "lvsctl exec dr/rs1 -- ip addr del 10.10.0.100/32 dev lo"),
        ("ip netns exec lvs-dr-rs1 sysctl -w a='b c'",
         "lvsctl exec dr/rs1 -- sysctl -w 'a=b c'"),
        ("bridge -n lvs-dr-lan -d link show  # is a port isolated?",
         "lvsctl machine run -- bridge -n lvs-dr-lan -d link show  # is a port isolated?"),
        ("ip -n lvs-dr-lan link set rs1 up && ip -n lvs-dr-rs1 link set lan up",
         ("lvsctl machine run -- ip -n lvs-dr-lan link set rs1 up && "
          "lvsctl exec dr/rs1 -- ip link set lan up")),
        ("ip -n lvs-dr-rs1 route show 2>/dev/null || ip -n lvs-dr-rs1 link >/dev/null",
         ("lvsctl machine run -- sh -c 'ip -n lvs-dr-rs1 route show 2>/dev/null || "
          "ip -n lvs-dr-rs1 link >/dev/null'")),
        ("ip netns exec lvs-dr-rs1 nft 'add table ip a; add table ip b'",
         "lvsctl exec dr/rs1 -- nft 'add table ip a; add table ip b'"),
        ("ip -n lvs-dr-rs1 link || { tc -n lvs-dr-rs1 qdisc && tc -n lvs-dr-rs1 class; }",
         ("lvsctl machine run -- sh -c 'ip -n lvs-dr-rs1 link || { tc -n lvs-dr-rs1 qdisc && "
          "tc -n lvs-dr-rs1 class; }'")),
        ("lvsctl exec dr/rs1 -- ip addr", "lvsctl exec dr/rs1 -- ip addr"),
        ("ip addr", "ip addr"),
    ],
)  # fmt: skip
def test_a_command_can_be_typed_where_labs_run_in_the_machine(command: str, typed: str) -> None:
    lab = lab_of("dr")
    assert typeable(command, lab, in_machine=True) == typed
    assert typeable(command, lab, in_machine=False) == command


def test_a_service_names_the_modules_that_a_kernel_may_lack() -> None:
    match = VipPort(Protocol.UDP, ip_address("10.0.0.100"), 5060)
    plain = IpvsService(netns="a", service=match, scheduler=Scheduler.RR)
    assert plain.hint(errno.ENOENT).startswith("modprobe ip_vs_rr, if this kernel has that")
    sip = replace(plain, engine="sip").hint(errno.ENOENT)
    assert sip.startswith("modprobe ip_vs_rr ip_vs_pe_sip, if this kernel has them")
