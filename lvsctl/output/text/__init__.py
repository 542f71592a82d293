"""Text for the terminal: pure functions from results to the whole text."""
