"""Load the kernel modules that a lab could need, without kmod.

At boot those that most labs have a use for, or that the kernel does not ask for by itself; the
others when it does (``guest.modprobe``). All at boot where they cannot be read later.
"""

from __future__ import annotations

import errno
import os

from lvsctl import linux

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

AT_BOOT = frozenset(
    {
        *("bridge", "veth", "ip_vs", "overlay", "udp_diag"),
        # What a shipped topology needs: each costs 5 ms here, and 200 on demand. With the tunnels'
        # modules devices come into the initial namespace, too (tunl0, gre0), which is to stay as
        # it was at boot.
        *("ipip", "ip6_tunnel", "ip_gre", "ip6_gre", "sit", "sch_netem"),
        *("fou", "fou6"),  # nothing asks for them: they have no alias
    }
)
"""Besides IPVS's schedulers. In User-Mode Linux each module slows the first seconds down: the
kernel frees a module's start code in the background, by two system calls for each page that it
has mapped for modules."""

DIRECTORIES = (
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
"""Loaded with everything below them."""

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
"""Loaded with these parameters: the initial namespace gets no devices that nobody asked for."""

LEFT_OUT = frozenset(
    {
        # An IPVS helper that changes payloads; and a device in every namespace.
        *("ip_vs_ftp", "ip_vti", "ip6_vti", "sch_teql", "ila"),
        # Congestion controls, IPsec and packet filters that no lab has a use for.
        *("esp4", "esp6", "ah4", "ah6", "ipcomp", "ipcomp6", "esp4_offload", "esp6_offload"),
        *("mip6", "ipt_CLUSTERIP", "act_ipt", "em_canid", "em_ipt", "act_ct", "act_mpls"),
        # They take every IP in IP packet that no tunnel device wants, and keep silent about it;
        # without them the sender is told (ICMP), as by hosts without IPsec.
        *("xfrm4_tunnel", "xfrm6_tunnel"),
        # They need a text search module that the package does not ship.
        *("nf_conntrack_amanda", "nf_nat_amanda"),
        *("nf_nat_h323", "nf_conntrack_h323", "nf_nat_snmp_basic", "nf_conntrack_snmp"),
        *("xt_SECMARK", "xt_CONNSECMARK", "xt_AUDIT", "sch_taprio", "sch_etf", "act_ife"),
        # They bring in what is left out above, and do nothing without it.
        *("act_meta_mark", "act_meta_skbprio", "act_meta_skbtcindex", "xt_set", "em_ipset"),
        *("iptable_security", "ip6table_security", "xt_esp", "xt_ipcomp", "ipt_ah", "ip6t_ah"),
        # The rarest: each module makes the unloading of all others' start code longer.
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
    """``kernel/net/ipv4/ipip.ko.xz`` is ``ipip``."""
    return path.rpartition("/")[2].partition(".ko")[0].replace("-", "_")


def wanted(path: str) -> bool:
    """Whether a module of this path is loaded for its own sake."""
    name = name_of(path)
    if name in SINGLES:
        return True
    if name in LEFT_OUT or path.startswith(LEFT_OUT_BELOW):
        return False
    return path.startswith(tuple(f"{d}/" for d in DIRECTORIES))


def wanted_at_boot(path: str) -> bool:
    """Whether a module of this path is loaded at boot where the others come on demand."""
    name = name_of(path)
    scheduler = path.startswith("kernel/net/netfilter/ipvs/") and not name.startswith("ip_vs_pe_")
    return name in AT_BOOT or (scheduler and wanted(path))


def load_order(modules_dep: str, which: Callable[[str], bool] = wanted) -> list[str]:
    """Paths of modules and what they need, dependencies first.

    ``modules_dep`` is the text of modules.dep; ``which`` says of a path whether it is one.
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
    """Load the modules below ``directory`` of which ``which`` says so, by their paths.

    Returns what failed: name → why. Raises OSError where there is no readable modules.dep.
    """
    failed = {}
    with open(f"{directory}/modules.dep", encoding="utf-8") as file:
        order = load_order(file.read(), which)
    with open("/proc/cmdline", encoding="utf-8") as file:
        options = file.read().split()
    for path in order:
        name = name_of(path)
        given = (word.partition(".")[2] for word in options if word.startswith(f"{name}."))
        try:  # as modprobe(8) does, with what the kernel's command line has for a module
            parameters = " ".join((SINGLES.get(name, ""), *given)).strip()
            linux.load_module(os.path.join(directory, path), parameters)
        except OSError as error:
            if error.errno != errno.EEXIST:
                failed[name] = error.strerror or str(error)
    return failed
