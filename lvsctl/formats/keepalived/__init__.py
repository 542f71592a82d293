"""keepalived.conf: its lines (``lines``), blocks (``tree``), meaning (``services``), and writer."""
