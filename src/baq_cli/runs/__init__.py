"""What a run leaves on disk, and what watches it there; imports no torch."""
