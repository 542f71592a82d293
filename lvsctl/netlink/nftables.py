"""nftables of the calling thread's namespace: its rules, and deleting its tables.

Rules of iptables-nft and its siblings are among them. What a rule matches is given as nft(8)
writes it where it is about interfaces, addresses, ports, protocols, marks and connection states;
anything else by the name of its expression.

Sources: linux/netfilter/nf_tables.h, nft(8); the messages are pyroute2's.
"""

from __future__ import annotations

import errno
import functools
import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from lvsctl.errors import KernelError
from lvsctl.model.packet_filter import (
    FilterProgram,
    FilterRule,
)
from lvsctl.netlink import sockets
from lvsctl.netlink.messages import Kind, body, decode
from lvsctl.netlink.nft_rules import Element, RuleText, parts_of, verdict_of

from pyroute2.netlink.nfnetlink.nftsocket import (  # isort: skip (after the shim)
    nft_chain_msg,
    nft_rule_msg,
    nft_set_elem_list_msg,
    nft_table_msg,
)

_SUBSYSTEM = 10 << 8  # NFNL_SUBSYS_NFTABLES
_GETTABLE, _DELTABLE, _GETCHAIN, _GETRULE, _GETSETELEM = 1, 2, 4, 7, 13  # NFT_MSG_*
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11  # NFNL_MSG_BATCH_*
_FAMILIES = {1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}
_HOOKS = ("prerouting", "input", "forward", "output", "postrouting", "ingress")
"""Where packets meet a chain, in the order of NF_INET_*, which NF_BR_* has too."""
_OTHER_HOOKS = {"arp": ("input", "output", "forward"), "netdev": ("ingress", "egress")}
_POLICIES = {0: "DROP", 1: "ACCEPT"}
_NO_NFTABLES = frozenset({errno.EOPNOTSUPP, errno.EPROTONOSUPPORT, errno.EINVAL, errno.ENOENT})


def read() -> Iterator[FilterRule]:
    """Yield every rule, and the policy of every base chain. Raises OSError, KernelError."""
    try:
        sock = sockets.open_reader(sockets.NETFILTER)
    except OSError as error:
        if error.errno == errno.EPROTONOSUPPORT:
            return
        raise
    with sock:
        try:
            tables = _dump(sock, _GETTABLE, nft_table_msg)
        except KernelError as error:
            if error.errno in _NO_NFTABLES:
                return
            raise
        if not tables:
            return
        hooks: dict[tuple[str, str], str] = {}
        for chain in _dump(sock, _GETCHAIN, nft_chain_msg):
            if hook := _hook(chain):
                hooks[_table(chain, "NFTA_CHAIN_TABLE"), _name(chain)] = hook
                yield _policy(chain, hook)
        numbers: dict[tuple[str, str], int] = {}
        for rule in _dump(sock, _GETRULE, nft_rule_msg):
            where = _table(rule, "NFTA_RULE_TABLE"), str(rule.get_attr("NFTA_RULE_CHAIN"))
            numbers[where] = numbers.get(where, 0) + 1
            elements = functools.partial(_elements, sock, where[0])
            found = _rule(rule, *where, numbers[where], elements)
            yield replace(found, hook=hooks.get(where, ""))


def delete_table(table: str) -> None:
    """Delete a table (``inet filter``) with all that it contains. Raises OSError."""
    family, _, name = table.partition(" ")
    deleted = body(nft_table_msg, [("NFTA_TABLE_NAME", name)], nfgen_family=_number_of(family))
    begin = body(nft_table_msg, res_id=socket.htons(10))
    messages = [
        sockets.message(_BATCH_BEGIN, 0, begin),
        sockets.message(_SUBSYSTEM | _DELTABLE, sockets.ACK, deleted),
        sockets.message(_BATCH_END, 0, begin),
    ]
    for sequence, one in enumerate(messages, 1):
        struct.pack_into("=I", one, 8, sequence)
    with sockets.open_socket(sockets.NETFILTER) as sock:
        sock.send(b"".join(messages))
        for error in sockets.read_errors(sock, 2):
            raise error


def _dump(sock: socket.socket, number: int, kind: Kind) -> list[Any]:
    asked = sockets.message(_SUBSYSTEM | number, sockets.DUMP, body(kind))
    return [decode(kind, whole) for whole in sockets.request(sock, asked)]


def _table(message: Any, name: str) -> str:
    family = _FAMILIES.get(message["nfgen_family"], str(message["nfgen_family"]))
    return f"{family} {message.get_attr(name)}"


def _name(chain: Any) -> str:
    return str(chain.get_attr("NFTA_CHAIN_NAME"))


def _hook(chain: Any) -> str:
    """Where packets meet a chain; empty: only other chains lead to it."""
    found = chain.get_attr("NFTA_CHAIN_HOOK")
    if found is None:
        return ""
    family = _FAMILIES.get(chain["nfgen_family"], "")
    number = int(found.get_attr("NFTA_HOOK_HOOKNUM"))
    names = _OTHER_HOOKS.get(family, _HOOKS)
    return names[number] if number < len(names) else str(number)


def _policy(chain: Any, hook: str) -> FilterRule:
    action = _POLICIES.get(chain.get_attr("NFTA_CHAIN_POLICY"), "ACCEPT")
    counters = chain.get_attr("NFTA_CHAIN_COUNTERS")
    packets = counters.get_attr("NFTA_COUNTER_PACKETS") if counters is not None else None
    table, text = _table(chain, "NFTA_CHAIN_TABLE"), f"policy {action.lower()}"
    return FilterRule(FilterProgram.NFT, table, _name(chain), 0, text, action, packets, hook=hook)


def _rule(
    rule: Any, table: str, chain: str, number: int, elements: Callable[[str], Sequence[Element]]
) -> FilterRule:
    text = RuleText(table.partition(" ")[0], elements)
    for part in parts_of(rule):
        text.take(part)
    return FilterRule(
        program=FilterProgram.NFT,
        table=table,
        chain=chain,
        number=number,
        text=" ".join(filter(None, (*text.matches, text.statement))),
        action=text.action,
        packets=text.packets,
        complete=text.complete,
        handle=int(rule.get_attr("NFTA_RULE_HANDLE")),
    )


def _elements(sock: socket.socket, table: str, name: str) -> tuple[Element, ...]:
    """Return the elements of a set or map of a table."""
    family, _, of = table.partition(" ")
    wanted = [("NFTA_SET_ELEM_LIST_TABLE", of), ("NFTA_SET_ELEM_LIST_SET", name)]
    data = body(nft_set_elem_list_msg, wanted, nfgen_family=_number_of(family))
    asked = sockets.message(_SUBSYSTEM | _GETSETELEM, sockets.DUMP, data)
    return tuple(
        _element(one)
        for whole in sockets.request(sock, asked)
        for one in decode(nft_set_elem_list_msg, whole).get_attr("NFTA_SET_ELEM_LIST_ELEMENTS")
        or ()
    )


def _element(one: Any) -> Element:
    key, data = (one.get_attr(f"NFTA_SET_ELEM_{name}") for name in ("KEY", "DATA"))
    verdict = data.get_attr("NFTA_DATA_VERDICT") if data is not None else None
    return Element(
        key=bytes(key.get_attr("NFTA_DATA_VALUE") or b"") if key is not None else b"",
        ends=bool(one.get_attr("NFTA_SET_ELEM_FLAGS")),
        verdict=verdict_of(verdict)[0] if verdict is not None else "",
    )


def _number_of(family: str) -> int:
    return next(number for number, word in _FAMILIES.items() if word == family)
