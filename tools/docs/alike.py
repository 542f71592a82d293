"""The rules for what may differ between the outputs of two runs, each with its reason.

No line is left out: a rule replaces a value by a placeholder, so that everything around it is
still compared. A placeholder with a number stands for the same value everywhere in that output
(the source port of a request is the destination port of its reply).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

_NODE = r"[a-z][a-z0-9-]*"
_NODES = rf"{_NODE}(?:,\s+{_NODE})+"
_FRAME = rf"#\d+\s+{_NODE}:{_NODE}"


@dataclass(frozen=True, slots=True)
class Rule:
    """A ``pattern`` that is replaced; ``why`` is printed in the documentation."""

    varies: str
    pattern: str
    by: str | Callable[[re.Match[str]], str]
    why: str
    numbered: bool = False

    def applied(self, text: str) -> str:
        """Return the text with placeholders."""
        if not self.numbered:
            return re.sub(self.pattern, self.by, text, flags=re.MULTILINE)
        seen: dict[str, str] = {}

        def placeholder(found: re.Match[str]) -> str:
            return seen.setdefault(found[0], f"<{self.by}-{len(seen) + 1}>")

        return re.sub(self.pattern, placeholder, text, flags=re.MULTILINE)


def _sorted_nodes(found: re.Match[str]) -> str:
    return found[1] + ", ".join(sorted(re.split(r",\s+", found[2])))


def _traffic(found: re.Match[str]) -> str:
    connections, others = found[1] or found[3], found[2] or found[4]
    return connections + re.sub(r"[1-9]\d*", "<n>", others)


def _sorted_frames(found: re.Match[str]) -> str:
    return found[1] + ", ".join(sorted(tap.split()[1] for tap in re.split(r",\s+", found[2])))


def _without_counts(found: re.Match[str]) -> str:
    if found[3] is None:
        return "0" if found[0].startswith("0 of ") else "<n>"
    return f"{found[2].strip()} {'none' if found[3] == '0' else 'some'} lost"


RULES = (
    Rule(
        "the requests of `lvsctl play` in each phase, and those lost in all",
        r"^( +)\d+\.\d s (.*?)  +\d+  +\d+  +(\d+)  .*$|\b\d+ of \d+(?=; expected)"
        r"|\b\d+(?= requests\)$)",
        _without_counts,
        "a client asks at a rate, by the clock of the machine; that some were lost is compared",
    ),
    Rule(
        "how many requests and packets a flow of `lvsctl drain` had, and when it ended",
        r"\b\d+(?= of \d+ (?:still|refused|silent))|(?<= of )\d+(?= (?:still|refused|silent))"
        r"|(?<=: all )\d+(?= at )|(?<=  all )\d+(?= at )|(?<=packets \()\d+(?=\))"
        r"|\b\d+(?= packets? dropped)|(?<=silent for )[\d.]+(?= s)|(?<=after )\d+(?= ms$)"
        r"|(?<=\(frame #)\d+",
        "<n>",
        "clients ask every 100 ms for some seconds, by the clock of the machine",
    ),
    Rule(
        "a client's port",
        r"(?<=[:.])(?:3276[89]|327[7-9]\d|32[89]\d\d|3[3-9]\d{3}|[45]\d{4}|60\d{3})(?!\d)",
        "port",
        "the kernel chooses one from 32768 to 60999 (ip_local_port_range); the same port is the "
        "same placeholder",
        numbered=True,
    ),
    Rule(
        "counts of packets and bytes",
        r"\b[1-9]\d*\s+(?=(?:request\s+|reply\s+)?(?:packets|replies|frames|ARP\s+requests?)\b"
        r"|hops\b|bytes\b|through\b|of\s+them\b|in, |out\b)"
        r'|(?<="packets_in": )[1-9]\d*|(?<="bytes_in": )[1-9]\d*',
        "<n> ",
        "TCP may delay or combine acknowledgements (RFC 9293, 3.8.6.3), so numbers vary, except 0; "
        "connections are compared exactly",
    ),
    Rule(
        "packets and bytes of ipvsadm",
        r"(?<=:\d\d )( +\d+)((?: +\d+){4})$|(?<=:\d{4} )( +\d+)((?: +\d+){4})$",
        _traffic,
        "the same in the table of `ipvsadm -Ln --stats`: connections are compared exactly, the "
        "others only as 0 or not 0",
    ),
    Rule(
        "the kernel's counters",
        r"(?<=counted )(\w+) \+[1-9]\d*",
        r"\1 +<n>",
        "the number of events depends on TCP's retransmissions; that there were events is compared",
    ),
    Rule(
        "the time of a hop",
        r"^ +\d+\.\d\d  (?=\S)",
        "<ms>  ",
        "milliseconds since the request began",
    ),
    Rule(
        "durations",
        r"\b\d+\.\d+ (?=ms\b)|\b\d+ (?=milliseconds\b)|(?<=expires )\d+(?=sec\b)",
        "<time> ",
        "measured times, and the rest of a timeout",
    ),
    Rule("dates", r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", "<date>", "the time at which the page was run"),
    Rule(
        "the order of a broadcast's receivers",
        rf"((?:→|(?:heard|received)\s+by)\s+)({_NODES})",
        _sorted_nodes,
        "the switch floods its ports one after the other; the receivers are compared, sorted",
    ),
    Rule(
        "frame numbers",
        rf"(frames\s+)({_FRAME}(?:,\s+{_FRAME})*)",
        _sorted_frames,
        "a frame's number depends on the other frames captured; the taps are compared, sorted",
    ),
    Rule(
        "frame numbers",
        r'#\d+\b|\bframe \d+\b|(?<="frame": )\d+',
        "<frame>",
        "the same, in a finding's evidence",
    ),
    Rule(
        "the responder's process",
        r"\bpython3(?:\.\d+)? \(\d+\)",
        "<python> (<pid>)",
        "process IDs, and the version of the Python that runs lvsctl",
    ),
    Rule(
        "a neighbour's state",
        r"\b(?i:reachable|stale|delay|probe)\b",
        "<state>",
        "it depends on the time since the last use (arp(7)); the address and the MAC are compared",
    ),
    Rule("the width of columns", r"[ \t]+", " ", "a column is as wide as its widest value"),
)
"""All rules, in the order in which they are applied."""


def essence(output: tuple[str, ...]) -> str:
    """Return what must be the same in every run."""
    text = "\n".join(output)
    for rule in RULES:
        text = rule.applied(text)
    return text
