"""What each command does: topologies, plans, the kernel and claims put together."""
