"""What Wireshark is told of the taps of running labs (extcap)."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from lvsctl.cli import extcap
from lvsctl.cli.main import main
from lvsctl.output.serialize import to_json
from tests.unit.report_samples import lab_of, listed


@pytest.fixture
def labs(monkeypatch: pytest.MonkeyPatch) -> None:
    found = to_json(labs=listed(lab_of("nat")))
    found["labs"] = [found["labs"][0], {"name": "broken", "lab": None, "problem": "x"}]
    monkeypatch.setattr(extcap, "_labs", lambda: found)


def test_each_lab_and_each_tap_is_an_interface(
    labs: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert extcap.main(["--extcap-interfaces", "--extcap-version=4.0"]) == 0
    first, *rest = capsys.readouterr().out.splitlines()
    assert first.startswith("extcap {version=")
    assert rest == [
        "interface {value=lvsctl.nat}{display=lvsctl nat: every interface}",
        "interface {value=lvsctl.nat.client.public}{display=lvsctl nat: client on public}",
        "interface {value=lvsctl.nat.director.public}{display=lvsctl nat: director on public}",
        "interface {value=lvsctl.nat.director.private}{display=lvsctl nat: director on private}",
        "interface {value=lvsctl.nat.rs1.private}{display=lvsctl nat: rs1 on private}",
        "interface {value=lvsctl.nat.rs2.private}{display=lvsctl nat: rs2 on private}",
    ]
    assert extcap.main(["--extcap-dlts", "--extcap-interface", "lvsctl.nat"]) == 0
    assert capsys.readouterr().out == "dlt {number=1}{name=EN10MB}{display=Ethernet}\n"
    assert extcap.main(["--extcap-config", "--extcap-interface", "lvsctl.nat"]) == 0
    assert capsys.readouterr().out == ""
    assert extcap.main(["--capture", "--extcap-interface", "lvsctl.nat"]) == 2
    assert "--capture needs" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("interface", "expression", "words"),
    [
        ("lvsctl.dr-ha", "", ["capture", "-w", "-", "--", "dr-ha"]),
        ("lvsctl.dr.rs1.lan", "arp",
         ["capture", "-w", "-", "--tap", "rs1:lan", "--", "dr", "arp"]),
    ],
)  # fmt: skip
def test_a_capture_is_that_of_the_lab_or_of_the_tap(
    interface: str, expression: str, words: list[str]
) -> None:
    assert extcap.capture_words(interface, expression) == words


@pytest.mark.parametrize(("status", "reported"), [(0, ""), (3, "lvsctl: it failed\n")])
def test_what_is_captured_goes_into_wiresharks_pipe(
    status: int,
    reported: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    script = tmp_path / "lvsctl"
    script.write_text(f'#!/bin/sh\necho "$@"\necho "lvsctl: it failed" >&2\nexit {status}\n')
    script.chmod(0o755)
    monkeypatch.setattr(extcap, "_LVSCTL", (str(script),))
    pipe = tmp_path / "fifo"
    os.mkfifo(pipe)
    with subprocess.Popen(["/bin/cat", str(pipe)], stdout=subprocess.PIPE) as reader:
        words = ["--capture", "--extcap-interface", "lvsctl.dr", "--fifo", str(pipe)]
        assert extcap.main(words) == status
        read, _ = reader.communicate()
    assert read == b"capture -w - -- dr\n"
    assert capfd.readouterr().err == reported


def test_the_script_is_installed_where_wireshark_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LVSCTL_MACHINE", "mine")
    assert main(["capture", "--install-extcap"]) == 0
    shown = capsys.readouterr().out
    for directory in extcap.DIRECTORIES:
        script = tmp_path / directory / "lvsctl"
        assert f"written: {script}\n" in shown
        assert "LVSCTL_MACHINE=mine exec" in script.read_text()
        asked = [str(script), "--extcap-dlts", "--extcap-interface", "lvsctl.dr"]
        done = subprocess.run(asked, capture_output=True, text=True, check=True)
        assert done.stdout.startswith("dlt {number=1}")


@pytest.mark.parametrize("words", [["dr"], ["-w", "x.pcapng"], ["--seconds", "0"]])
def test_installing_captures_nothing(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["capture", "--install-extcap", *words]) == 2
    assert "--install-extcap captures nothing" in capsys.readouterr().err
