"""Looking at a running lab again and again: what changed, at what rate, and what is amiss."""
