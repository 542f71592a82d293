"""`lvsctl up` and `down`, the whole command, on a kernel that may have no IPVS.

    python -c 'from benchmarks.competitors.lvsctl_up import main; main()' up FILE
    python -c 'from benchmarks.competitors.lvsctl_up import main; main()' down LAB

The operations on the IPVS table are left out, as by the competitors; everything else is done:
what they do, and besides that all settings that claims rest on, offloads, the registry, waiting
until every link carries frames, and the responder that answers for the real servers.
Prints {"ms", "cpu_ms"} of the building part: from the first operation to the last, without
the responder and the waiting.

It imports nothing that `lvsctl` does not, and nothing sooner: what it changes of a module is
changed when lvsctl imports that.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TextIO


class Changing:
    """Imports modules as usual, and changes those that ``changes`` names."""

    def __init__(self, changes: dict[str, Callable[[Any], None]]) -> None:
        self._changes = changes

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        change = self._changes.pop(name, None)
        if change is None:
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        spec = next(filter(None, (one.find_spec(name, path, target) for one in others)))
        execute = spec.loader.exec_module

        def execute_and_change(module: Any) -> None:
            execute(module)
            change(module)

        spec.loader.exec_module = execute_and_change
        return spec


def leave_ipvs_out(planner: Any) -> None:
    planned = planner._virtual_services
    planner._virtual_services = lambda lab: (
        op for op in planned(lab) if type(op).__name__ not in ("IpvsService", "IpvsRealServer")
    )


def load_no_ipvs(probe: Any) -> None:
    probe.load_ipvs = lambda: None


def watch_stages(seen: list[tuple[str, float, float]]) -> Callable[[Any], None]:
    def change(progress: Any) -> None:
        class Watching(progress.Progress):  # type: ignore[misc]
            def __call__(self, event: Any) -> None:
                if type(event).__name__ == "StageBegun":
                    seen.append((event.title, time.perf_counter(), time.process_time()))
                super().__call__(event)

        progress.Progress = Watching

    return change


def told(seen: list[tuple[str, float, float]], stdout: TextIO) -> None:
    """Have the building part's time printed when the command has done its work."""
    from lvsctl.cli import main

    command = main.main

    def watched(argv: Sequence[str]) -> int:
        status = command(argv)
        (_, begun, cpu), (title, done, cpu_done) = seen[0], seen[-1]
        assert title == "servers", title
        wall, used = (done - begun) * 1e3, (cpu_done - cpu) * 1e3
        print(f'{{"ms": {wall}, "cpu_ms": {used}}}', file=stdout, flush=True)
        return status

    main.main = watched


def main() -> None:
    """The command line's words: up FILE, or down LAB."""
    if sys.argv[1] == "up":
        seen: list[tuple[str, float, float]] = []
        changes = {
            "lvsctl.plan.planner": leave_ipvs_out,
            "lvsctl.kernel.probe": load_no_ipvs,
            "lvsctl.cli.output": watch_stages(seen),
        }
        sys.meta_path.insert(0, Changing(changes))
        told(seen, sys.stdout)
        sys.stdout = open("/dev/null", "w")  # noqa: SIM115, PTH123 (until the end; no pathlib yet)
    sys.argv += ["--where", "host"]
    from lvsctl.cli.main import entry

    entry()
