"""lvsctl: Linux Virtual Server labs on the kernel's real IPVS."""

__version__ = "0.1.0"
