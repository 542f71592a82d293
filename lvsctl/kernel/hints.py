"""What helps where the kernel refuses an operation, as far as it is known."""

from __future__ import annotations

import errno

from lvsctl.resources.ops import (
    AddAddress,
    AddBridge,
    AddGuePort,
    AddLink,
    AddRealServer,
    AddRoute,
    AddService,
    AddTunnel,
    Impair,
    Op,
    SetSysctl,
)

_ELSEWHERE = ", or use the throwaway kernel with --where machine"

_IPV6 = "this kernel has no IPv6"
_IPVS_IPV6 = "this kernel's IPVS has no IPv6"
_GATEWAY = "{op.via} must be on a network of the node, and no address of its own"

_HINTS: tuple[tuple[type[Op], int, str], ...] = (
    (AddAddress, errno.EACCES, "IPv6 is off there: look at its disable_ipv6, in net.ipv6.conf"),
    (AddAddress, errno.EAFNOSUPPORT, _IPV6),
    (AddAddress, errno.EOPNOTSUPP, _IPV6),
    (AddBridge, errno.EOPNOTSUPP, "modprobe bridge" + _ELSEWHERE),
    (AddLink, errno.EOPNOTSUPP, "modprobe veth" + _ELSEWHERE),
    (AddLink, errno.EXFULL, "a bridge has 1,023 ports at most: put fewer nodes on the network"),
    (AddRealServer, errno.EAFNOSUPPORT, _IPVS_IPV6),
    (
        AddRealServer,
        errno.EINVAL,
        "is the director's lo up, and is the address neither broadcast nor multicast?",
    ),
    (AddRealServer, errno.ESRCH, "the virtual service is missing: it must come first"),
    (AddRoute, errno.EHOSTUNREACH, _GATEWAY),
    (AddRoute, errno.EINVAL, _GATEWAY),
    (AddRoute, errno.ENETUNREACH, _GATEWAY),
    (AddService, errno.EAFNOSUPPORT, _IPVS_IPV6),
    (
        AddService,
        errno.ENOENT,
        "modprobe ip_vs_{op.scheduler}, if this kernel has that scheduler" + _ELSEWHERE,
    ),
    (
        AddService,
        errno.EPROTONOSUPPORT,
        "this kernel's IPVS does not balance {op.service.protocol}" + _ELSEWHERE,
    ),
    (AddTunnel, errno.EOPNOTSUPP, "modprobe {op.encapsulation} ip_gre" + _ELSEWHERE),
    (AddGuePort, errno.EADDRINUSE, "somebody else has UDP port {op.port} of the node"),
    (Impair, errno.ENOENT, "modprobe sch_netem" + _ELSEWHERE),
    (Impair, errno.EOPNOTSUPP, "modprobe sch_netem" + _ELSEWHERE),
    (SetSysctl, errno.EINVAL, "{op.value!r} is no value for it"),
    (SetSysctl, errno.ENOENT, "this kernel has no such sysctl; is its module loaded?"),
    (Op, errno.EPERM, "run it as root" + _ELSEWHERE),
    (Op, errno.ENODEV, "the device is missing: was it removed by hand?"),
)
"""Kind of operation, errno, sentence; the first row that matches counts."""


def hint(op: Op, number: int) -> str:
    """A sentence to show under the error ``number`` of ``op``; empty: nothing is known to help."""
    for kind, wanted, sentence in _HINTS:
        if wanted == number and isinstance(op, kind):
            return sentence.format(op=op)
    return ""
