"""Configuration of other programs: keepalived.conf, ipvsadm rules and ldirectord.cf.

A reader turns a file into a ``Configuration`` (``configuration``), from which ``to_topology``
writes a topology. A writer turns a lab into a file. ``formats.readers`` and ``formats.writers`` are
the tables of both. Nothing here runs anything from a file, or reads one that it does not include.
"""
