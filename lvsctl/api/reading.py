"""From the JSON of the commands (``report.jsonable`` and its like) to typed results.

By cattrs, as saved reports are. Keys that are not known are passed over: within a version
of the interface keys may be added.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, TypeVar

from cattrs.gen import make_dict_structure_fn, override
from cattrs.preconf.json import JsonConverter

from lvsctl.api.results import Hop, InjectedFault, Service, Verification
from lvsctl.output.evidence import converter_of

Json = Mapping[str, Any]
T = TypeVar("T")


def result(said: Json, kind: type[T]) -> T:
    """A result of a type that has the JSON's own keys."""
    return _converter().structure(said, kind)


def verification(said: Json, files: Mapping[str, bytes]) -> Verification:
    """What ``verify`` found, with the report that it wrote."""
    return result({**said, "findings": said["claims"], "files": files}, Verification)


def injected(said: Json) -> InjectedFault:
    """What ``fault inject`` did."""
    return result({**said, "fault": said["fault"]["id"]}, InjectedFault)


def services(lab: Json) -> tuple[Service, ...]:
    """The virtual services of a lab as configured."""
    return tuple(result(service, Service) for service in lab["services"])


@cache
def _converter() -> JsonConverter:
    converter = converter_of(strict=False)
    # A hop's ends are called as people call them, which Python does not allow.
    hop = make_dict_structure_fn(
        Hop, converter, sender=override(rename="from"), receivers=override(rename="to")
    )
    converter.register_structure_hook(Hop, hop)
    converter.register_structure_hook(bytes, lambda value, _: value)
    return converter
