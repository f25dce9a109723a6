"""Seeds one bug at a time into real training code, in memory: what one operator changes in one place."""
