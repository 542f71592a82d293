"""HTML pages: one file each, without scripts or external resources."""
