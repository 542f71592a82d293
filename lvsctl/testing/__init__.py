"""The pytest plugin.

plugin   hooks and fixtures; imports nothing else until a test needs a lab
worker   one pytest process: where its labs run, whether it can run any, its notes for the summary
labs     the fixture's value: creates labs under unique names, reports and removes them
guard    a process that removes labs if the pytest process cannot
"""
