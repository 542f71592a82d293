"""Wireshark's list of interfaces: a program that offers the taps of running labs.

Wireshark and tshark run every program in their directory extcap with the options below, by the
protocol of extcap(4). `lvsctl capture --install-extcap` writes a script there that runs this
module.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from lvsctl import __version__
from lvsctl.cli.output import discard

PREFIX = "lvsctl"
"""What the interfaces' names begin with: lvsctl.LAB, and lvsctl.LAB.NODE.NETWORK."""

SCRIPT = "lvsctl"

DIRECTORIES = (".local/lib/wireshark/extcap", ".config/wireshark/extcap")
"""In a user's home: of Wireshark since 4.2, and of earlier versions."""

_MACHINE = "LVSCTL_MACHINE"
"""Names the throwaway kernel, where there are several: what is installed is for that one."""

_LVSCTL = (sys.executable, "-m", "lvsctl")


class Offered(NamedTuple):
    """One interface: its name, and what Wireshark shows."""

    name: str
    display: str


def offered(listed: dict[str, Any]) -> Iterator[Offered]:
    """Yield the interfaces of what `lvsctl ls --format json` lists: each lab, and each tap."""
    for one in listed["labs"]:
        lab = one["lab"]
        if lab is None:
            continue
        yield Offered(f"{PREFIX}.{lab['name']}", f"lvsctl {lab['name']}: every interface")
        for node in lab["nodes"]:
            for interface in node["interfaces"]:
                network = interface["network"]
                yield Offered(
                    f"{PREFIX}.{lab['name']}.{node['name']}.{network}",
                    f"lvsctl {lab['name']}: {node['name']} on {network}",
                )


def capture_words(interface: str, expression: str) -> list[str]:
    """Return the words of lvsctl that capture at an interface, to standard output."""
    _, lab, *tap = interface.split(".")
    words = ["capture", "-w", "-"]
    words += ["--tap", ":".join(tap)] if tap else []
    return [*words, "--", lab, *([expression] if expression else [])]


def script() -> str:
    """Return the script that Wireshark runs."""
    machine = os.environ.get(_MACHINE, "")
    chosen = f"{_MACHINE}={shlex.quote(machine)} " if machine else ""
    return (
        "#!/bin/sh\n# Written by lvsctl capture --install-extcap.\n"
        f'{chosen}exec {shlex.quote(sys.executable)} -m lvsctl.cli.extcap "$@"\n'
    )


def install(home: Path) -> tuple[Path, ...]:
    """Write the script into the user's directories of Wireshark. Raises OSError."""
    written = []
    for directory in DIRECTORIES:
        path = home / directory / SCRIPT
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(script(), encoding="utf-8")
        path.chmod(0o755)
        written.append(path)
    return tuple(written)


_app = typer.Typer(add_completion=False)


@_app.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
def answer(
    interfaces: Annotated[bool, typer.Option("--extcap-interfaces")] = False,
    dlts: Annotated[bool, typer.Option("--extcap-dlts")] = False,
    config: Annotated[bool, typer.Option("--extcap-config")] = False,
    captures: Annotated[bool, typer.Option("--capture")] = False,
    interface: Annotated[str, typer.Option("--extcap-interface")] = "",
    expression: Annotated[str, typer.Option("--extcap-capture-filter")] = "",
    fifo: Annotated[str, typer.Option("--fifo")] = "",
) -> None:
    """Answer Wireshark. Options that it adds, such as --extcap-version=4.0, are ignored."""
    if interfaces:
        print(f"extcap {{version={__version__}}}{{display=lvsctl}}")
        for one in offered(_labs()):
            print(f"interface {{value={one.name}}}{{display={one.display}}}")
    elif dlts:
        print("dlt {number=1}{name=EN10MB}{display=Ethernet}")
    elif captures:
        if not fifo or interface.count(".") not in (1, 3):
            raise typer.BadParameter("--capture needs --extcap-interface and --fifo")
        raise typer.Exit(_capture(capture_words(interface, expression), fifo))


def main(words: Sequence[str]) -> int:
    """Answer Wireshark; return an exit status."""
    try:
        _app(list(words), prog_name="lvsctl extcap")
        sys.stdout.flush()
    except SystemExit as ended:
        return int(ended.code or 0)
    except BrokenPipeError:  # as by head(1)
        discard()
    return 0


def _capture(words: Sequence[str], fifo: str) -> int:
    """Capture into Wireshark's pipe until it sends a signal; report errors alone.

    What else is on standard error, such as the number of frames, Wireshark would call an error.
    """
    with open(fifo, "wb") as pipe:  # noqa: PTH123 (waits until Wireshark reads)
        process = subprocess.Popen(
            [*_LVSCTL, *words], stdin=subprocess.DEVNULL, stdout=pipe, stderr=subprocess.PIPE
        )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: process.terminate())
    _, said = process.communicate()
    if process.returncode > 0:
        sys.stderr.buffer.write(said)
    return max(process.returncode, 0)


def _labs() -> dict[str, Any]:
    done = subprocess.run(
        [*_LVSCTL, "ls", "--format", "json"], capture_output=True, text=True, check=False
    )
    found: dict[str, Any] = json.loads(done.stdout) if done.returncode == 0 else {"labs": []}
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
