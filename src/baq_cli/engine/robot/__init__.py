"""A process that only acts, on time, and what it shares with the one that learns."""
