"""Packet filters of a lab's namespaces: read, empty and fill them.

Tables that no one has used in a namespace are not asked for, because asking creates them.
"""

from __future__ import annotations

import errno
import functools
import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

from lvsctl.errors import KernelError
from lvsctl.kernel import netns
from lvsctl.model.packet_filter import (
    MARK_TABLE,
    NFT_FAMILIES,
    Clamp,
    FilterProgram,
    FilterRule,
    Marking,
    MasqueradeTarget,
)
from lvsctl.model.service import Protocol
from lvsctl.netlink import ebtables, own_tables, xtables


def current_filters() -> tuple[FilterRule, ...]:
    """Read the rules and policies of the calling thread's namespace. Raises OSError."""
    from lvsctl.netlink import nftables  # slow to import (pyroute2's classes for it)

    rules = (*xtables.read(), *ebtables.read(), *nftables.read())
    return tuple(replace(rule, tool=installed(rule.program)) for rule in rules)


def empty_table(program: FilterProgram, table: str) -> None:
    """Remove all rules of a table in the calling thread's namespace. Raises OSError."""
    from lvsctl.netlink import nftables  # slow to import: above

    if program is FilterProgram.NFT:
        nftables.delete_table(table)
    elif program is FilterProgram.EBTABLES:
        ebtables.empty(table)
    else:
        if program in NFT_FAMILIES:  # which `drop` may have filled in its place
            _delete_if_there(f"{NFT_FAMILIES[program]} {table}")
        if xtables.is_in_use(program, table):
            xtables.empty(program, table)


def drop(program: FilterProgram, table: str, rules: Mapping[str, tuple[str, ...]]) -> None:
    """Replace a table of iptables or ip6tables by one that drops or rejects all of some chains.

    By nftables where the kernel has it, as iptables-nft does, else the legacy table. Raises
    OSError, KernelError.
    """
    try:
        own_tables.replace_filter(4 if program is FilterProgram.IPTABLES else 6, rules)
    except (OSError, KernelError) as error:
        if error.errno not in _NOT_SUPPORTED:
            raise
        fill_table(program, table, rules)


def _delete_if_there(table: str) -> bool:
    """Delete a table of nftables. Returns whether there was one. Raises OSError, KernelError."""
    from lvsctl.netlink import nftables  # slow to import: above

    try:
        nftables.delete_table(table)
    except (OSError, KernelError) as error:
        if error.errno not in _NOT_SUPPORTED:
            raise
        return False
    return True


def fill_table(
    program: FilterProgram,
    table: str,
    rules: Mapping[str, tuple[str | MasqueradeTarget | Clamp, ...]],
) -> None:
    """Replace a legacy table in the calling thread's namespace; see ``xtables.fill``.

    Raises OSError.
    """
    try:
        xtables.fill(program, table, rules)
    except OSError as missing:
        if missing.errno != errno.ENOPROTOOPT:
            raise
        # No one has asked for the module yet: load it as iptables(8) does.
        loader = Path("/proc/sys/kernel/modprobe").read_text(encoding="utf-8").strip()
        subprocess.run([loader, f"{_MODULES[program]}"], check=False, stdin=subprocess.DEVNULL)
        xtables.fill(program, table, rules)


def masquerade(changed: Iterable[MasqueradeTarget], *, remove: bool = False) -> None:
    """Add (or ``remove``) lvsctl's own rules for ``changed`` in the calling thread's namespace.

    By nftables where the kernel has it, else by the legacy table ``nat``, whose other rules go.
    Raises OSError, KernelError.
    """
    from lvsctl.netlink import nftables  # slow to import: above

    rules = (*xtables.read(), *nftables.read())
    there = {to: rule.program for rule in rules if (to := rule.masquerades) is not None}
    for version in {one.address.version for one in changed}:
        own = {to: program for to, program in there.items() if to.address.version == version}
        wanted = dict.fromkeys(own)
        for one in changed:
            if one.address.version == version:
                wanted.pop(one, None) if remove else wanted.setdefault(one)
        legacy = FilterProgram.IPTABLES if version == 4 else FilterProgram.IP6TABLES
        programs = set(own.values())
        if not programs:
            try:
                own_tables.replace_masquerade(version, wanted)
            except (OSError, KernelError) as error:
                if error.errno not in _NOT_SUPPORTED:
                    raise
                fill_table(legacy, "nat", {"POSTROUTING": tuple(wanted)})
        elif FilterProgram.NFT in programs:
            own_tables.replace_masquerade(version, wanted)
        else:
            fill_table(legacy, "nat", {"POSTROUTING": tuple(wanted)})


def clamp(wanted: Clamp, *, remove: bool = False) -> None:
    """Add (or ``remove``) lvsctl's own limit of the segment size.

    In the calling thread's namespace, by nftables where the kernel has it, else by the legacy
    table ``mangle``, whose other rules go. One of an address family replaces the one before.
    Raises OSError, KernelError.
    """
    from lvsctl.netlink import nftables  # slow to import: above

    rules = (*xtables.read(), *nftables.read())
    own = {
        rule.program: one
        for rule in rules
        if (one := rule.clamps) is not None and one.version == wanted.version
    }
    if remove and wanted not in own.values():
        return
    sizes = () if remove else (wanted,)
    legacy = FilterProgram.IPTABLES if wanted.version == 4 else FilterProgram.IP6TABLES
    if legacy not in own:
        try:
            own_tables.replace_clamp(wanted.version, [one.size for one in sizes])
        except (OSError, KernelError) as error:
            if error.errno not in _NOT_SUPPORTED:
                raise
        else:
            return
    fill_table(legacy, "mangle", {"POSTROUTING": sizes})


def mark(markings: Iterable[Marking]) -> bool:
    """Mark packets by lvsctl's own table of nftables, in the calling thread's namespace.

    Returns False where the kernel has no nftables for it. Raises OSError, KernelError.
    """
    try:
        own_tables.replace_marks(markings)
    except (OSError, KernelError) as error:
        if error.errno not in _NOT_SUPPORTED:
            raise
        return False
    return True


def unmark() -> bool:
    """Delete that table. Returns whether there was one. Raises OSError, KernelError."""
    return _delete_if_there(MARK_TABLE)


@functools.cache
def has_nftables() -> bool:
    """Whether the kernel marks packets by nftables; tried in a namespace that ends at once."""

    def attempt() -> bool:
        netns.unshare()
        return mark([Marking(1, IPv4Address("192.0.2.1"), Protocol.TCP)])

    return netns.in_thread(attempt)


_NOT_SUPPORTED = frozenset(
    {errno.EOPNOTSUPP, errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT, errno.EINVAL, errno.ENOENT}
)
"""What a kernel without nf_tables for the family, or without its NAT, answers."""

_MODULES = {FilterProgram.IPTABLES: "ip_tables", FilterProgram.IP6TABLES: "ip6_tables"}


@functools.cache
def installed(program: FilterProgram) -> str:
    """Return the name of the installed program that edits such rules; empty: there is none.

    Of iptables and its siblings it is the variant for the legacy tables: distributions install
    the one for nftables under the plain name.
    """
    if program is FilterProgram.NFT:
        return "nft" if shutil.which("nft") else ""
    if shutil.which(f"{program}-legacy"):
        return f"{program}-legacy"
    plain = shutil.which(program)
    return str(program) if plain and "legacy" in os.path.realpath(plain) else ""
