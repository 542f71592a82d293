"""The throwaway kernel: User-Mode Linux, or QEMU, in which commands run where the host cannot.

The processes, from the user's terminal to the kernel that has IPVS::

    client  (the user's command)      lvsctl.machine.client
       | unix socket, one connection per command
    broker  (one per machine)         lvsctl.machine.broker, child of its supervisor
       | serial link: a socketpair, in the guest a serial line or a virtio port
    agent   (process 1 in the guest)  lvsctl.machine.guest.agent
       | fork
    the command, with its own pipes or pseudo-terminal

``kinds`` defines a kind of machine; ``uml`` and ``qemu`` are the two.

Both hops carry the same frames (``lvsctl.machine.frames``). Client and agent control
each stream's flow end to end with credits. The broker routes frames, and never sends more than
a window of unread bytes to the guest.

What the host runs imports only the standard library.
"""
