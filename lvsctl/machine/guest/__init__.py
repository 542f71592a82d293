"""The programs inside the machine: process 1, the fork server and the start of commands.

Process 1 is ``python -I -S`` on a slow kernel: these modules import as little as possible, and of
the rest of lvsctl only ``linux`` and the frames.
"""
