"""Topology files: from YAML to a lab, with every mistake at its line and column."""
