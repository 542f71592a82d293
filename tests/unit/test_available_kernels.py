"""Features of kernels according to their lists of modules; doctor's remedies, which name one."""

from __future__ import annotations

from pathlib import Path

import pytest

from lvsctl.cli import doctor
from lvsctl.kernel import features, probe
from lvsctl.kernel.probe import Feature
from lvsctl.machine import kernels, kinds
from lvsctl.machine import uml as uml_kind
from lvsctl.machine.config import Kernel, request_from_environment

TWOS = "kernel/net/netfilter/ipvs/ip_vs_twos.ko"
MH = "kernel/net/netfilter/ipvs/ip_vs_mh.ko"


def kernel_with(directory: Path, *modules: str, builtin: str | None = "") -> Kernel:
    directory.mkdir(parents=True)
    (directory / "modules.dep").write_text("".join(f"{path}:\n" for path in modules))
    if builtin is not None:
        (directory / "modules.builtin").write_text(builtin)
    return Kernel(directory / "vmlinux", directory)


def absent(name: str, remedy: str = probe.MACHINE) -> Feature:
    return Feature(f"scheduler {name}", "no IPVS", False, "…", remedy, True)


@pytest.fixture
def no_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in kinds.KINDS.values():
        monkeypatch.setattr(type(kind), "obstacle", lambda _: "")
    monkeypatch.setattr(uml_kind, "find_kernel", lambda: None)
    monkeypatch.setattr(kernels, "ready", dict)
    for variable in ("LVSCTL_MACHINE_KIND", "LVSCTL_MACHINE_KERNEL"):
        monkeypatch.delenv(variable, raising=False)


def test_modules_are_looked_up_in_the_lists(tmp_path: Path) -> None:
    kernel = kernel_with(tmp_path / "a", MH, builtin="kernel/net/ipv6/ipv6.ko\n")
    assert kinds.has_module(kernel, "ip_vs_mh") is True
    assert kinds.has_module(kernel, "ipv6") is True
    assert kinds.has_module(kernel, "ip_vs_twos") is False
    # Not all kernels come with a list of what is built in; and a module that no machine loads.
    assert kinds.has_module(kernel_with(tmp_path / "b", MH, builtin=None), "ipv6") is None
    assert kinds.has_module(Kernel(tmp_path / "none", tmp_path / "none"), "ipv6") is None
    ftp = "kernel/net/netfilter/ipvs/ip_vs_ftp.ko"
    assert kinds.has_module(kernel_with(tmp_path / "c", ftp), "ip_vs_ftp") is False


@pytest.mark.usefixtures("no_kernels")
def test_a_kernel_that_lacks_it_too_is_no_remedy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    uml = kernel_with(tmp_path / "uml", MH)
    monkeypatch.setattr(uml_kind, "find_kernel", lambda: uml)
    mh, twos = doctor.with_remedies([absent("mh"), absent("twos")])
    assert mh.remedy == probe.MACHINE
    assert twos.remedy == probe.OTHER_KERNEL  # none that is ready here has it
    old = kernel_with(tmp_path / "6.1", MH)
    new = kernel_with(tmp_path / "6.12", TWOS, builtin=None)
    monkeypatch.setattr(kernels, "ready", lambda: {"6.1": old, "mine": new})
    mh, twos = doctor.with_remedies([absent("mh"), absent("twos")])
    assert mh.remedy == probe.MACHINE
    assert twos.remedy.endswith("lvsctl machine stop, then lvsctl machine start --kernel mine")
    # The machine that says so itself, and that it would be started anyhow.
    assert doctor.with_remedies([absent("twos", probe.OTHER_KERNEL)])[0].remedy == twos.remedy
    monkeypatch.setenv("LVSCTL_MACHINE_KERNEL", "mine")
    monkeypatch.setattr(kernels, "find", lambda wanted: {"mine": new}[wanted])
    assert kinds.default_kernel_has_module(request_from_environment(), "ip_vs_twos") is True
    assert doctor.with_remedies([absent("twos")])[0].remedy == probe.MACHINE


@pytest.mark.usefixtures("no_kernels")
def test_what_was_tried_in_the_machine_counts_more(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """User-Mode Linux has the module nf_tables, and no tables for IPv4 with it."""
    uml, other = (kernel_with(tmp_path / name, MH, TWOS) for name in ("6.1.176", "6.12"))
    monkeypatch.setattr(uml_kind, "find_kernel", lambda: uml)
    mh, twos = doctor.with_remedies([absent("mh"), absent("twos")], [absent("twos")], "6.1.176")
    assert (mh.remedy, twos.remedy) == (probe.MACHINE, probe.OTHER_KERNEL)
    monkeypatch.setattr(kernels, "ready", lambda: {"6.12": other})
    _, twos = doctor.with_remedies([absent("mh"), absent("twos")], [absent("twos")], "6.1.176")
    assert twos.remedy.endswith("lvsctl machine start --kernel 6.12")
    (twos,) = doctor.with_remedies([absent("twos")], [absent("twos")], "6.12")
    assert twos.remedy.endswith("lvsctl machine start --kind uml")


@pytest.mark.usefixtures("no_kernels")
def test_without_a_kernel_to_look_at_the_machine_may_have_it() -> None:
    modprobe = absent("mh", "sudo modprobe ip_vs_mh")
    works = Feature("ipip", "works", True, "tun", probe.MACHINE)
    found = doctor.with_remedies([absent("twos"), modprobe, works])
    assert found == (absent("twos"), modprobe, works)


def test_every_feature_that_can_be_a_module_is_known_by_its_name() -> None:
    modules = features.modules()
    assert modules["scheduler twos"] == "ip_vs_twos"
    assert modules["gue"] == "fou"
    assert modules.keys() < features.names()
