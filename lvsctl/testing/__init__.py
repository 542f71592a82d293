"""What the pytest plugin does once a test asks for a lab. ``lvsctl.testing.plugin`` is its door.

worker   one pytest process: where its labs are, whether it can have any
labs     the fixture's value: brings labs up under names of their own, and down again
guard    a process that takes them down where the pytest process cannot any more
failure  what a failed test's report gets: findings, cause, and the capture as files
notes    what the terminal's summary says of it all, xdist's workers included
"""
