"""Topology files: YAML to Lab, with every mistake at its line and column."""
