"""What `doctor` tries, on a real kernel: it finds what is there and leaves nothing behind."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from lvsctl.kernel import features, netns, probe
from lvsctl.kernel.drops import DropReasons
from lvsctl.model.service import Scheduler
from tests.kernel.by_hand import descriptors, run
from tests.kernel.initial import COUNTING


def picture() -> tuple[str, ...]:
    """The initial namespace, as far as probes could have touched it."""
    commands = (
        "ip -d link",
        "ip addr",
        "ip rule",
        "ip route show table all",
        "tc qdisc",
        "ip netns",
    )
    looked = (COUNTING.sub("", run(command)) for command in commands)
    return (*looked, str(Path("/proc/thread-self/ns/net").readlink()))


def test_nothing_is_left_behind() -> None:
    features.host_features()  # modules are loaded now, if any
    before, opened = picture(), descriptors()
    found = {feature.id: feature for feature in features.host_features()}
    assert picture() == before
    assert descriptors() == opened
    for needed in ("root", "netns", "veth", "bridge"):
        assert found[needed].present, found[needed]


def test_drop_reasons_are_found_where_they_can_be_read() -> None:
    """systemd mounts tracefs already, and the kernel refuses a second mount there."""
    (found,) = (f for f in features.host_features() if f.id == "drop reasons")
    with DropReasons() as reasons:
        assert found.present == reasons.supported


def test_without_a_namespace_nothing_else_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it would be tried on the host itself."""

    def refuse() -> None:
        raise OSError(errno.EPERM, "no")

    refused = features._Probe("netns", "", "every mode", refuse)
    monkeypatch.setattr(features, "_NAMESPACE", refused)
    before = picture()
    found = features.kernel_features(try_them=True)
    assert picture() == before
    assert not any(feature.present for feature in found)
    assert found[0].text == "Operation not permitted"
    assert found[1].text == "not tried: no namespace to try it in"


def test_what_no_kernel_has_is_missing() -> None:
    unknown = features._Probe("x", "x", "x", features._make_link("no-such"))

    def attempt() -> probe.Feature:
        netns.unshare()
        return unknown.tried()

    feature = netns.in_thread(attempt)
    assert (feature.present, feature.text) == (False, "this kernel does not have it")


@pytest.mark.ipvs
def test_everything_is_found() -> None:
    """Where IPVS is. Kernels differ in the rest: Debian 12's has no scheduler `twos`, its
    User-Mode Linux no nf_tables for IPv4 and no tracing.
    """
    found = {feature.id: feature for feature in features.kernel_features(try_them=True)}
    differing = {f"scheduler {Scheduler.TWOS}", "nf_tables", "drop reasons"}
    assert {name for name, feature in found.items() if not feature.present} <= differing
    assert probe.has_ipvs()
    assert probe.ipvs_loaded()
    probe.load_ipvs()


@pytest.mark.ipvs
def test_what_differs_between_kernels_is_what_is_there() -> None:
    """Held against what the kernel shows of itself elsewhere."""
    found = {feature.id: feature.present for feature in features.kernel_features(try_them=True)}
    known = Path("/proc/kallsyms").read_text(encoding="utf-8")
    symbols = {line.split(maxsplit=3)[2] for line in known.splitlines()}
    assert found[f"scheduler {Scheduler.TWOS}"] == ("ip_vs_twos_schedule" in symbols)
    if "nft_do_chain" not in symbols:
        assert not found["nf_tables"]
    if found["drop reasons"]:
        assert "trace_event_raw_event_kfree_skb" in symbols
