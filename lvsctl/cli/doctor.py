"""The features of the host's and the machine's kernels: doctor."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, replace
from typing import Annotated

import typer

from lvsctl.cli import options, where
from lvsctl.cli.failure import ExitStatus
from lvsctl.cli.help import Command, new_app
from lvsctl.cli.output import Format, show, show_json, style
from lvsctl.cli.where import WHERE_VARIABLE, Where
from lvsctl.errors import HostError
from lvsctl.kernel import features as host_features
from lvsctl.kernel import probe
from lvsctl.kernel.probe import Feature, Features
from lvsctl.machine import client, kinds
from lvsctl.machine.config import request_from_environment
from lvsctl.machine.kinds import choose_kind
from lvsctl.output.text.hosts import format_features, format_verdict

app = new_app()


@app.command(cls=Command)
def doctor(
    place: Annotated[
        Where,
        typer.Option(
            "--where",
            envvar=WHERE_VARIABLE,
            help="Kernels to check: host, machine (started if necessary), or auto (the host's, "
            "and the machine's if it is running).",
        ),
    ] = Where.AUTO,
    wanted: options.As = Format.TEXT,
) -> ExitStatus:
    """Report what labs can do on this host and what is missing.

    First whether labs can run and what to do, then each feature that a lab may need, tried on the
    host and in the machine if one is running (--where machine starts one). Without root, some
    features of the host are unknown.
    The exit status is 0 if labs can run on either kernel.

    Examples:
      lvsctl doctor
      sudo lvsctl doctor --where host
      lvsctl doctor --where machine
    """
    host: Features | None = None
    machine: Features | None = None
    texts = []
    found_inside: tuple[Feature, ...] = ()
    release = os.uname().release if where.inside_machine() else ""
    if looks_inside := place is not Where.HOST and not where.inside_machine():
        found_inside, remark = _features_of_machine(start=place is Where.MACHINE)
        release = _release_inside() if found_inside else ""
    if place is not Where.MACHINE or where.inside_machine():
        found = with_remedies(host_features.host_features(), found_inside, release)
        host = Features("host", found)
        host_can = _can_run_labs(found)
        texts.append(format_features(found, "host", style=style()))
    else:
        host_can = False
    machine_can = False
    if looks_inside:
        if found_inside:
            found = with_remedies(found_inside, release=release)
            machine = Features("machine", found)
            machine_can = _can_run_labs(found)
            texts.append(format_features(found, "machine", style=style()))
        else:
            machine = Features("machine", (), remark)
            machine_can = not _why_not_ready()
    if wanted is Format.JSON:
        show_json(host=host, machine=machine)
    else:
        verdict = format_verdict(
            host=host_can,
            machine=machine_can,
            remark=machine.remark if machine else "",
            style=style(),
        )
        show("\n".join(shown.rstrip("\n") + "\n" for shown in (verdict, *texts)))
    return ExitStatus.OK if host_can or machine_can else ExitStatus.HOST_CANNOT


def _can_run_labs(found: tuple[Feature, ...]) -> bool:
    return all(feature.present for feature in found if feature.needed_for == "every mode")


def _why_not_ready() -> str:
    """Return why a machine would not start without a download; empty if it would."""
    request = request_from_environment()
    try:
        found = choose_kind(request).find(request.kernel)
    except HostError as error:
        return f"{error} ({error.hint})" if error.hint else str(error)
    if found:
        return ""
    return "its kernel is not installed: lvsctl machine install, or lvsctl up, fetches it"


def _features_of_machine(*, start: bool) -> tuple[tuple[Feature, ...], str]:
    """Return the machine's features; none, and why, if it is neither running nor to be started."""
    if not start and not where.machine_is_running():
        ready = "not running, ready to start (check it: lvsctl doctor --where machine)"
        return (), _why_not_ready() or ready
    return features_inside(), ""


def _release_inside() -> str:
    status = client.status()
    return status.release if status else ""


def features_inside() -> tuple[Feature, ...]:
    """Return the features of the machine, which is started if necessary. Raises HostError."""
    return tuple(Feature(**fields) for fields in json.loads(_output_of(["_features"])))


def _output_of(words: list[str]) -> str:
    """Return what an lvsctl command in the machine prints."""
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
            raise HostError("the features of the machine are unknown", hint="lvsctl machine stop")
        file.seek(0)
        return file.read()


@app.command("_features", hidden=True)
def features() -> None:
    """Print the features of this kernel as JSON."""
    show(json.dumps([asdict(feature) for feature in host_features.host_features()]))


def with_remedies(
    found: Iterable[Feature], inside: Iterable[Feature] = (), release: str = ""
) -> tuple[Feature, ...]:
    """Return the features with remedies that name a kernel which has what is missing.

    ``inside`` is what was found in the running machine, whose kernel is ``release``; without it,
    the kernels' lists of modules are read, if they are installed. The throwaway kernel is
    recommended unless it lacks the feature too; then another kernel that is ready to start.
    """
    modules = host_features.modules()
    tried = {feature.id: feature.present for feature in inside}
    return tuple(
        feature
        if feature.present
        else replace(feature, remedy=_remedy(feature, modules.get(feature.id, ""), tried, release))
        for feature in found
    )


def _remedy(feature: Feature, module: str, tried: dict[str, bool], release: str) -> str:
    if feature.remedy not in (probe.MACHINE, probe.OTHER_KERNEL):
        return feature.remedy
    if feature.remedy == probe.MACHINE:
        has = tried.get(feature.id)
        if has is None and module:
            has = kinds.default_kernel_has_module(request_from_environment(), module)
        if has is not False:
            return feature.remedy
    start = kinds.command_to_start_with(module, without=release) if module else None
    return (
        f"a kernel that has it: lvsctl machine stop, then {start}" if start else probe.OTHER_KERNEL
    )
