"""The throwaway kernel: a User-Mode Linux in which commands run where the host cannot.

Who is who, from the user's terminal to the kernel that has IPVS::

    client  (the user's command)      lvsctl.machine.client
       | unix socket, one connection per command
    broker  (one per machine)         lvsctl.machine.broker, its parent the shepherd
       | serial line: a socketpair that the guest sees as /dev/ttyS0
    agent   (process 1 in the guest)  lvsctl.machine.guest.agent
       | fork
    the command, with its own pipes or pseudo-terminal

Both hops carry the same frames (``lvsctl.machine.frames``). Client and agent control
each stream's flow end to end with credits; the broker only routes, and keeps the one
rule of the line: never more than a window of unread bytes towards the guest.

Everything that the host runs imports the standard library only.
"""
