"""Load the kernel modules that a lab could need, without kmod: at boot or on demand.

Modules that most labs use, or that the kernel does not request by itself, are loaded at boot; the
others on demand, or at boot too if they cannot be read later.

For the latter, the kernel and iptables start the program in /proc/sys/kernel/modprobe with a
module's name or alias, as modprobe(8). Here it is a shell script that ignores unknown names
(`ss -a` alone causes five) and starts Python, which is slow, only if there is a module to load.
"""

from __future__ import annotations

import errno
import os
import sys

from lvsctl import linux

TYPE_CHECKING = False  # typing's own, which takes long to import on this kernel
if TYPE_CHECKING:
    from collections.abc import Callable

AT_BOOT = frozenset(
    {
        *("bridge", "veth", "ip_vs", "overlay", "udp_diag"),
        # For shipped topologies: loading on demand is slow. Those of tunnels create devices in
        # the initial namespace (tunl0, gre0), which must not change after boot.
        *("ipip", "ip6_tunnel", "ip_gre", "ip6_gre", "sit", "sch_netem"),
        *("fou", "fou6"),  # they have no alias, so the kernel does not request them
    }
)
"""Loaded at boot, besides IPVS's schedulers. Each one makes User-Mode Linux's start slower."""

DIRECTORIES = (
    "kernel/net/bridge/netfilter",  # of ebtables and nft; not br_netfilter, which filters IP there
    "kernel/net/ipv4",
    "kernel/net/ipv6",
    "kernel/net/netfilter",
    "kernel/net/sched",
    "kernel/net/sctp",
    "kernel/net/8021q",
    "kernel/net/netlink",
    "kernel/net/packet",
    "kernel/net/unix",
)
"""Directories whose modules are all loaded."""

SINGLES = {
    "bridge": "",
    "bonding": "max_bonds=0",
    "dummy": "numdummies=0",
    "geneve": "",
    "ifb": "numifbs=0",
    "ipvlan": "",
    "macvlan": "",
    "overlay": "",
    "tcp_diag": "",
    "tun": "",
    "veth": "",
    "vrf": "",
    "vxlan": "",
}
"""Single modules, with parameters that keep them from creating devices by themselves."""

LEFT_OUT = frozenset(
    {
        # An IPVS helper that changes payloads; modules that create a device in every namespace.
        *("ip_vs_ftp", "ip_vti", "ip6_vti", "sch_teql", "ila"),
        # Congestion controls, IPsec and packet filters that no lab uses.
        *("esp4", "esp6", "ah4", "ah6", "ipcomp", "ipcomp6", "esp4_offload", "esp6_offload"),
        *("mip6", "ipt_CLUSTERIP", "act_ipt", "em_canid", "em_ipt", "act_ct", "act_mpls"),
        # They drop every IP-in-IP packet without a matching tunnel device silently; without them
        # the sender gets an ICMP error, as from hosts without IPsec.
        *("xfrm4_tunnel", "xfrm6_tunnel"),
        # They need a text search module that the package does not ship.
        *("nf_conntrack_amanda", "nf_nat_amanda"),
        *("nf_nat_h323", "nf_conntrack_h323", "nf_nat_snmp_basic", "nf_conntrack_snmp"),
        *("xt_SECMARK", "xt_CONNSECMARK", "xt_AUDIT", "sch_taprio", "sch_etf", "act_ife"),
        # They need modules that are left out above.
        *("act_meta_mark", "act_meta_skbprio", "act_meta_skbtcindex", "xt_set", "em_ipset"),
        *("iptable_security", "ip6table_security", "xt_esp", "xt_ipcomp", "ipt_ah", "ip6t_ah"),
        # Rarely used ones, which would make the start slower.
        *("em_cmp", "em_nbyte", "em_u32", "em_meta", "em_text", "act_sample", "act_simple"),
        *("act_ctinfo", "act_skbmod", "sch_gred", "sch_sfb", "sch_choke", "sch_hhf", "sch_qfq"),
        *("sch_plug", "sch_mqprio", "sch_skbprio", "sch_multiq", "sch_drr", "sch_cbs"),
        *("nfnetlink_acct", "xt_nfacct", "nfnetlink_cttimeout", "nfnetlink_osf", "xt_osf"),
        *("nft_osf", "nft_xfrm", "xt_policy", "xt_IDLETIMER", "xt_RATEEST", "xt_rateest"),
        *("xt_dccp", "xt_l2tp", "xt_realm", "ip6t_eui64", "ip6t_mh", "ip6t_srh"),
        *("nf_conntrack_irc", "nf_nat_irc", "nf_conntrack_netbios_ns", "nf_conntrack_sane"),
        *("nf_conntrack_pptp", "nf_nat_pptp", "nf_conntrack_tftp", "nf_nat_tftp"),
    }
)
LEFT_OUT_BELOW = ("kernel/net/netfilter/ipset/", "kernel/net/ipv4/tcp_")


def name_of(path: str) -> str:
    """Return a module's name: ``ipip`` for ``kernel/net/ipv4/ipip.ko.xz``."""
    return path.rpartition("/")[2].partition(".ko")[0].replace("-", "_")


def wanted(path: str) -> bool:
    """Return whether the module at this path is loaded, not only as a dependency."""
    name = name_of(path)
    if name in SINGLES:
        return True
    if name in LEFT_OUT or path.startswith(LEFT_OUT_BELOW):
        return False
    return path.startswith(tuple(f"{d}/" for d in DIRECTORIES))


def wanted_at_boot(path: str) -> bool:
    """Return whether the module at this path is loaded at boot if others are loaded on demand."""
    name = name_of(path)
    scheduler = path.startswith("kernel/net/netfilter/ipvs/") and not name.startswith("ip_vs_pe_")
    return name in AT_BOOT or (scheduler and wanted(path))


def load_order(modules_dep: str, which: Callable[[str], bool] = wanted) -> list[str]:
    """Return the paths of modules and their dependencies, dependencies first.

    ``modules_dep`` is the text of modules.dep; ``which`` selects modules by path.
    """
    needs = {}
    for line in modules_dep.splitlines():
        path, colon, rest = line.partition(":")
        if colon:
            # modules.dep lists a module's dependencies closest first.
            needs[path] = rest.split()
    order: dict[str, None] = {}
    for path, dependencies in needs.items():
        if which(path):
            for dependency in reversed(dependencies):
                order.setdefault(dependency)
            order.setdefault(path)
    return list(order)


def load(directory: str, which: Callable[[str], bool]) -> dict[str, str]:
    """Load the modules below ``directory`` that ``which`` selects by path.

    Returns failures: name → reason. Raises OSError if modules.dep cannot be read.
    """
    failed = {}
    with open(f"{directory}/modules.dep", encoding="utf-8") as file:
        order = load_order(file.read(), which)
    with open("/proc/cmdline", encoding="utf-8") as file:
        options = file.read().split()
    for path in order:
        name = name_of(path)
        given = (word.partition(".")[2] for word in options if word.startswith(f"{name}."))
        try:  # with parameters from the kernel's command line, as modprobe(8) does
            parameters = " ".join((SINGLES.get(name, ""), *given)).strip()
            linux.load_module(os.path.join(directory, path), parameters)
        except OSError as error:
            if error.errno != errno.EEXIST:
                failed[name] = error.strerror or str(error)
    return failed


PROGRAM = "/run/modprobe"

_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.,:/+")

_SCRIPT = """#!/bin/sh
# Written by lvsctl: loads the module that the last word names. Options may follow it: iptables.
for word; do case $word in -*) ;; *) name=$word ;; esac; done
case $name in
{names}) exec {python} -I -S -c {code} {modules} "$name" ;;
esac
exit 1
"""

_CODE = """import sys
sys.path.insert(0, {root!r})
from lvsctl.machine.guest import modules
raise SystemExit(not modules.load_by_name(*sys.argv[1:]))"""


def install_modprobe(directory: str) -> None:
    """Set the kernel's modprobe program, for the modules below ``directory``. Raises OSError."""
    with open(PROGRAM, "w", encoding="utf-8") as file:
        file.write(modprobe_script(directory, sys.executable))
    os.chmod(PROGRAM, 0o755)
    with open("/proc/sys/kernel/modprobe", "w", encoding="ascii") as file:
        file.write(PROGRAM)


def modprobe_script(directory: str, python: str) -> str:
    """Return the program that loads modules below ``directory``, as the kernel and iptables call
    modprobe(8). Raises OSError.
    """
    return _SCRIPT.format(
        names="|".join(sorted(names_and_aliases(directory))),
        python=_quoted(python),
        code=_quoted(_CODE.format(root=os.path.abspath(f"{os.path.dirname(__file__)}/../../.."))),
        modules=_quoted(directory),
    )


def names_and_aliases(directory: str) -> dict[str, str]:
    """Return the names and aliases of modules → the module's name. Raises OSError.

    Without those that have a meaning for the shell: patterns, which are all of hardware, and names
    of ciphers with parentheses.
    """
    found = {}
    with open(f"{directory}/modules.alias", encoding="utf-8") as file:
        for line in file:
            word, *rest = line.split()
            if word == "alias" and not set(rest[0]) - _PLAIN:
                found[rest[0]] = rest[1]
    with open(f"{directory}/modules.dep", encoding="utf-8") as file:
        for line in file:
            path = line.partition(":")[0]
            found[name_of(path)] = name_of(path)
            # The kernel uses the file's spelling too: 8021q, act_gact, nf_conntrack-2.
            found[path.rpartition("/")[2].partition(".ko")[0]] = name_of(path)
    return found


def load_by_name(directory: str, name: str) -> bool:
    """Load the module ``name`` and its dependencies; return success. Raises OSError."""
    module = names_and_aliases(directory)[name]
    return not load(directory, lambda path: name_of(path) == module)


def _quoted(word: str) -> str:
    """Quote a word for the shell, as shlex.quote does, whose import is slow on this kernel."""
    return "'" + word.replace("'", "'\"'\"'") + "'"
