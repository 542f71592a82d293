"""Everything that commands import when they run: the machine forks its commands from this."""

# ruff: noqa: F401
import io
import json
import shutil
import tempfile

from lvsctl import claims
from lvsctl.cli import kept_capture, main, plain, progress, tree
from lvsctl.engine import carrying_out, collect, inspect, labs, teardown, up
from lvsctl.engine.plans import load_lab, make_plan
from lvsctl.kernel import execute, injected, ipvs, probe, registry, state, undo
from lvsctl.output import demo, jsonable, script, text
from lvsctl.plan import diff
from lvsctl.topology import shipped
from lvsctl.traffic import client, responder

tree.command()
# Reading a topology imports and compiles what is only imported where it is needed.
make_plan(load_lab(shipped.find("dr", io.BytesIO())))
