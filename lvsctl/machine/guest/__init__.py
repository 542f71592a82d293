"""What runs inside the machine: process 1, the warm process and the commands' first steps.

Started with ``python -I -S`` on a slow kernel, so these modules import as little as they
can, and never anything from the rest of lvsctl but the frames.
"""
