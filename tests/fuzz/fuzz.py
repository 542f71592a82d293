"""Coverage-guided fuzzing of everything that reads what may be anybody's.

    make fuzz                                       each target for a minute
    python -m tests.fuzz.fuzz topology 600          one of them, for ten

What is found is written to .fuzz/TARGET/ and printed as bytes: put it into FOUND of
tests/unit/test_hostile.py, where it stays a test, and repair what it shows. Needs atheris
(CPython 3.11 to 3.13), which lvsctl itself does not.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / ".fuzz"
SECONDS = 60
SLOW_SECONDS = 10
"""An input that takes longer is a finding, as is one that takes more memory than this:"""
MEMORY_MIB = 1024


def seeds(target: str) -> Iterator[bytes]:  # noqa: C901, PLR0912 (a row a target)
    """Inputs that get far: the fuzzer changes them."""
    from lvsctl.kernel import registry
    from lvsctl.output.evidence import capture_bytes
    from tests.unit.recorded.reports import NAMES, evidence_of, files_of

    files = (*ROOT.glob("topologies/*.yaml"), *ROOT.glob("tests/unit/topology/**/*.yaml"))
    if target == "topology":
        yield from (file.read_bytes() for file in files)
        yield (ROOT / "tests/unit/topology/small.json").read_bytes()
    elif target == "configuration":
        for number, suffix in enumerate(("conf", "rules", "cf")):
            for file in ROOT.glob(f"tests/formats/corpus/*.{suffix}"):
                yield bytes([number]) + file.read_bytes()
    elif target == "capture":
        for name in NAMES:
            evidence = evidence_of(name)
            yield capture_bytes(replace(evidence, frames=evidence.frames[:20]))
    elif target == "frames":
        for name in NAMES:
            yield from (frame.raw.data for frame in evidence_of(name).frames[:100])
    elif target == "evidence":
        yield files_of("dr")["evidence.json"]
    elif target == "host":
        yield from (file.read_bytes() for file in ROOT.glob("tests/unit/recorded/hosts/*"))
    elif target == "host-frames":
        from tests.unit.test_check_frames import STATS, document, pcap, syn

        frames = pcap((1, bytes(syn(5000, "client", "lb"))), (2, b"x" * 60)).hex()
        yield document(frames_0_in=frames, counters_before=STATS, counters_after=STATS)
    elif target == "inventory":
        yield b"[a]\nrs1 ansible_host=10.0.0.1\nw[1:3]\n[b:children]\na\n[b:vars]\nansible_user=x\n"
        yield b"all: {children: {a: {hosts: {rs1: {ansible_port: 22}}, vars: {ansible_user: x}}}}"
    elif target in ("changed-evidence", "changed-host"):
        yield from (bytes([n, 7 * n % 256, 3 * n % 256, 251]) for n in range(64))
    else:
        text = (ROOT / "topologies/dr.yaml").read_text()
        entry = registry.Entry(lab="dr", topology=text, namespaces=("lvs-dr-rs1",), started=1.0,
                               overrides={"servers": 3}, state=registry.State.UP)  # fmt: skip
        yield registry.said(entry).encode()


def fuzz(target: str, seconds: int) -> None:
    """Fuzz one target in this process, which it ends."""
    import atheris

    with atheris.instrument_imports(include=["lvsctl", "yaml", "ipaddress", "cattrs"]):
        from lvsctl.kernel import paths
        from tests.fuzz.targets import TARGETS

    where = OUT / target
    corpus = where / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds(target)):
        (corpus / f"seed-{number}").write_bytes(seed)
    with tempfile.TemporaryDirectory() as scratch:  # nothing of the host's own labs
        paths.RUN, paths.NETNS = Path(scratch) / "lvsctl", Path(scratch) / "netns"
        options = [
            f"-max_total_time={seconds}",
            f"-timeout={SLOW_SECONDS}",
            f"-rss_limit_mb={MEMORY_MIB}",
            f"-artifact_prefix={where}/",
            "-max_len=65536",
            "-print_final_stats=1",
        ]
        atheris.Setup([sys.argv[0], *options, str(corpus)], TARGETS[target])
        atheris.Fuzz()


def main() -> int:
    """One target, or each in a process of its own; 1 where something was found."""
    words = sys.argv[1:]
    if words and not words[0].isdigit():
        fuzz(words[0], int(words[1]) if len(words) > 1 else SECONDS)
    from tests.fuzz.targets import TARGETS  # not before: what is imported is instrumented

    seconds = words[0] if words else str(SECONDS)
    status = 0
    for target in TARGETS:
        print(f"── {target}, {seconds} s", flush=True)
        command = [sys.executable, "-m", "tests.fuzz.fuzz", target, seconds]
        done = subprocess.run(command, cwd=ROOT, env=os.environ, check=False)
        status |= bool(done.returncode)
    return status


if __name__ == "__main__":
    raise SystemExit(main())
