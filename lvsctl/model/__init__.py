"""The words of the domain as frozen value types: no I/O, no imports from other rooms."""
