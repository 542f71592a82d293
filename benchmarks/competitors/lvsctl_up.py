"""`lvsctl up` and `down`, the whole command, on a kernel that may have no IPVS.

    python -c 'from benchmarks.competitors.lvsctl_up import main; main()' up FILE
    python -c 'from benchmarks.competitors.lvsctl_up import main; main()' down LAB

The operations on the IPVS table are left out, as by the competitors; everything else is done:
what they do, and besides that all settings that claims rest on, offloads, the registry, waiting
until every link carries frames, and the responder that answers for the real servers.
Prints {"ms", "cpu_ms"} of the building part: from the first operation to the last, without
the responder and the waiting. Namespaces that another CPU had made before, while Python was still
reading, count for both with the CPU time that they took; "ahead" is how many.

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
        op for op in planned(lab) if type(op).__name__ not in ("AddService", "AddRealServer")
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


def count_ahead(spent: list[float]) -> Callable[[Any], None]:
    def change(ahead: Any) -> None:
        netns, make = ahead.netns, ahead.Ahead._make
        made = netns.create_nameless

        def counted() -> int:
            begun = time.thread_time()
            try:
                return int(made())
            finally:
                spent.append(time.thread_time() - begun)

        def all_counted(self: Any) -> None:
            netns.create_nameless = counted
            try:
                make(self)
            finally:
                netns.create_nameless = made

        ahead.Ahead._make = all_counted

    return change


def told(seen: list[tuple[str, float, float]], ahead: list[float], stdout: TextIO) -> None:
    """Have the building part's time printed when the command has done its work."""
    from lvsctl.cli import main

    command = main.main

    def watched(argv: Sequence[str]) -> int:
        status = command(argv)
        (_, begun, cpu), (title, done, cpu_done) = seen[0], seen[-1]
        assert title == "servers", title
        before = sum(ahead)
        wall, used = (done - begun + before) * 1e3, (cpu_done - cpu + before) * 1e3
        print(f'{{"ms": {wall}, "cpu_ms": {used}, "ahead": {len(ahead)}}}', file=stdout, flush=True)
        return status

    main.main = watched


def main() -> None:
    """The command line's words: up FILE, or down LAB."""
    if sys.argv[1] == "up":
        seen: list[tuple[str, float, float]] = []
        ahead: list[float] = []
        changes = {
            "lvsctl.plan.planner": leave_ipvs_out,
            "lvsctl.kernel.probe": load_no_ipvs,
            "lvsctl.cli.progress": watch_stages(seen),
            "lvsctl.kernel.ahead": count_ahead(ahead),
        }
        sys.meta_path.insert(0, Changing(changes))
        told(seen, ahead, sys.stdout)
        sys.stdout = open("/dev/null", "w")  # noqa: SIM115, PTH123 (until the end; no pathlib yet)
    sys.argv += ["--where", "host"]
    from lvsctl.cli.main import entry

    entry()
