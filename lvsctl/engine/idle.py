"""Let flows be silent for longer than IPVS keeps their entries, and see what becomes of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from lvsctl.claims.flows import Observed, differing
from lvsctl.claims.idle import idled
from lvsctl.engine.drain import SHORT, setting, settings_of, timeouts_setting, wanted_flows
from lvsctl.engine.experiment import Change, Experiment
from lvsctl.engine.labs import find_node
from lvsctl.errors import UsageError
from lvsctl.kernel import registry
from lvsctl.model.flows import IDLING, FlowKind, FlowResult, FlowSetting, Idle, SettingTrial
from lvsctl.model.lab import Lab
from lvsctl.model.service import IpvsTimeouts

TIMEOUT = 2
"""Seconds of IPVS's timeouts meanwhile, where the lab's are longer than ``SHORT``."""

LONGER = 1.5
"""Seconds for which flows are silent beyond IPVS's timeouts."""

WINDOW = 3.0
"""Seconds for which flows are watched afterwards."""

VALUES = {"conn_reuse_mode": ("0", "1", "2"), "sloppy_tcp": ("0", "1")}
"""The settings that decide, with the values that are tried."""


def idle(
    lab: Lab,
    kinds: Sequence[FlowKind] = (),
    *,
    sender: str | None = None,
    timeout: int = 0,
    tried: bool = False,
    report: Callable[[str], None] = lambda _: None,
) -> Idle:
    """Let flows of ``kinds`` (default: all) be silent until IPVS has forgotten them; then go on.

    ``timeout`` is that of IPVS meanwhile, in seconds; the other parameters are those of
    ``drain.drain``, and so is what is raised. Everything is put back.
    """
    experiment = _experiment(lab, kinds, sender)
    with registry.lock(lab.name):
        change = _timeouts(experiment, timeout)
        report("flows are silent for longer than IPVS's timeouts")
        observed, flows, waited = _run(experiment, change)
        trials = []
        for one, other in _alternatives(observed, change) if tried else ():
            report(f"again with {one.name}: {one.value}")
            _, found, _ = _run(experiment, other)
            trials.append(SettingTrial(one, found, differing(flows, found)))
    return Idle(
        lab.name,
        experiment.server.name,
        experiment.sender.name,
        waited,
        round(observed.until - observed.done, 1),
        observed.timeouts,
        flows,
        (*settings_of(observed, VALUES), timeouts_setting(observed.timeouts)),
        tuple(trials),
    )


def _experiment(lab: Lab, kinds: Sequence[FlowKind], sender: str | None) -> Experiment:
    client = lab.default_client if sender is None else find_node(lab, sender)
    for server in dict.fromkeys(s for service in lab.services for s in service.real_servers):
        services = [x for x in lab.services if any(s.node == server.node for s in x.real_servers)]
        wanted = wanted_flows(services, kinds or IDLING, skip=not kinds)
        found = Experiment(lab, lab.node(server.node), client, wanted)
        states = found.directors().values()
        if any(one.real_server.weight for state in states for one in found.entries(state)):
            return found
    raise UsageError(f"no real server of lab {lab.name} gets connections: all weights are 0")


def _timeouts(experiment: Experiment, timeout: int) -> Change:
    found = [one.ipvs_timeouts or IpvsTimeouts() for one in experiment.directors().values()]
    longest = max(max(one.tcp, one.tcp_fin, one.udp) for one in found)
    wanted = timeout or (0 if longest <= SHORT else TIMEOUT)
    return Change({}, {}, wanted, wanted)


def _run(experiment: Experiment, change: Change) -> tuple[Observed, tuple[FlowResult, ...], float]:
    with experiment.changed(change) as directors:
        timeouts = [one.ipvs_timeouts or IpvsTimeouts() for one in directors.values()]
        waited = max(max(one.tcp, one.tcp_fin, one.udp) for one in timeouts) + LONGER
        observed, records = experiment.observe_idle(directors, waited, WINDOW)
    flows = tuple(idled(observed[record.kind], record) for record in records)
    return observed[FlowKind.IDLE], flows, waited


def _alternatives(now: Observed, change: Change) -> Iterator[tuple[FlowSetting, Change]]:
    for name, values in VALUES.items():
        for value in values:
            if now.settings[name] not in ("", value):
                yield setting(name, value), replace(change, sysctls={name: value})
