"""Sampling a running lab: what changed, at what rate, and which problems it has."""
