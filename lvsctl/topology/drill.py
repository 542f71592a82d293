"""What a drill is made of: a timeline, traffic and what is expected."""

from __future__ import annotations

import re
from typing import Any

from lvsctl.errors import choice_hint, quoted
from lvsctl.model.drill import Drill, DrillStep, Limit, Measure, Verb
from lvsctl.model.lab import Lab, Node, Role
from lvsctl.topology.collection_types import Converted, Key, ListOf, MapOf, OneOf, Record
from lvsctl.topology.config import DrillConfig, ExpectConfig, TopologyConfig, TrafficConfig
from lvsctl.topology.parsers import InvalidValue
from lvsctl.topology.problems import ProblemCollector
from lvsctl.topology.scalar_types import Integer, Text

_AT = re.compile(r"(?:at )?([0-9]+(?:\.[0-9]+)?) ?(ms|s|m)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0}
_LIMIT = re.compile(r"(<=?|at most)? ?([0-9]+(?:\.[0-9]+)?) ?(%|ms|s|m)?")
_RATE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?/ ?s")

MOST_SECONDS, MOST_RATE = 3600.0, 200.0
LAST_PHASE = 3.0
"""Seconds after the last step, where the file does not say for how long."""

_USAGE = {
    Verb.WEIGHT: "weight RS NUMBER",
    Verb.DELETE: "delete RS",
    Verb.ADD: "add RS",
    Verb.STOP: "stop RS",
    Verb.START: "start RS",
    Verb.SYSCTL: "sysctl NODE NAME=VALUE",
    Verb.INJECT: "fault inject FAULT [NODE]",
    Verb.RESTORE: "fault restore [FAULT [NODE]]",
    Verb.KILL: "kill DIRECTOR",
    Verb.CUT: "cut DIRECTOR:NETWORK",
    Verb.BACK: "back",
}
_COUNTS = {
    Verb.WEIGHT: (2, 2),
    Verb.SYSCTL: (2, 2),
    Verb.INJECT: (1, 2),
    Verb.RESTORE: (0, 2),
    Verb.BACK: (0, 0),
}
"""How many words a verb has; the others have one."""


def parse_seconds(text: str) -> float:
    """Parse a time such as ``at 2s`` or ``500ms``, in seconds. Raises InvalidValue."""
    match = _AT.fullmatch(text)
    if not match:
        raise InvalidValue(f"{quoted(text)} is no time", "for example: at 2s, at 500ms, at 1m")
    seconds = float(match[1]) * _SECONDS[match[2]]
    if seconds > MOST_SECONDS:
        raise InvalidValue(f"{quoted(text)} is more than an hour")
    return seconds


def _checked_time(text: str) -> str:
    parse_seconds(text)
    return text


def parse_rate(text: str) -> float:
    """Parse a rate such as ``50/s``. Raises InvalidValue."""
    match = _RATE.fullmatch(text)
    if not match or not 1 <= float(match[1]) <= MOST_RATE:
        raise InvalidValue(
            f"{quoted(text)} is no rate from 1/s to {MOST_RATE:g}/s", "for example: 50/s"
        )
    return float(match[1])


def parse_limit(text: str) -> Limit:
    """Parse what a measure may be: ``0``, ``< 1%``, ``< 2s``. Raises InvalidValue."""
    match = _LIMIT.fullmatch(text.strip())
    if not match:
        raise InvalidValue(f"{quoted(text)} is no limit", "for example: 0, < 5, < 1%, < 2s")
    unit = match[3] or ""
    value = float(match[2]) * (0.01 if unit == "%" else _SECONDS.get(unit, 1.0))
    return Limit(value, unit == "%", match[1] == "<", text.strip())


def parse_step(text: str) -> tuple[Verb, tuple[str, ...]]:
    """Parse a step such as ``weight rs1 0``. Raises InvalidValue."""
    words = text.split()
    for count in (2, 1):
        name = " ".join(words[:count])
        if name in list(Verb):
            verb, rest = Verb(name), tuple(words[count:])
            low, high = _COUNTS.get(verb, (1, 1))
            number = verb is not Verb.WEIGHT or (len(rest) == 2 and rest[1].isdecimal())
            if not low <= len(rest) <= high or not number:
                raise InvalidValue(f"{quoted(text)} is not complete", f"write: {_USAGE[verb]}")
            return verb, rest
    raise InvalidValue(
        f"{quoted(text)} is no step",
        choice_hint(words[0] if words else "", [str(verb) for verb in Verb], "steps"),
    )


_RATE_TYPE = Text("a rate", "50/s", parse_rate, _RATE.pattern)
_WORD = Text("a name", "web", str)
_STEP = Text("a step", "weight rs1 0", parse_step)
_LIMIT_TYPE = Text("a limit", "0", parse_limit, numeric=True)
_DURATION = Text("a time", "8s", parse_seconds, _AT.pattern)
TRAFFIC = Record(
    TrafficConfig,
    {
        "rate": Key(_RATE_TYPE, "new connections per second", default="20/s"),
        "hold": Key(Integer(0, 50, "2"), "connections that are open from the beginning", default=2),
        "service": Key(_WORD, "the virtual service; default: the first over TCP"),
        "client": Key(_WORD, "the node that asks; default: the first client"),
    },
    "a rate or a mapping",
    "{rate: 50/s, hold: 4}",
)
EXPECT = Record(
    ExpectConfig,
    {
        "lost": Key(_LIMIT_TYPE, "requests without an answer"),
        "late": Key(_LIMIT_TYPE, "requests that were not answered at once"),
        "outage": Key(_LIMIT_TYPE, "the longest time without a prompt answer"),
        "broken": Key(_LIMIT_TYPE, "held connections that ended"),
    },
    "a mapping",
    "{lost: 0, outage: < 2s}",
)
STEPS_AND_LIMITS = {
    "traffic": Key(
        OneOf(
            "a rate or a mapping",
            "50/s",
            single=Converted(_RATE_TYPE, TrafficConfig),
            mapped=TRAFFIC,
        ),
        "what clients do while a drill is played",
        default="20/s",
    ),
    "timeline": Key(
        MapOf(
            Text("a time", "at 2s", _checked_time, _AT.pattern),
            OneOf(
                "a step or a list of steps",
                "weight rs1 0",
                single=Converted(_STEP, lambda step: (step,)),
                listed=ListOf(_STEP, "a list of steps", "[weight rs1 0]", at_least=1),
            ),
            "a mapping of times to steps",
            "{at 2s: weight rs1 0}",
            at_least=1,
        ),
        "what is done to the lab by `lvsctl play`, and when",
    ),
    "for": Key(_DURATION, "how long a drill takes; default: until 3 s after the last step"),
    "expect": Key(
        EXPECT,
        "what a drill may amount to at most",
    ),
}
"""What a drill is made of: keys of its file, and of a topology."""

DRILL = Record(
    lambda **keys: DrillConfig(**renamed(keys)),
    {
        "version": Key(Integer(1, 1, "1"), "version of this format", required=True),
        "description": Key(Text("a text", "rs1 is taken out", str), "what it is about"),
        "topology": Key(
            Text("a name or file", "dr", str), "the lab to bring up if none is named: a shipped "
            "name, or a file beside this one"
        ),
        **STEPS_AND_LIMITS,
        "timeline": STEPS_AND_LIMITS["timeline"]._replace(required=True),
    },
    "a mapping",
    "{version: 1, timeline: {at 2s: weight rs1 0}}",
)  # fmt: skip


def renamed(keys: dict[str, Any]) -> dict[str, Any]:
    """Return keys of a file as arguments: ``for`` is a word of Python's own."""
    return {"length" if name == "for" else name: value for name, value in keys.items()}


def check_drill(config: TopologyConfig, problems: ProblemCollector) -> None:
    """Report what a topology says of a drill that it does not have."""
    if config.timeline is None:
        for key, value in (
            ("traffic", config.traffic), ("for", config.length), ("expect", config.expect),
        ):  # fmt: skip
            if value is not None:
                hint = "for example: timeline: {at 2s: weight rs1 0}"
                problems.add((key,), f"{key} is of a drill, and there is no timeline", hint)


def drill_of(found: DrillConfig, problems: ProblemCollector) -> Drill:
    """Return the drill of a valid file. Raises TopologyError if it ends before its last step."""
    steps = tuple(
        DrillStep(parse_seconds(key), verb, words, key, index)
        for key, listed in (found.timeline or {}).items()
        for index, step in enumerate(listed or ())
        for verb, words in ([step] if step is not None else [])
    )
    steps = tuple(sorted(steps, key=lambda one: one.at))
    length = found.length if found.length is not None else steps[-1].at + LAST_PHASE
    if length < steps[-1].at:
        problems.add(("for",), "ends before the last step", f"for: {steps[-1].at + LAST_PHASE:g}s")
    problems.raise_any()
    traffic, expect = found.traffic or TrafficConfig(), found.expect or ExpectConfig()
    limits = {
        Measure.LOST: expect.lost,
        Measure.LATE: expect.late,
        Measure.OUTAGE: expect.outage,
        Measure.BROKEN: expect.broken,
    }
    return Drill(
        problems.source,
        steps,
        length,
        traffic.rate or 20.0,
        2 if traffic.hold is None else traffic.hold,
        traffic.service or "",
        traffic.client or "",
        found.topology or "",
        found.description or "",
        {measure: limit for measure, limit in limits.items() if limit is not None},
    )


def check_names(
    drill: Drill, lab: Lab, faults: tuple[str, ...], problems: ProblemCollector
) -> None:
    """Raise TopologyError with every name in a drill that a lab does not have.

    Without ``faults``, their names are not looked at.
    """
    names = {node.name: node for node in lab.nodes}
    services = [one.name for one in lab.services]
    for key, name, known in (
        ("service", drill.service, services),
        ("client", drill.client, list(names)),
    ):
        if name and name not in known:
            problems.add(
                ("traffic", key), f"lab {lab.name} has no {quoted(name)}",
                choice_hint(name, known, "it has"),
            )  # fmt: skip
    servers = {s.node for service in lab.services for s in service.real_servers}
    for step in drill.steps:
        path = ("timeline", step.key, step.index)
        for name, kind, known in _names_in(step, names, servers, faults):
            if known and name not in known:
                problems.add(path, f"{quoted(name)} is no {kind}", choice_hint(name, known, kind))
        if step.verb in (Verb.KILL, Verb.CUT) and not (lab.floating or lab.ecmp):
            problems.add(path, f"lab {lab.name} has one director: nothing takes over from it")
    problems.raise_any()


def _names_in(
    step: DrillStep, nodes: dict[str, Node], servers: set[str], faults: tuple[str, ...]
) -> list[tuple[str, str, list[str]]]:
    directors = [name for name, node in nodes.items() if node.role is Role.DIRECTOR]
    words = step.words
    match step.verb:
        case Verb.WEIGHT | Verb.DELETE | Verb.ADD | Verb.STOP | Verb.START:
            return [(words[0], "real server", sorted(servers))]
        case Verb.SYSCTL:
            return [(words[0], "node", list(nodes))]
        case Verb.INJECT | Verb.RESTORE:
            found = [(one, "fault", list(faults)) for one in words[:1]]
            return found + [(one, "node", list(nodes)) for one in words[1:]]
        case Verb.KILL:
            return [(words[0], "director", directors)]
        case Verb.CUT:
            links = [f"{name}:{n}" for name in directors for n in nodes[name].networks]
            return [(words[0], "link of a director", links)]
    return []
