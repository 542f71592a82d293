"""The script that the kernel starts. A script is compiled at every start: keep it short."""

import os
import sys

sys.path.insert(0, os.path.abspath(f"{os.path.dirname(__file__)}/../../.."))

from lvsctl.machine.guest import agent

agent.main()
