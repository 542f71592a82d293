"""Words that users know from ipvsadm(8), keepalived and elsewhere.

They are not accepted, so that files look alike; they make "did you mean" understand.
"""

from lvsctl.model.lab import Role
from lvsctl.model.service import ForwardingMethod, Scheduler

ROLES = {
    **dict.fromkeys(("rs", "server", "backend", "realserver", "real_server"), Role.REAL_SERVER),
    **dict.fromkeys(("lb", "balancer", "load-balancer", "lvs"), Role.DIRECTOR),
    **dict.fromkeys(("gateway", "gw"), Role.ROUTER),
}
METHODS = {
    **dict.fromkeys(("masq", "masquerading", "m", "lvs-nat"), ForwardingMethod.NAT),
    **dict.fromkeys(("ipip", "tunnel", "tunneling", "i", "lvs-tun"), ForwardingMethod.TUN),
    **dict.fromkeys(("gate", "gatewaying", "droute", "g", "lvs-dr"), ForwardingMethod.DR),
}
SCHEDULERS = {
    "round-robin": Scheduler.RR,
    "weighted-round-robin": Scheduler.WRR,
    "least-connection": Scheduler.LC,
    "weighted-least-connection": Scheduler.WLC,
    "source-hash": Scheduler.SH,
    "maglev": Scheduler.MH,
}
