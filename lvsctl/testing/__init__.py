"""The pytest plugin.

plugin   hooks and fixtures; imports nothing else until a test needs a lab
worker   one pytest process: where its labs run, and whether it can run any
labs     the fixture's value: creates labs under unique names, and removes them
guard    a process that removes labs if the pytest process cannot
failure  the report of a failed test: findings, cause, and the capture as files
notes    lines for the terminal's summary, from xdist's workers too
"""
