"""Which file a sysctl is, and which are refused."""

from __future__ import annotations

import pytest

from lvsctl.errors import KernelError
from lvsctl.kernel import sysctl


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("net.ipv4.ip_forward", "/proc/sys/net/ipv4/ip_forward"),
        ("net.ipv4.conf.eth0/1.rp_filter", "/proc/sys/net/ipv4/conf/eth0.1/rp_filter"),
    ],
)
def test_sysctl_path(key: str, path: str) -> None:
    assert sysctl.path(key) == path


@pytest.mark.parametrize(
    "key", ["vm.swappiness", "kernel.hostname", "net", "net.", "net..x", "net.//.//.vm", "/etc/x"]
)
def test_a_sysctl_of_the_host_is_refused(key: str) -> None:
    with pytest.raises(KernelError, match="does not belong to a network namespace"):
        sysctl.path(key)
