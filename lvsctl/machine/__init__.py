"""The throwaway kernel: User-Mode Linux, or QEMU, in which commands run where the host cannot.

Who is who, from the user's terminal to the kernel that has IPVS::

    client  (the user's command)      lvsctl.machine.client
       | unix socket, one connection per command
    broker  (one per machine)         lvsctl.machine.broker, its parent the shepherd
       | the line: a socketpair that the guest sees as a serial line or a port of virtio's
    agent   (process 1 in the guest)  lvsctl.machine.guest.agent
       | fork
    the command, with its own pipes or pseudo-terminal

``kinds`` has what a kind of machine is, ``uml`` and ``qemu`` are the two.

Both hops carry the same frames (``lvsctl.machine.frames``). Client and agent control
each stream's flow end to end with credits; the broker only routes, and keeps the one
rule of the line: never more than a window of unread bytes towards the guest.

Everything that the host runs imports the standard library only.
"""
