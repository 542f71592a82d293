"""What the host and the machine can do: doctor."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lvsctl.cli import options, where
from lvsctl.cli.exit_status import ExitStatus
from lvsctl.cli.output import Format, show, show_json, style
from lvsctl.cli.where import Where
from lvsctl.errors import HostError

if TYPE_CHECKING:
    from lvsctl.kernel.probe import Feature


def doctor(
    place: Annotated[
        Where,
        typer.Option("--where", envvar="LVSCTL_WHERE", help="Only this kernel; auto: both."),
    ] = Where.AUTO,
    wanted: options.As = Format.TEXT,
) -> ExitStatus:
    """Say what labs can do here, what is missing, and the command that mends it.

    Tries each thing that a lab may need, on the host and in the machine if one is running
    (--where machine starts one). The exit status is 0 where labs can run on either.

    Examples:
      lvsctl doctor
      sudo lvsctl doctor --where host
      lvsctl doctor --where machine
    """
    from lvsctl.cli import remedy  # imports kernel

    report: dict[str, Any] = {}
    texts = []
    found_inside: tuple[Feature, ...] = ()
    release = os.uname().release if where.inside_machine() else ""
    if looks_inside := place is not Where.HOST and not where.inside_machine():
        found_inside, remark = _inside(start=place is Where.MACHINE)
        release = _release_inside() if found_inside else ""
    if place is not Where.MACHINE or where.inside_machine():
        found = remedy.named(_here(), found_inside, release)
        report["host"], said, host_can = _reported(found, "host", wanted)
        texts.append(said)
    else:
        host_can = False
    machine_can = False
    if looks_inside:
        if found_inside:
            found = remedy.named(found_inside, release=release)
            report["machine"], said, machine_can = _reported(found, "machine", wanted)
            texts.append(said)
        else:
            report["machine"] = {"running": False, "remark": remark}
            texts.append(f"machine: {remark}")
            machine_can = _can_start()
    if wanted is Format.JSON:
        show_json({"version": 1, **report})
    else:
        show("\n".join(text.rstrip("\n") + "\n" for text in texts))
    return ExitStatus.OK if host_can or machine_can else ExitStatus.HOST_CANNOT


def _here() -> tuple[Feature, ...]:
    from lvsctl.kernel import probe

    return probe.features()


def _reported(found: tuple[Feature, ...], place: str, wanted: Format) -> tuple[Any, str, bool]:
    can = all(feature.present for feature in found if feature.needed_for == "every mode")
    if wanted is Format.JSON:
        from lvsctl.output import jsonable

        return jsonable.features(found, place), "", can
    from lvsctl.output import text

    return None, text.features(found, place, style=style()), can


def _can_start() -> bool:
    """Whether a machine would start at once."""
    from lvsctl.machine.kinds import chosen
    from lvsctl.machine.plan import wish_from_environment

    wish = wish_from_environment()
    try:
        return chosen(wish).find(wish.kernel) is not None
    except HostError:
        return False


def _inside(*, start: bool) -> tuple[tuple[Feature, ...], str]:
    """The machine's features; none, and why, where it is not running and not to be started."""
    if not start and not where.machine_is_running():
        if _can_start():
            return (), "not running, ready to start (lvsctl doctor --where machine looks inside)"
        return (), "its kernel is not installed: lvsctl machine install"
    return features_inside(), ""


def _release_inside() -> str:
    from lvsctl.machine import client

    status = client.status()
    return status.release if status else ""


def features_inside() -> tuple[Feature, ...]:
    """What was found in the machine, which runs or is started. Raises HostError."""
    from lvsctl.kernel.probe import Feature

    return tuple(Feature(**fields) for fields in json.loads(_asked(["_features"])))


def _asked(words: list[str]) -> str:
    """What an lvsctl command in the machine prints."""
    import tempfile

    sys.stdout.flush()
    with tempfile.TemporaryFile("w+", encoding="utf-8") as file:
        saved = os.dup(1)
        os.dup2(file.fileno(), 1)
        try:
            status = where.forward(words)
        finally:
            os.dup2(saved, 1)
            os.close(saved)
        if status != ExitStatus.OK:
            raise HostError("the machine cannot say what it can do", hint="lvsctl machine stop")
        file.seek(0)
        return file.read()


def features() -> None:
    """Print this kernel's features as JSON, for the doctor outside."""
    show(json.dumps([asdict(feature) for feature in _here()]))
