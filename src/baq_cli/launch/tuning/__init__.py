"""The search of a recipe's keys: what is tried, what came of it, and what was chosen."""
