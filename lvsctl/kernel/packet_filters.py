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
from pathlib import Path

from lvsctl.kernel import netns
from lvsctl.model.packet_filter import FilterProgram, FilterRule


def read_filters(namespaces: Iterable[str]) -> dict[str, tuple[FilterRule, ...]]:
    """Read the rules and policies in ``namespaces``, by name; nothing where there are none.

    Raises LabError if a namespace does not exist, OSError or KernelError where the kernel does
    not let them be read.
    """

    def visits() -> dict[str, tuple[FilterRule, ...]]:
        found = {}
        for name in namespaces:
            with netns.enter(name):
                found[name] = current_filters()
        return found

    return netns.in_thread(visits)


def current_filters() -> tuple[FilterRule, ...]:
    """Read the rules and policies of the calling thread's namespace. Raises OSError."""
    from lvsctl.netlink import ebtables, nftables, xtables  # heavy; a new lab is not asked

    rules = (*xtables.read(), *ebtables.read(), *nftables.read())
    return tuple(replace(rule, tool=installed(rule.program)) for rule in rules)


def empty_table(program: FilterProgram, table: str) -> None:
    """Remove all rules of a table in the calling thread's namespace. Raises OSError."""
    from lvsctl.netlink import ebtables, nftables, xtables  # heavy, and rarely needed

    if program is FilterProgram.NFT:
        nftables.delete_table(table)
    elif program is FilterProgram.EBTABLES:
        ebtables.empty(table)
    else:
        xtables.empty(program, table)


def fill_table(program: FilterProgram, table: str, rules: Mapping[str, tuple[str, ...]]) -> None:
    """Replace a legacy table in the calling thread's namespace; see ``xtables.fill``.

    Raises OSError.
    """
    from lvsctl.netlink import xtables  # heavy, and only a fault needs it

    try:
        xtables.fill(program, table, rules)
    except OSError as missing:
        if missing.errno != errno.ENOPROTOOPT:
            raise
        # No one has asked for the module yet: load it as iptables(8) does.
        loader = Path("/proc/sys/kernel/modprobe").read_text(encoding="utf-8").strip()
        subprocess.run([loader, f"{_MODULES[program]}"], check=False, stdin=subprocess.DEVNULL)
        xtables.fill(program, table, rules)


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
