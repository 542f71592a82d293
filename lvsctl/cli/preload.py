"""Everything that commands import when they run: the machine forks its commands from this."""

# ruff: noqa: F401
import io
import json
import shutil
import tempfile

from lvsctl import app, converge, experiment, removing, verify
from lvsctl.app import bringing_up, carrying_out, looking, registered
from lvsctl.cli import kept_capture, main, plain, progress, tree
from lvsctl.kernel import execute, injected, ipvs, probe, registry, state, undo
from lvsctl.report import demo, jsonable, script, text
from lvsctl.spec import shipped
from lvsctl.traffic import client, responder

tree.command()
# Reading a topology imports and compiles what is only imported where it is needed.
app.plan_of(app.lab_of(shipped.find("dr", io.BytesIO())))
