"""The script that the kernel starts. Tiny, for a script is compiled anew every time."""

import os
import sys

sys.path.insert(0, os.path.abspath(f"{os.path.dirname(__file__)}/../../.."))

from lvsctl.machine.guest import memory

memory.map_code()
with memory.Ahead(4 << 20):
    from lvsctl.machine.guest import agent

agent.main()
